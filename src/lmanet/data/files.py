"""Data sets made of image files: reading frames and labels, and sequences of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmanet import imagefile
from lmanet.classes import Classes
from lmanet.data.protocols import Sequence
from lmanet.errors import DataError


@dataclass(frozen=True)
class FileSequence:
    """A gap-free run of frames that are image files; keeps the `Sequence` protocol.

    Attributes:
        name: unique in the data set.
        frame_names: in time order.
        spacing_s: seconds between neighbouring frames.
        image_paths: one image file per frame.
        label_paths: one label file per frame; None where the frame has no label.
        read_label: label file to class ids (H, W) uint8, void 255.
    """

    name: str
    frame_names: tuple[str, ...]
    spacing_s: float
    image_paths: tuple[Path, ...]
    label_paths: tuple[Path | None, ...]
    read_label: Callable[[Path], NDArray[np.uint8]]

    @property
    def labelled(self) -> tuple[bool, ...]:
        """Whether each frame has a label."""
        return tuple(path is not None for path in self.label_paths)

    @property
    def stamp(self) -> str:
        """Changes whenever one of the files does: sizes and times of change, without reading the files."""
        stats = [path.stat() for path in (*self.image_paths, *self.label_paths) if path is not None]
        return hashlib.sha256(repr([(s.st_size, s.st_mtime_ns) for s in stats]).encode()).hexdigest()

    @cached_property
    def _size(self) -> tuple[int, int]:
        return image_size(self.image_paths[0])

    def image(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` as (H, W, 3) uint8 RGB.

        Raises:
            DataError: the file cannot be read, or the image is not as large as the sequence's first.
        """
        path = self.image_paths[index]
        image = read_image(path)
        _check_size(path, image.shape[:2], self._size, self.image_paths[0])
        return image

    def label(self, index: int) -> NDArray[np.uint8] | None:
        """Class ids of frame `index` as (H, W) uint8, void 255; None where the frame has no label.

        Raises:
            DataError: the file cannot be read, is not as large as its image, or holds a value that is no class id;
                the message names the file and the value.
        """
        path = self.label_paths[index]
        if path is None:
            return None
        label = self.read_label(path)
        _check_size(path, label.shape, image_size(self.image_paths[index]), self.image_paths[index])
        return label


@dataclass(frozen=True)
class FileData:
    """One split of a data set on disk; keeps the `VideoData` protocol.

    Attributes:
        name: such as `camvid/val`.
        classes: of its labels.
        sequences: the gap-free runs of frames, in order of name.
        problems: what is wrong with its files, as far as their names tell: one sentence each, naming the file.
        doubt: what to tell where the labels hold nothing but class 0 and void, which nobody named; nothing, if void
            is named.
    """

    name: str
    classes: Classes
    sequences: tuple[Sequence, ...]
    problems: tuple[str, ...] = ()
    doubt: str = ""

    def complete(self) -> FileData:
        """Itself.

        Raises:
            DataError: there are problems.
        """
        refuse_problems(self.problems)
        return self


def refuse_problems(problems: tuple[str, ...]) -> None:
    """Raise DataError with the first of them, if there are any."""
    if problems:
        more = f" (and {len(problems) - 1} more: lmanet data check lists them)" if problems[1:] else ""
        raise DataError(f"{problems[0]}{more}")


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8 RGB, read as `lmanet.imagefile.read_image` says.

    Raises:
        DataError: it cannot be read, holds several frames, or values that are no colours of 8 or 16 bits.
    """
    with _data_errors():
        return imagefile.read_image(path)


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image as `read_image` gives it, from the file's header alone.

    Raises:
        DataError: it cannot be read.
    """
    with _data_errors():
        return imagefile.image_size(path)


def consecutive(numbers: list[int]) -> list[tuple[int, int]]:
    """(start, stop) of each longest run of numbers that follow one another; the numbers are in rising order."""
    cuts = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    return list(zip([0, *cuts], [*cuts, len(numbers)], strict=True)) if numbers else []


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An image file as Pillow opens it; what goes wrong in the block with the file is a `DataError` that names it."""
    with _data_errors(), imagefile.open_image(path) as file:
        yield file


@contextmanager
def _data_errors() -> Iterator[None]:
    try:
        yield
    except imagefile.ImageFileError as error:
        raise DataError(str(error)) from error


def _check_size(path: Path, size: tuple[int, ...], expected: tuple[int, int], other: Path) -> None:
    if size != expected:
        raise DataError(
            f"{path}: height and width are {size[0]}×{size[1]}, those of {other} {expected[0]}×{expected[1]}: expected "
            f"the same"
        )
