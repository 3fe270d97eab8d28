"""Where frames go: an H.264 video, a folder of label maps, an image file.

Every file is written under a hidden name beside the final one and renamed when it is whole: whatever goes
wrong, no half file stands under the final name.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from lmanet.errors import InputError, VideoError
from lmanet.video.images import IMAGE_SUFFIXES
from lmanet.video.videofile import codec_threads

# Containers that hold H.264 with any time stamps (AVI does not), with FFmpeg's name of each.
VIDEO_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
CRF = 18  # x264's quality scale: 18 is visually near lossless
PRESET = "superfast"  # a third less time than veryfast, a quarter larger files: the network needs the cores
AVCOL_SPC_BT709 = 1


class VideoSink:
    """An H.264 video (yuv420p, BT.709, in mp4 ready for streaming) that plays anywhere.

    A context manager: the file appears under its final name when the block ends without an exception.
    H.264 in yuv420p needs even sizes: an odd width or height is made even by repeating the last column or
    row. Time stamps are kept to the tick of `time_base`; Matroska itself rounds to milliseconds.

    Args:
        path: the final name, ending in one of `VIDEO_FORMATS`; its folder is made if need be.
        width: of the images to be written, in pixels.
        height: of the images to be written, in pixels.
        fps: average frames per second, for the header.
        time_base: seconds per tick of the time stamps; 1 / fps if None.
        pixel_aspect: width of a pixel over its height.

    Raises:
        VideoError: if the suffix is not known, the file cannot be written, or H.264 cannot be encoded.
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
        self._size = width, height
        rate = Fraction(fps).limit_denominator(1001)
        self._time_base = time_base or 1 / rate
        self._part = _part_path(self.path)
        self._container: OutputContainer | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = _create(self._part, VIDEO_FORMATS[self.path.suffix.lower()])
            self._stream = self._add_stream(self._container, rate, pixel_aspect)
            self._container.start_encoding()
        except (FFmpegError, OSError) as error:
            self.discard()
            raise _unwritable(self.path, error) from error

    def _add_stream(self, container: OutputContainer, rate: Fraction, aspect: Fraction) -> VideoStream:
        try:
            stream = container.add_stream("libx264", rate=rate, options={"crf": str(CRF), "preset": PRESET})
        except ValueError as error:  # PyAV's UnknownCodecError
            raise VideoError(
                "PyAV's FFmpeg has no H.264 encoder (libx264): install PyAV's own wheel, which has it"
                " (pip install --force-reinstall --only-binary av av)"
            ) from error
        assert isinstance(stream, VideoStream)
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
            InputError: if the image is not of the video's size and type.
            VideoError: if it cannot be written; nothing is left then.
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
        self._mux(frame)

    def _mux(self, frame: VideoFrame | None) -> None:
        if self._container is None:
            raise VideoError(f"{self.path}: the video is closed; write before leaving the with block")
        try:
            self._container.mux(self._stream.encode(frame))
        except (FFmpegError, OSError) as error:
            self.discard()
            raise _unwritable(self.path, error) from error

    def close(self) -> None:
        """Finish the file and give it its final name.

        Raises:
            VideoError: if it cannot be written; nothing is left then.
        """
        if self._container is None:
            return
        self._mux(None)
        try:
            self._container.close()
            self._part.replace(self.path)
        except (FFmpegError, OSError) as error:
            raise _unwritable(self.path, error) from error
        finally:
            self._container = None
            _remove(self._part)

    def discard(self) -> None:
        """Drop what was written; safe to call at any time, a finished file stays."""
        container, self._container = self._container, None
        if container is not None:
            # Closing writes the end of the file, which fails again on a full disk: it goes anyway.
            with contextlib.suppress(FFmpegError, OSError):
                container.close()
            _remove(self._part)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


class LabelSink:
    """A folder of label maps: palette PNGs whose pixel values are class ids.

    Args:
        folder: made if need be; files of the same names are replaced.
        palette: (256, 3) uint8, the RGB colour in which viewers show each class id.

    Raises:
        VideoError: if the folder cannot be made.
        InputError: if the palette is of another shape or type.
    """

    def __init__(self, folder: str | Path, palette: NDArray[np.uint8]) -> None:
        self.folder = Path(folder)
        if palette.shape != (256, 3) or palette.dtype != np.uint8:
            raise InputError(f"got a palette {palette.shape} {palette.dtype}: expected (256, 3) uint8")
        self._palette = palette.tobytes()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def write(self, label: NDArray[np.uint8], name: str) -> None:
        """Write one label map, (H, W) uint8 class ids, as `name`.png.

        Raises:
            InputError: if the label is of another shape or type.
            VideoError: if the file cannot be written.
        """
        if label.ndim != 2 or label.dtype != np.uint8:
            raise InputError(f"got a label map {label.shape} {label.dtype}: expected (H, W) uint8 class ids")
        image = Image.fromarray(label)
        image.putpalette(self._palette)
        encoded = io.BytesIO()
        image.save(encoded, format="png", compress_level=3)
        _write_whole(self.folder / f"{name}.png", encoded.getbuffer())


class ImageSink:
    """A single image file, its type by the suffix (one of `IMAGE_SUFFIXES`).

    Args:
        path: the file; its folder is made if need be.

    Raises:
        VideoError: if the suffix is not known or the folder cannot be made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in IMAGE_SUFFIXES:
            raise VideoError(
                f"{path}: not an image type that can be written; expected one of {', '.join(IMAGE_SUFFIXES)}"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def write(self, image: NDArray[np.uint8]) -> None:
        """Write (H, W, 3) uint8 RGB.

        Raises:
            VideoError: if the file cannot be written.
        """
        _, encoded = cv2.imencode(self.path.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        _write_whole(self.path, encoded.data)


def _create(path: Path, container_format: str) -> OutputContainer:
    options = {"movflags": "+faststart"} if container_format in ("mp4", "mov") else {}
    # The prefix keeps FFmpeg from reading a colon in the name as a protocol.
    return av.open(f"file:{path}", "w", format=container_format, options=options)


def _part_path(path: Path) -> Path:
    return path.with_name(f".{path.stem}.part-{os.getpid()}{path.suffix}")


def _write_whole(path: Path, data: memoryview) -> None:
    part = _part_path(path)
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        _remove(part)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _unwritable(path: Path, error: OSError | FFmpegError) -> VideoError:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            advice = "free some space or choose another disk"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            advice = "choose a folder that you may write to"
        case _:
            advice = "check that the folder exists, is a folder and can be written to"
    return VideoError(f"{path}: cannot be written ({error.strerror}): {advice}. No half file is left")
