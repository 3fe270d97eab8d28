"""One annotation of COCO's: what may be wrong with its polygons or run lengths, and which pixels they are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lmanet.data.convert.output import far_outside, numbers
from lmanet.errors import DataError


@dataclass(frozen=True)
class Annotation:
    """An object or a region of an image.

    Attributes:
        name: for messages.
        label: its class id.
        segmentation: polygons or run lengths, as they are in the file.
    """

    name: str
    label: int
    segmentation: Any

    @property
    def coordinates(self) -> list[float]:
        """All of its polygons; of run lengths none."""
        polygons = self.segmentation if isinstance(self.segmentation, list) else []
        return [x for polygon in polygons if numbers(polygon) for x in polygon]


def fault_of(annotation: Annotation, size: tuple[int, int], path: Path) -> str:
    """What is wrong with an annotation, or nothing."""
    place, shape = f"{path}, {annotation.name}", annotation.segmentation
    if not shape:
        return (
            f"{place}: no segmentation, as of boxes or key points alone: label images need polygons or masks"
        )
    if isinstance(shape, dict):
        if shape.get("size") != list(size):
            return (
                f"{place}: run lengths of size {shape.get('size')}: expected {list(size)}, as the image has"
            )
        counts = shape.get("counts")
        if isinstance(counts, list):
            whole = all(isinstance(n, int) and n >= 0 for n in counts)
            if not whole or sum(counts) != size[0] * size[1]:
                return f"{place}: run lengths that do not add up to {size[0]}×{size[1]} pixels"
        elif not isinstance(counts, str):
            return f"{place}: run lengths without counts"
        return ""
    if not isinstance(shape, list):
        return f"{place}: a segmentation that is a {type(shape).__name__}: expected polygons or run lengths"
    for polygon in shape:
        if not numbers(polygon) or len(polygon) % 2:
            return f"{place}: a polygon that is no list [x1, y1, x2, y2, …] of numbers"
        if len(polygon) < 6:
            return f"{place}: a polygon of {len(polygon) // 2} points: expected 3 at least"
        if far_outside(list(zip(polygon[::2], polygon[1::2], strict=True)), size):
            return f"{place}: a polygon far outside of the image"
    return ""


def draw(
    annotations: Sequence[Annotation], size: tuple[int, int], path: Path, fill: int
) -> NDArray[np.uint8]:
    """The label of an image: the largest annotation first."""
    shapes = []
    for annotation in annotations:
        filled = _mask(annotation, size, path)
        shapes.append((int(filled.sum()), annotation.label, filled))
    label = np.full(size, fill, np.uint8)
    for _, number, filled in sorted(shapes, key=lambda shape: -shape[0]):
        label[filled > 0] = number
    return label


def _mask(annotation: Annotation, size: tuple[int, int], path: Path) -> NDArray[np.uint8]:
    """The pixels of an annotation, (H, W) of 0 and 1."""
    from pycocotools import mask as run_lengths

    shape: Any = annotation.segmentation
    packed: bool = isinstance(shape, dict) and isinstance(shape["counts"], str)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools' own, about NumPy 2
            encoded: Any = shape if packed else run_lengths.frPyObjects(cast(Any, shape), *size)
            filled = run_lengths.decode(run_lengths.merge(encoded) if isinstance(encoded, list) else encoded)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path}, {annotation.name}: a damaged segmentation ({error})") from error
    # Damaged run lengths leave a part of the mask as it was in memory: what is there is encoded again.
    if packed and run_lengths.encode(filled)["counts"] != cast(Any, shape)["counts"].encode():
        raise DataError(f"{path}, {annotation.name}: damaged run lengths: export them again")
    return filled
