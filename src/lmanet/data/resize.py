"""A video data set at another size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lmanet.classes import Classes
from lmanet.data.protocols import DerivedSequence, VideoData
from lmanet.errors import InputError


@dataclass(frozen=True)
class ResizedSequence(DerivedSequence):
    """A sequence whose frames and labels are resized as they are read; keeps the `Sequence` protocol."""

    size: tuple[int, int]

    @property
    def stamp(self) -> str | None:
        """The source's, if it has one."""
        return getattr(self.source, "stamp", None)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Frame `index`, averaged over areas where it gets smaller, bilinear where it gets larger."""
        image = self.source.image(index)
        smaller = self.size[0] <= image.shape[0] and self.size[1] <= image.shape[1]
        return self._resize(image, cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)

    def label(self, index: int) -> NDArray[np.uint8] | None:
        """Class ids of frame `index`, each that of the nearest pixel."""
        label = self.source.label(index)
        return None if label is None else self._resize(label, cv2.INTER_NEAREST_EXACT)

    def _resize(self, array: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
        if array.shape[:2] == self.size:
            return array
        return np.asarray(cv2.resize(array, self.size[::-1], interpolation=interpolation), np.uint8)


@dataclass(frozen=True)
class ResizedData:
    """A data set of resized sequences; keeps the `VideoData` protocol."""

    name: str
    classes: Classes
    sequences: tuple[ResizedSequence, ...]
    doubt: str = ""
    """The source's, if it has one."""


def resize_data(data: VideoData, size: tuple[int, int]) -> ResizedData:
    """All frames and labels of `data` at one size: what is trained on, and what is scored at.

    Args:
        data: the data set.
        size: (H, W) in pixels.

    Raises:
        InputError: a side below 1 pixel.
    """
    if min(size) < 1:
        raise InputError(f"size {size}: expected (H, W) of at least 1 pixel each")
    return ResizedData(
        f"{data.name},size={size[0]}x{size[1]}",
        data.classes,
        tuple(ResizedSequence(sequence, size) for sequence in data.sequences),
        getattr(data, "doubt", ""),
    )
