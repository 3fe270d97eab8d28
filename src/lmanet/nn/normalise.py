"""Images in [0, 1] to what a network was trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

RGB = tuple[float, float, float]
"""A number per channel."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's images per RGB channel, in [0, 1]."""


class Normalise(nn.Module):
    """Less the mean, over the standard deviation.

    Args:
        mean: per channel.
        std: per channel.
        bgr: whether the order of the channels is turned round afterwards.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: RGB = IMAGENET_MEAN,
        std: RGB = IMAGENET_STD,
        bgr: bool = False,
    ) -> None:
        super().__init__()
        self.bgr = bgr
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    @property
    def setting(self) -> dict[str, Any]:
        """What it does, as JSON values."""
        mean, std = (x.flatten().tolist() for x in (self.mean, self.std))
        return {"mean": mean, "std": std, **({"bgr": True} if self.bgr else {})}

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to the same shape."""
        images = (images - self.mean) / self.std
        return images.flip(1) if self.bgr else images
