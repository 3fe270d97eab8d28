"""A data set in memory and a network for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.networks import TinyBackbone, seeded
from lmanet.classes import VOID, Classes

CLASSES = Classes(("sky", "road", "car"), ((70, 130, 180), (128, 64, 128), (0, 0, 142)))


@dataclass(frozen=True)
class TinySequence:
    name: str
    images: NDArray[np.uint8]
    labels: tuple[NDArray[np.uint8] | None, ...]
    spacing_s: float = 0.1

    @property
    def frame_names(self) -> tuple[str, ...]:
        return tuple(f"{i:03d}" for i in range(len(self.images)))

    @property
    def labelled(self) -> tuple[bool, ...]:
        return tuple(label is not None for label in self.labels)

    def image(self, index: int) -> NDArray[np.uint8]:
        return self.images[index]

    def label(self, index: int) -> NDArray[np.uint8] | None:
        return self.labels[index]


@dataclass(frozen=True)
class TinyData:
    sequences: tuple[TinySequence, ...]
    name: str = "tiny/train"
    classes: Classes = CLASSES


def tiny_data(
    *, sequences: int = 2, frames: int = 3, size: tuple[int, int] = (48, 64), seed: int = 0
) -> TinyData:
    """Sky over road with a car that moves; colours with noise; some void at the left border."""
    rng = np.random.default_rng(seed)
    height = size[0]
    made = []
    for n in range(sequences):
        images, labels = [], []
        for i in range(frames):
            label = np.zeros(size, np.uint8)
            label[height // 2 :] = 1
            label[height // 2 : height * 3 // 4, 4 + 4 * i : 20 + 4 * i] = 2
            label[:, : 1 + n] = VOID
            colour = CLASSES.colours()[label].astype(int) + rng.integers(-20, 21, (*size, 3))
            images.append(colour.clip(0, 255).astype(np.uint8))
            labels.append(label)
        made.append(TinySequence(f"s{n}", np.stack(images), tuple(labels)))
    return TinyData(tuple(made))


def tiny_backbone(seed: int = 0) -> TinyBackbone:
    with seeded(seed):
        return TinyBackbone(len(CLASSES)).eval()
