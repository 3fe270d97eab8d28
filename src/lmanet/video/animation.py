"""An animated image or a file of pages as a source: what is one file of many frames without being a video file."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from lmanet.errors import InputError, VideoError
from lmanet.imagefile import ImageFileError, durations, frame_count, open_image, read_frames
from lmanet.video.frame import Frame, Source, SourceInfo

TIME_BASE = Fraction(1, 1000)


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
