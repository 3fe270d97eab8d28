"""A video file as a source, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lmanet.errors import VideoError
from lmanet.video.frame import Frame, Source, SourceInfo

# FFmpeg takes any text file named .txt for terminal art and would play it.
NOT_VIDEO_FORMATS = ("tty",)
FALLBACK_FPS = Fraction(25)  # what FFmpeg assumes of streams that say nothing
JOIN_S = 1  # time stamps that go back by more are those of another recording, joined to the first


def codec_threads() -> int:
    """Threads for a decoder or an encoder: a quarter of the cores, so that the network has the rest."""
    return max(1, min(8, (os.cpu_count() or 1) // 4))


class VideoFileSource(Source):
    """The frames of a video file's best video stream, with the time stamps that they have in the file.

    Nothing is resampled: with a variable frame rate the time stamps are as uneven as they are. A file that
    ends early or is damaged gives the frames that it has; `warnings` then says so.

    Args:
        path: a file that FFmpeg reads.

    Raises:
        VideoError: if the file is not video, has no video stream, or not one frame can be decoded.
    """

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self._path = path
        self._container = _open(path)
        try:
            self._stream = _video_stream(self._container, path)
            self._packets = self._bad_packets = self._bad_frames = self._restamped = self._rescaled = 0
            self._offset = 0  # ticks, added to the time stamps of a joined recording
            self._decoded = self._decode()
            # The first frame gives the size after rotation, and tells a wrong input before any work.
            self._first = next(self._decoded, None)
            if self._first is None:
                raise VideoError(f"{path}: not one frame can be decoded: the file is damaged or cut off")
            self._stored_size = self._first.width, self._first.height
            self._matrix = _display_matrix(self._first)
            self.info = self._describe(*self._image(self._first).shape[1::-1])
        except BaseException:
            self._container.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _describe(self, width: int, height: int) -> SourceInfo:
        stream = self._stream
        aspect = stream.sample_aspect_ratio or Fraction(1)
        fps = stream.average_rate or stream.guessed_rate or FALLBACK_FPS
        promised_s = _promised_end_s(self._container, stream)
        estimate = None if promised_s is None else round((promised_s - _start_s(stream)) * fps)
        return SourceInfo(
            path=self._path,
            kind="video",
            width=width,
            height=height,
            fps=fps,
            frame_count=stream.frames or estimate or None,
            time_base=stream.time_base or 1 / FALLBACK_FPS,
            pixel_aspect=aspect if (width, height) == self._stored_size else 1 / aspect,
        )

    def _frames(self) -> Iterator[Frame]:
        time_base = self.info.time_base
        step = max(1, round(1 / (self.info.fps * time_base)))
        first, self._first = self._first, None
        pts: int | None = None
        count, end = 0, 0
        for index, frame in enumerate(itertools.chain([first] if first else [], self._decoded)):
            pts = self._stamp(frame, pts, step)
            count, end = index + 1, pts + (frame.duration or step)
            self._bad_frames += frame.is_corrupt
            self._rescaled += (frame.width, frame.height) != self._stored_size
            yield Frame(self._image(frame), index, float(pts * time_base), f"{index:06d}")
        self._tell(count, float(end * time_base))

    def _decode(self) -> Iterator[VideoFrame]:
        """Decode packet by packet, so that a damaged one does not lose the others."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except FFmpegError as error:
                self.warnings.append(f"{self._path}: reading stopped early: {error.strerror}")
                packet = None  # Drains the decoder: the frames that it still holds are good.
            self._packets += packet is not None and packet.size > 0
            try:
                yield from self._stream.decode(packet)
            except FFmpegError:
                self._bad_packets += 1
            if packet is None:
                return

    def _stamp(self, frame: VideoFrame, last: int | None, step: int) -> int:
        """The frame's time stamp in ticks, made to increase where the file's are missing or go back."""
        pts = None if frame.pts is None else frame.pts + self._offset
        if pts is not None and (last is None or pts > last):
            return pts
        self._restamped += 1
        if last is None:
            return 0
        if pts is None:
            return last + step
        if (last - pts) * self.info.time_base < JOIN_S:
            return last + 1  # Out of order after damage: the frames that follow are on time again.
        self._offset += last + step - pts
        return last + step

    def _image(self, frame: VideoFrame) -> NDArray[np.uint8]:
        # A stream may change its size on the way: players keep to the first one, and so does this.
        width, height = self._stored_size
        # One thread, as swscale would start as many as there are cores, all needed by the network.
        rgb = frame.to_ndarray(format="rgb24", width=width, height=height, threads=1)
        return upright(np.asarray(rgb, np.uint8), self._matrix)

    def _tell(self, count: int, end_s: float) -> None:
        """Add the warnings that are only known at the end, after `count` frames that last until `end_s`."""
        promised_s = _promised_end_s(self._container, self._stream)
        frames = self._stream.frames
        # By time and, where the header counts, by packets too: trimmed files rightly hold fewer than counted.
        missing = promised_s is not None and end_s < promised_s - 0.75 / float(self.info.fps)
        if missing and (self._packets - self._bad_packets < frames or not frames):
            of_frames = f" of {self.info.frame_count}" if self.info.frame_count else ""
            self._warn(
                f"the file is cut off or damaged: it ends after {count}{of_frames} frames,"
                f" at {end_s:.2f} s of {promised_s:.2f} s; the frames that it has were used"
            )
        if self._bad_packets or self._bad_frames:
            self._warn(
                f"damaged data: {self._bad_packets} packets could not be decoded and"
                f" {self._bad_frames} frames were decoded in part"
            )
        if self._restamped:
            self._warn(f"{self._restamped} frames had no time stamp or one that goes back; they got one")
        if self._rescaled:
            self._warn(f"{self._rescaled} frames had another size than the first; they were scaled to it")

    def _warn(self, text: str) -> None:
        self.warnings.append(f"{self._path}: {text}")


def upright(image: NDArray[np.uint8], matrix: NDArray[np.int32] | None) -> NDArray[np.uint8]:
    """Turn and mirror an image as a display matrix says, to the nearest quarter turn.

    Args:
        image: (H, W, 3) as stored.
        matrix: 9 values `a b u c d v x y w`, by which a pixel (x, y) is shown at (ax + cy, bx + dy) (the
            layout of FFmpeg's AV_PKT_DATA_DISPLAYMATRIX); None for no change.

    Returns:
        (H, W, 3) or (W, H, 3), contiguous.
    """
    if matrix is not None:
        a, b, _, c, d = (int(value) for value in matrix[:5])
        swapped = abs(b) > abs(a)
        x_sign, y_sign = (c, b) if swapped else (a, d)
        image = image.swapaxes(0, 1) if swapped else image
        image = image[:: -1 if y_sign < 0 else 1, :: -1 if x_sign < 0 else 1]
    return np.ascontiguousarray(image)


def _open(path: Path) -> InputContainer:
    try:
        # The prefix keeps FFmpeg from reading a colon in the name as a protocol.
        container = av.open(f"file:{path}")
    except FFmpegError as error:
        raise VideoError(
            f"{path}: not a video that FFmpeg can read ({error.strerror}); expected a video file, an image or"
            " a folder of images. An mp4 whose recording was interrupted has no index: repair it first"
        ) from error
    if container.format.name in NOT_VIDEO_FORMATS:
        container.close()
        raise VideoError(f"{path}: a text file; expected a video file, an image or a folder of images")
    return container


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    if not streams:
        raise VideoError(f"{path}: the file has no video stream (sound only?); give a file with video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{path}: FFmpeg has no decoder for the video stream; convert the file to H.264")
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = codec_threads()
    return stream


def _display_matrix(frame: VideoFrame) -> NDArray[np.int32] | None:
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32)


def _start_s(stream: VideoStream) -> float:
    return float((stream.start_time or 0) * (stream.time_base or 0))


def _promised_end_s(container: InputContainer, stream: VideoStream) -> float | None:
    """When the stream ends by the file's header, in seconds; None if the header does not say."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # FFmpeg corrects an AVI's duration by the file's size, but leaves the header's count as it is.
        return _start_s(stream) + float(stream.frames / stream.average_rate)
    if stream.duration and stream.time_base:
        return _start_s(stream) + float(stream.duration * stream.time_base)
    if "DURATION" in stream.metadata:  # Matroska and WebM: hours:minutes:seconds
        try:
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        except ValueError:
            return None
    if container.duration and len(container.streams) == 1:
        return ((container.start_time or 0) + container.duration) / av.time_base
    return None
