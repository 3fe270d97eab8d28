"""PSPNet (Zhao et al., CVPR 2017) on a ResNet dilated to stride 8, as in the semseg repository.

Module names follow the published checkpoints, so that they load after their `module.` prefix is taken off; see
`lmanet.zoo.official`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmanet.backbones.base import Backbone, Features
from lmanet.errors import InputError
from lmanet.nn.convolution import fold_in_sequences, fold_norm
from lmanet.nn.normalise import Normalise

BLOCKS: dict[int, tuple[int, int, int, int]] = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks in each stage, by the number of layers."""

BINS = (1, 2, 3, 6)
"""Sides of the grids that the pyramid pools to."""


class PyramidPooling(nn.Module):
    """A map beside its means over coarse grids, each brought to a share of the channels: C channels to 2 C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // len(BINS)
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(side),
                nn.Conv2d(channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for side in BINS
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 2 C, h, w)."""
        size = x.shape[-2:]
        pooled = (F.interpolate(f(x), size, mode="bilinear", align_corners=True) for f in self.features)
        return torch.cat([x, *pooled], 1)


class PSPNet(Backbone):
    """PSPNet as a backbone: the 2048 channels of the ResNet's last stage, at stride 8, go through the memory.

    Cell (i, j) of the fused map lies on pixel (8 i, 8 j), and the corners of the logits on those of the image. So it
    takes sizes 8 n + 1 (the paper's 1025×2049 gives 129×257 cells); others are padded.

    A published checkpoint's auxiliary head, which only its training used, is not part of it. Weights are kept
    `channels_last`.

    Args:
        num_classes: K, the number of classes.
        layers: of the ResNet, 101 (the paper's) or 50.

    Raises:
        InputError: another number of layers.
    """

    channels = 2048
    stride = 8

    def __init__(self, num_classes: int, *, layers: Literal[50, 101] = 101) -> None:
        super().__init__()
        if layers not in BLOCKS:
            raise InputError(f"PSPNet of {layers} layers: expected one of {', '.join(map(str, BLOCKS))}")
        self.num_classes, self.config = num_classes, {"layers": layers}
        blocks = BLOCKS[layers]
        self.normalise = Normalise()
        self.layer0 = nn.Sequential(
            *_convolution(3, 64, stride=2),
            *_convolution(64, 64),
            *_convolution(64, 128),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.layer1 = _stage(128, 64, blocks[0])
        self.layer2 = _stage(256, 128, blocks[1], stride=2)
        self.layer3 = _stage(512, 256, blocks[2], dilation=2)
        self.layer4 = _stage(1024, 512, blocks[3], dilation=4)
        self.ppm = PyramidPooling(self.channels)
        self.cls = nn.Sequential(
            *_convolution(2 * self.channels, 512), nn.Dropout2d(0.1), nn.Conv2d(512, num_classes, 1)
        )
        for module in (module for part in self.encoder_parts() for module in part.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, 8h - 7, 8w - 7) in [0, 1] to a fused map (B, 2048, h, w)."""
        x = images.contiguous(memory_format=torch.channels_last)
        for part in self.encoder_parts():
            x = part(x)
        return Features(x)

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Fused map (B, 2048, h, w) to logits (B, K, H, W)."""
        logits = self.cls(self.ppm(features.fused))
        return F.interpolate(logits, size, mode="bilinear", align_corners=True)

    def padded_length(self, length: int) -> int:
        """The next 8 n + 1."""
        return super().padded_length(length - 1) + 1

    def fold_norms(self) -> None:
        """Fold every BatchNorm into the convolution before it."""
        fold_in_sequences(self)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                for n in (1, 2, 3):
                    setattr(block, f"bn{n}", fold_norm(getattr(block, f"conv{n}"), getattr(block, f"bn{n}")))

    def encoder_parts(self) -> tuple[nn.Module, ...]:
        """Normalisation and the ResNet."""
        return (self.normalise, self.layer0, self.layer1, self.layer2, self.layer3, self.layer4)

    def decoder_parts(self) -> tuple[nn.Module, ...]:
        """Pyramid pooling and the head."""
        return (self.ppm, self.cls)


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _stage(inputs: int, width: int, blocks: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Bottleneck blocks to 4 times the width, all dilated alike; the first has the stride."""
    from torchvision.models.resnet import Bottleneck  # `import lmanet` is light

    outputs = width * Bottleneck.expansion
    shortcut = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )
    first = Bottleneck(inputs, width, stride, shortcut, dilation=dilation)
    return nn.Sequential(first, *(Bottleneck(outputs, width, dilation=dilation) for _ in range(blocks - 1)))
