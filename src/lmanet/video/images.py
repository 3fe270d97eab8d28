"""Image files as a source: a folder of them in natural order, or a single one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmanet.errors import VideoError
from lmanet.imagefile import ImageFileError, read_image, series_in_jpeg
from lmanet.video.frame import Frame, Source, SourceInfo
from lmanet.video.imagelist import bad_images, check_sizes, missing_numbers, named
from lmanet.words import counted


class ImageSource(Source):
    """Image files, one after another, `1 / fps` apart.

    An image that cannot be read is skipped, and told of in `warnings`; the others keep their time stamps.

    Args:
        path: what the user named, a folder or a file.
        images: the files, at least one.
        kind: "images" or "image".
        fps: frames per second that the images stand for.
        strict: an image that cannot be read is an error.

    Raises:
        VideoError: if no image can be read, or their sizes, which the headers tell, differ; of a strict source
            also, at once or while iterating, if one cannot be read.
    """

    def __init__(
        self,
        path: Path,
        images: Sequence[Path],
        *,
        kind: Literal["images", "image"],
        fps: float | Fraction,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        self._path, self._images = path, images
        size, self._bad = check_sizes(path, images)
        if self._bad and strict:
            raise VideoError(f"{self._listed()}: replace or remove them, or do without strict")
        # As for video, the first image is read here: a wrong input is told at once.
        self._size = size or (0, 0)
        self._read_ahead = self._first()
        rate = Fraction(fps).limit_denominator(1001)
        self.info = SourceInfo(
            path=path,
            kind=kind,
            width=self._size[1],
            height=self._size[0],
            fps=rate,
            frame_count=len(images) - len(self._bad),
            time_base=1 / rate,
        )
        self._tell_of_the_list()

    def _first(self) -> tuple[int, NDArray[np.uint8]]:
        """The first image that can be decoded, and its place."""
        for index, path in enumerate(self._images):
            image = self._decode(path)
            if image is not None:
                return index, image
        if len(self._images) == 1:
            raise VideoError(f"{self._path}: the image cannot be read: {self._bad[self._images[0]]}")
        raise VideoError(f"{self._path}: not one image can be read: {self._listed()}; replace or remove them")

    def _tell_of_the_list(self) -> None:
        missing = missing_numbers(self._images)
        if missing:
            self._warn(
                f"{counted(len(missing), 'number')} missing in the sequence: {named(missing)};"
                " the images are taken as following one another"
            )
        if self.info.kind == "image" and (count := series_in_jpeg(self._images[0])) > 1:
            self._warn(f"the file holds {count} pictures; the first, which viewers show, was labelled")

    def name_of(self, index: int) -> str | None:
        """The file's stem; None beyond the last."""
        return self._images[index].stem if index < len(self._images) else None

    def _frames(self) -> Iterator[Frame]:
        start, first = self._read_ahead
        del self._read_ahead
        for index, path in enumerate(self._images[start:], start):
            if not self.wanted(index, path.stem):
                continue
            image = first if index == start else self._decode(path)
            if image is not None:
                yield Frame(image, index, float(index * self.info.time_base), path.stem)
        if self._bad:
            self._warn(bad_images(self._bad, "skipped"))

    def _decode(self, path: Path) -> NDArray[np.uint8] | None:
        """The image; None, and noted, if it cannot be decoded."""
        if path in self._bad:
            return None
        try:
            image = read_image(path)
        except ImageFileError as error:
            if self._strict:
                raise VideoError(str(error)) from error
            self._bad[path] = error.reason
            return None
        if image.shape[:2] != self._size:  # changed since the headers were read
            raise VideoError(
                f"{path}: the image is {image.shape[1]}×{image.shape[0]}, the others are"
                f" {self._size[1]}×{self._size[0]}; resize it, or move it out of the folder"
            )
        return image

    def _listed(self) -> str:
        return f"{self._path}: {bad_images(self._bad, 'cannot be read')}"

    def _warn(self, text: str) -> None:
        self.warnings.append(f"{self._path}: {text}")
