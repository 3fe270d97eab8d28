"""An H.264 video as an output."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lmanet.atomic import Part, remove_parts, unwritable
from lmanet.errors import InputError, OutputError, VideoError
from lmanet.video.videofile import codec_threads

# Containers that hold H.264 with any time stamps (AVI does not), with FFmpeg's name of each.
VIDEO_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
ENCODER = "libx264"
CRF = 18  # x264's quality scale: 18 is visually near lossless
PRESET = "superfast"  # a third less time than veryfast, a quarter larger files: the network needs the cores
AVCOL_SPC_BT709 = 1


class VideoSink:
    """An H.264 video (yuv420p, BT.709, in mp4 ready for streaming) that plays anywhere.

    A context manager: the file appears under its final name when the block ends without an exception and there is a
    frame in it. Until then what is there under that name stays.
    H.264 in yuv420p needs even sizes: an odd width or height is made even by repeating the last column or
    row. Time stamps are kept to the tick of `time_base`; Matroska itself rounds to milliseconds.

    Args:
        path: the final name, ending in one of `VIDEO_FORMATS`; its folder is made if need be.
        width: of the images to be written, in pixels.
        height: of the images to be written, in pixels.
        fps: average frames per second, for the header.
        time_base: seconds per tick of the time stamps; 1 / fps if None.
        pixel_aspect: width of a pixel over its height.

    Attributes:
        path: the final name.
        frames: how many were written; none if they are lost.

    Raises:
        VideoError: if the suffix is not known or H.264 cannot be encoded.
        OutputError: if the file cannot be written.
        InputError: if a size is not positive.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        fps: float | Fraction,
        time_base: Fraction | None = None,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in VIDEO_FORMATS:
            raise VideoError(
                f"{path}: cannot write H.264 into {self.path.suffix or 'a name without suffix'};"
                f" expected one of {', '.join(VIDEO_FORMATS)}"
            )
        if width < 1 or height < 1:
            raise InputError(f"a video of {width}×{height} pixels: expected at least 1×1")
        if ENCODER not in av.codecs_available:
            raise VideoError(
                f"PyAV's FFmpeg has no H.264 encoder ({ENCODER}): install PyAV's own wheel, which has it"
                " (pip install --force-reinstall --only-binary av av)"
            )
        self._size = width, height
        rate = Fraction(fps).limit_denominator(1001)
        self._time_base = time_base or 1 / rate
        self._last_pts: int | None = None
        self.frames = 0
        self._part: Part | None = None
        self._container: OutputContainer | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_parts(self.path)
            self._part = Part(self.path)
            self._container = _create(
                self._part.path, VIDEO_FORMATS[self.path.suffix.lower()], self._time_base
            )
            self._stream = self._add_stream(self._container, rate, pixel_aspect)
            self._container.start_encoding()
        except (FFmpegError, OSError) as error:
            self.discard()
            raise unwritable(self.path, error) from error

    def _add_stream(self, container: OutputContainer, rate: Fraction, aspect: Fraction) -> VideoStream:
        stream = container.add_stream(ENCODER, rate=rate, options={"crf": str(CRF), "preset": PRESET})
        stream.width, stream.height = (length + length % 2 for length in self._size)
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.time_base = self._time_base
        codec.thread_count = codec_threads()
        codec.sample_aspect_ratio = aspect
        # Said in the file, as players guess differently: by size, or always BT.601.
        codec.colorspace = AVCOL_SPC_BT709
        codec.color_range = ColorRange.MPEG
        codec.color_primaries = ColorPrimaries.BT709
        codec.color_trc = ColorTrc.BT709
        return stream

    def write(self, image: NDArray[np.uint8], time_s: float) -> None:
        """Append a frame.

        Args:
            image: (height, width, 3) uint8 RGB.
            time_s: presentation time in seconds, later than the frame before.

        Raises:
            InputError: if the image is not of the video's size and type, or its time not later by a tick.
            OutputError: if it cannot be written; nothing is left then.
            VideoError: if the video is closed.
        """
        width, height = self._size
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise InputError(
                f"got an image {image.shape} {image.dtype}: expected ({height}, {width}, 3) uint8, as the"
                " video was opened with"
            )
        if width % 2 or height % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = rgb.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
        )
        frame.time_base = self._time_base
        frame.pts = round(time_s / self._time_base)
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise InputError(
                f"a frame at {time_s} s after one at {float(self._last_pts * self._time_base)} s: time stamps"
                f" must grow by a tick ({self._time_base} s) at least"
            )
        self._last_pts = frame.pts
        self._mux(frame)
        self.frames += 1

    def _mux(self, frame: VideoFrame | None) -> None:
        if self._container is None:
            raise VideoError(f"{self.path}: the video is closed; write before leaving the with block")
        try:
            self._container.mux(self._stream.encode(frame))
        except FFmpegError as error:
            self.discard()
            raise unwritable(self.path, error) from error

    def close(self) -> None:
        """Finish the file and give it its final name; without a frame, there is none.

        Raises:
            OutputError: if it cannot be written; nothing is left then.
        """
        if self._container is None or self._part is None:
            return
        if not self.frames:
            self.discard()
            return
        finished = False
        try:
            self._mux(None)
            self._container.close()
            self._part.finish()
            self._container, finished = None, True
        except OutputError:
            raise
        except (FFmpegError, OSError) as error:
            raise unwritable(self.path, error) from error
        finally:
            if finished:
                self._part.discard()
            else:
                self.discard()

    def discard(self) -> None:
        """Drop what was written; safe to call at any time, a finished file stays."""
        container, self._container = self._container, None
        if container is not None:
            self.frames = 0
            # Closing writes the end of the file, which fails again on a full disk: it goes anyway.
            with contextlib.suppress(FFmpegError, OSError):
                container.close()
        if self._part is not None:
            self._part.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


def _create(path: Path, container_format: str, time_base: Fraction) -> OutputContainer:
    options: dict[str, str] = {}
    if container_format in ("mp4", "mov"):
        # The movie's clock, in which a late start is written, ticks in milliseconds if not told otherwise.
        options = {"movflags": "+faststart", "movie_timescale": str(time_base.denominator)}
    # The prefix keeps FFmpeg from reading a colon in the name as a protocol.
    return av.open(f"file:{path}", "w", format=container_format, options=options)
