"""Small things that several tests share: a data set in memory, and a backbone with a skip map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lmanet.backbones.base import Backbone, Features
from lmanet.data.base import VOID, Classes

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


class TinyBackbone(Backbone):
    """Two strided convolutions, the first one's map handed to the decoder as a skip."""

    channels = 8
    stride = 4

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.deep = nn.Sequential(
            nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Dropout2d(0.2)
        )
        self.mix = nn.Sequential(nn.Conv2d(14, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, num_classes, 1)

    def encode(self, images: Tensor) -> Features:
        skip = self.stem(images)
        return Features(self.deep(skip), (skip,))

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        (skip,) = features.rest
        up = F.interpolate(features.fused, skip.shape[-2:], mode="bilinear", align_corners=False)
        logits = self.head(self.mix(torch.cat([up, skip], 1)))
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    def encoder_parts(self) -> tuple[nn.Module, ...]:
        return (self.stem, self.deep)

    def decoder_parts(self) -> tuple[nn.Module, ...]:
        return (self.mix, self.head)


def tiny_backbone(seed: int = 0) -> TinyBackbone:
    torch.manual_seed(seed)
    return TinyBackbone().eval()
