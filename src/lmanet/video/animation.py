"""An animated image or a file of pages as a source: what is one file of many frames without being a video file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmanet.errors import InputError, VideoError
from lmanet.imagefile import ImageFileError, frame_count, open_image, pages, refuse_mode, to_rgb
from lmanet.video.frame import Frame, Source, SourceInfo

TIME_BASE = Fraction(1, 1000)
UNSAID_S = Fraction(1, 10)  # how long browsers show a frame of an animation whose duration is 0


def frames_of(path: Path) -> int:
    """How many frames an image file shows; 1 also for what cannot be opened, which is told of where it is read."""
    try:
        with open_image(path) as file:
            return frame_count(file)
    except ImageFileError:
        return 1


class AnimationSource(Source):
    """The frames of an animated WebP or PNG with their own durations, or the pages of a TIFF `1 / fps` apart.

    Args:
        path: the file.
        fps: frames per second that a TIFF's pages stand for; None for an animation, which says it itself.
        pages_fps: that of pages if `fps` is None.
        strict: a damaged frame is an error.

    Raises:
        VideoError: if not one frame can be read, or pages have different sizes; of a strict source also, while
            iterating, if a frame cannot be read.
        InputError: if `fps` is given for an animation.
    """

    def __init__(
        self, path: Path, *, fps: float | Fraction | None, pages_fps: float | Fraction, strict: bool = False
    ) -> None:
        super().__init__(strict=strict)
        self._path = path
        self._pages = read_frames(path)
        try:
            shown = durations(path)
            self._first = next(self._pages)
        except ImageFileError as error:
            raise VideoError(str(error)) from error
        if shown and fps is not None:
            raise InputError(
                f"{path}: {fps} frames per second were asked for, but an animation has its own: give a frame rate"
                " with folders of images and files of pages only"
            )
        count = len(shown) if shown else frames_of(path)
        rate = Fraction(count) / sum(shown) if shown else Fraction(fps or pages_fps).limit_denominator(1001)
        self._shown = shown or [1 / rate] * count
        self.info = SourceInfo(
            path=path,
            kind="video",
            width=self._first.shape[1],
            height=self._first.shape[0],
            fps=rate,
            frame_count=count,
            time_base=TIME_BASE if shown else 1 / rate,
        )

    def _frames(self) -> Iterator[Frame]:
        first = self._first
        del self._first
        time_s, last = Fraction(0), -1
        for index, duration_s in enumerate(self._shown):
            try:
                image = first if index == 0 else next(self._pages)
            except (ImageFileError, StopIteration) as error:
                self._damaged(
                    f"{self._path}: the file is cut off or damaged: it ends after {index} of {len(self._shown)} frames"
                    f" ({error or 'no more data'}); the frames that it has were used"
                )
                return
            last = max(round(time_s / self.info.time_base), last + 1)
            yield Frame(image, index, float(last * self.info.time_base), f"{index:06d}")
            time_s += duration_s


def durations(path: Path) -> list[Fraction] | None:
    """How long each frame of an animation is shown, in seconds; None for a TIFF, whose pages have no times.

    Frames that are damaged or missing count as long as the last good one.

    Raises:
        ImageFileError: if the file cannot be read as an image, or its pages have different sizes.
    """
    with open_image(path) as file:
        if file.format != "TIFF":
            count, known = frame_count(file), []
            with suppress(Exception):  # told of where the frames are read
                known += (_duration(file) for _ in _animated(file))
            return (known + [known[-1] if known else UNSAID_S] * count)[:count]
        sizes = []
        for page in pages(file):
            file.seek(page)
            refuse_mode(file, path)
            sizes.append(file.size)
        other = next((number for number, size in enumerate(sizes, 1) if size != sizes[0]), None)
        if other is not None:
            reason = (
                f"page {other} is {sizes[other - 1][0]}×{sizes[other - 1][1]}, page 1 is"
                f" {sizes[0][0]}×{sizes[0][1]}"
            )
            raise ImageFileError(
                f"{path}: {reason}: pages are frames of a video if all have one size; save them as single images",
                reason,
            )
        return None


def read_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The frames of an animation, composed, or the pages of a TIFF, as `read_image` makes them.

    Yields:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageFileError: if the file is damaged; the frames before have been yielded.
    """
    with open_image(path) as file:
        if file.format == "TIFF":
            for page in pages(file):
                file.seek(page)
                yield to_rgb(file, path)
            return
        for _ in _animated(file):
            yield to_rgb(file, path)


def _animated(file: Image.Image) -> Iterator[None]:
    """Stands at each frame of an animation in turn."""
    # A PNG may begin with a picture for viewers without animation, which is not part of it.
    first = int(bool(getattr(file, "default_image", False)))
    for index in range(first, int(getattr(file, "n_frames", 1))):
        file.seek(index)
        file.load()
        yield


def _duration(file: Image.Image) -> Fraction:
    milliseconds = Fraction(file.info.get("duration") or 0).limit_denominator(1000)
    return milliseconds / 1000 if milliseconds > 0 else UNSAID_S
