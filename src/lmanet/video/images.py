"""Image files as a source: a folder of them in natural order, or a single one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from lmanet.data.protocols import natural_key
from lmanet.errors import VideoError
from lmanet.video.frame import Frame, Source, SourceInfo

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Grey images are repeated over the channels, 16-bit ones scaled to 8 bits, transparency is dropped.

    Raises:
        VideoError: if the file cannot be read or decoded.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise VideoError(f"{path}: the image cannot be read: {error.strerror}") from error
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:  # Raised for empty and oversized images; None stands for all others that are damaged.
        bgr = None
    if bgr is None:
        raise VideoError(f"{path}: not an image that can be decoded; replace or remove the file")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, not of its subfolders, in natural order: `f2.png` before `f10.png`.

    Raises:
        VideoError: if there is none, if two differ only in their suffix (their outputs would collide), or if the
            folder cannot be read.
    """
    try:
        content = list(folder.iterdir())
    except OSError as error:
        raise VideoError(f"{folder}: the folder cannot be read: {error.strerror}") from error
    found = [path for path in content if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    images = sorted(
        (path for path in found if not path.name.startswith(".")), key=lambda path: natural_key(path.name)
    )
    if not images:
        allowed = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise VideoError(f"{folder}: the folder has no images (expected files of type {allowed})")
    by_stem: dict[str, Path] = {}
    for path in images:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise VideoError(
                f"{folder}: {other.name} and {path.name} share the name {path.stem!r}, which the outputs are"
                " named by; rename or remove one"
            )
    return images


class ImageSource(Source):
    """Image files, one after another, `1 / fps` apart.

    Args:
        path: what the user named, a folder or a file.
        images: the files, at least one.
        kind: "images" or "image".
        fps: frames per second that the images stand for.

    Raises:
        VideoError: if the first image cannot be read; while iterating, if another cannot be, or if one's
            size differs from the first one's.
    """

    def __init__(
        self, path: Path, images: Sequence[Path], *, kind: Literal["images", "image"], fps: float | Fraction
    ) -> None:
        super().__init__()
        self._images = images
        # As for video, the first image is read here: a wrong input is told at once, and gives the size.
        self._first: NDArray[np.uint8] | None = read_image(images[0])
        rate = Fraction(fps).limit_denominator(1001)
        self.info = SourceInfo(
            path=path,
            kind=kind,
            width=self._first.shape[1],
            height=self._first.shape[0],
            fps=rate,
            frame_count=len(images),
            time_base=1 / rate,
        )

    def name_of(self, index: int) -> str | None:
        """The file's stem; None beyond the last."""
        return self._images[index].stem if index < len(self._images) else None

    def _frames(self) -> Iterator[Frame]:
        for index, path in enumerate(self._images):
            if not self.wanted(index, path.stem):
                continue
            image, self._first = (read_image(path) if self._first is None else self._first), None
            height, width = image.shape[:2]
            if (width, height) != (self.info.width, self.info.height):
                raise VideoError(
                    f"{path}: the image is {width}×{height}, but {self._images[0].name} is"
                    f" {self.info.width}×{self.info.height}; resize it, or move it out of the folder"
                )
            yield Frame(image, index, float(index * self.info.time_base), path.stem)
