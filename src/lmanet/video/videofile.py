"""A video file as a source, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lmanet.errors import VideoError
from lmanet.video.clock import CODING_ORDER_FORMATS, Clock, goes_back, stamp_of
from lmanet.video.colour import Colours
from lmanet.video.ending import lacks_its_end
from lmanet.video.frame import Frame, Source, SourceInfo
from lmanet.video.header import FALLBACK_FPS, frame_rate, promised_end_s, start_s
from lmanet.video.orientation import display_matrix, upright
from lmanet.words import counted

# FFmpeg takes any text file named .txt for terminal art and would play it.
NOT_VIDEO_FORMATS = ("tty",)
LOOK_AHEAD = 8  # frames, in which an order of time that is not that of showing is seen
LATEST_START_S = 10  # a start that is kept; a later one is a clock's that never began at 0
HOLE_BYTES = 512  # between packets of Matroska are 24 at most


def codec_threads() -> int:
    """Threads for a decoder or an encoder: a quarter of the cores, so that the network has the rest."""
    return max(1, min(8, (os.cpu_count() or 1) // 4))


class VideoFileSource(Source):
    """The frames of a video file's best video stream, with the time stamps that they have in the file.

    Where all players agree on other ones, they are those: in the order in which frames are shown (AVI has stamps of
    coding alone), from 0 on where the first is below 0, and counted from the start of a clock that starts late.

    Nothing is resampled: with a variable frame rate the time stamps are as uneven as they are. A file that
    ends early or is damaged gives the frames that it has; `warnings` then says so. Colours become BT.709, HDR is
    tone-mapped.

    Args:
        path: a file that FFmpeg reads.
        strict: a file that ends early or is damaged is an error.

    Raises:
        VideoError: if the file is not video, has no video stream, or not one frame can be decoded; of a strict source
            also, at once or while iterating, if the file is damaged.
    """

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self._path = path
        self._container = _open(path)
        try:
            self._stream = _video_stream(self._container, path)
            self._packets = self._bad_packets = self._bad_frames = self._rescaled = self._holes = 0
            self._waiting: list[int] = []  # stamps of packets whose frames have not come, a heap
            self._decoded = self._decode()
            # The first frames give the size and the order of time, and tell a wrong input before any work.
            reordered = self._stream.codec_context.has_b_frames
            self._first = list(itertools.islice(self._decoded, LOOK_AHEAD if reordered else 1))
            if not self._first:
                raise VideoError(f"{path}: not one frame can be decoded: the file is damaged or cut off")
            first = self._first[0]
            self._stored_size = first.width, first.height
            self._matrix = display_matrix(first)
            self._colours = Colours(first)
            self.info = self._describe(*self._image(first).shape[1::-1])
        except BaseException:
            self._container.close()
            raise
        for told in self._colours.told:
            self._warn(told)
        if (count := len(_streams(self._container))) > 1:
            self._warn(
                f"the file has {count} video streams; that of {self.info.width}×{self.info.height}, which players"
                " show, was labelled"
            )

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _describe(self, width: int, height: int) -> SourceInfo:
        stream = self._stream
        aspect = stream.sample_aspect_ratio or Fraction(1)
        fps = frame_rate(stream)
        promised_s = promised_end_s(self._container, stream)
        estimate = None if promised_s is None else round((promised_s - start_s(stream)) * fps)
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
        first, self._first = self._first, []
        coding_order = self._container.format.name in CODING_ORDER_FORMATS or goes_back(first, time_base)
        clock = Clock(step, time_base, coding_order=coding_order, offset=self._late_start())
        count, start, end = 0, 0, 0
        for index, frame in enumerate(itertools.chain(first, self._decoded)):
            tick = clock.tick(frame, self._waiting)
            start = tick if index == 0 else start
            count, end = index + 1, tick + (frame.duration or step)
            if frame.is_corrupt:
                self._bad_frames += 1
                self._refuse_if_strict(f"frame {index} is damaged")
            self._rescaled += (frame.width, frame.height) != self._stored_size
            if self.wanted(index):
                yield Frame(self._image(frame), index, float(tick * time_base), f"{index:06d}")
        self._tell(clock, count, float(start * time_base), float(end * time_base))

    def _late_start(self) -> int:
        """Ticks to be added to all stamps so that an output does not begin with hours of nothing."""
        starts_s = (self._container.start_time or 0) / av.time_base
        if starts_s <= LATEST_START_S:
            return 0
        self._warn(
            f"the file's clock starts at {starts_s:.2f} s, as recordings of broadcasts do; times count from there"
        )
        return -round(starts_s / self.info.time_base)

    def _decode(self) -> Iterator[VideoFrame]:
        """Decode packet by packet, so that a damaged one does not lose the others."""
        # Of Matroska, all streams are read: where no packet is, data were lost.
        every = self._container.format.name.startswith("matroska")
        packets = self._container.demux(*([] if every else [self._stream]))
        begin, end = None, 0  # of the last packet in the file
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except FFmpegError as error:
                self._damaged(f"{self._path}: reading stopped early: {error.strerror}")
                packet = None  # Drains the decoder: the frames that it still holds are good.
            if every and packet is not None and packet.size and packet.pos is not None:
                if packet.pos == begin:  # packets of sound lie several in a block, and all have its place
                    end += packet.size
                else:
                    self._holes += begin is not None and packet.pos > end + HOLE_BYTES
                    begin, end = packet.pos, packet.pos + packet.size
            # Of an MPEG transport stream: its packets are counted, and some are missing before this one.
            self._holes += packet is not None and packet.is_corrupt
            if packet is None or packet.stream is self._stream:
                yield from self._decode_one(packet)
            if packet is None:
                return

    def _decode_one(self, packet: Packet | None) -> Iterator[VideoFrame]:
        stamp = None
        if packet is not None and packet.size > 0:
            self._packets += 1
            stamp = stamp_of(packet, self._container.format.name)
            if stamp is not None:
                heapq.heappush(self._waiting, stamp)
        try:
            yield from self._stream.decode(packet)  # type: ignore[arg-type] (None drains the decoder)
        except FFmpegError as error:
            self._bad_packets += 1
            if stamp in self._waiting:
                self._waiting.remove(stamp)
                heapq.heapify(self._waiting)
            self._refuse_if_strict(f"a packet cannot be decoded ({error.strerror})")

    def _image(self, frame: VideoFrame) -> NDArray[np.uint8]:
        # A stream may change its size on the way: players keep to the first one, and so does this.
        return upright(self._colours.rgb(frame, *self._stored_size), self._matrix)

    def _tell(self, clock: Clock, count: int, start_s: float, end_s: float) -> None:
        """Add the warnings that are only known at the end, after `count` frames from `start_s` to `end_s`."""
        offset_s = float(clock.offset * self.info.time_base)
        promised = promised_end_s(self._container, self._stream)
        promised_s = None if promised is None else promised + offset_s
        frames = self._stream.frames
        usual_s = clock.usual * float(self.info.time_base)
        # By time and, where the header counts, by packets too: trimmed files rightly hold fewer than counted.
        short = promised_s is not None and end_s < promised_s - 0.75 * usual_s
        if promised_s is not None and short and (self._packets - self._bad_packets < frames or not frames):
            of_frames = f" of {self.info.frame_count}" if self.info.frame_count else ""
            self._tell_end(f"{count}{of_frames} frames, at {end_s:.2f} s of {promised_s:.2f} s")
        elif lacks_its_end(self._path, self._container.format.name):
            self._tell_end(f"{count} frames, at {end_s:.2f} s")
        elif self._bad_packets or self._bad_frames or (self._holes and clock.lacking):
            expected = [frames] if frames else []
            expected += (
                [round((promised_s - start_s) / usual_s)] if promised_s is not None and usual_s else []
            )
            missing = max(min(expected) - count, 0) if expected else clock.lacking
            self._tell_damage(missing, count)
        if clock.restamped and not self._bad_packets and not self._bad_frames:
            had = f"{counted(clock.restamped, 'frame')} had"
            self._warn(f"{had} no time stamp or one that goes back, and got another")
        if self._rescaled:
            self._warn(f"{self._rescaled} frames had another size than the first; they were scaled to it")

    def _tell_end(self, after: str) -> None:
        self._damaged(
            f"{self._path}: the file is cut off or damaged: it ends after {after}; the frames that it has were used"
        )

    def _tell_damage(self, missing: int, count: int) -> None:
        lost = f"{missing} of {missing + count} frames are missing" if missing else ""
        bad = self._bad_frames
        partly = f"{bad} frame{'s were' if bad > 1 else ' was'} decoded in part" if bad else ""
        undecoded = f"{self._bad_packets} packets could not be decoded" if not (lost or partly) else ""
        self._damaged(f"{self._path}: damaged data: {' and '.join(filter(None, [lost, partly, undecoded]))}")

    def _refuse_if_strict(self, what: str) -> None:
        if self._strict:
            self._damaged(f"{self._path}: damaged data: {what}")

    def _warn(self, text: str) -> None:
        self.warnings.append(f"{self._path}: {text}")


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


def _streams(container: InputContainer) -> list[VideoStream]:
    """Those of video, without covers."""
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = _streams(container)
    best = container.streams.best("video")
    if not streams:
        raise VideoError(f"{path}: the file has no video stream (sound only?); give a file with video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{path}: FFmpeg has no decoder for the video stream; convert the file to H.264")
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = codec_threads()
    return stream
