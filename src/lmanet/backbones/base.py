"""The contract between a single-frame network and the memory: encode, then decode."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lmanet.classes import Classes


@dataclass(frozen=True)
class Features:
    """What an encoder makes of one frame.

    Attributes:
        fused: (B, C, h, w), the map that the memory reads for and is fused with.
        rest: whatever else the decoder needs of this frame (skip maps), handed through untouched.
    """

    fused: Tensor
    rest: tuple[Tensor, ...] = ()

    def with_fused(self, fused: Tensor) -> Features:
        """The same features with another fused map."""
        return Features(fused, self.rest)


class Backbone(nn.Module, ABC):
    """A single-frame segmentation network split where the memory goes in.

    Attributes:
        channels: channels C of the fused map.
        stride: pixels per cell of the fused map.
        num_classes: K, channels of the logits.
        classes: names and colours of the classes; set by `lmanet.load`.
        card: where the weights came from; set by `lmanet.load`.
        optimized: whether this is a copy that `optimize` made.
        architecture: the name that it is registered under (`lmanet.zoo.register_backbone`), where it was built by name.
        config: optional; arguments that a registered architecture is built again from.
    """

    channels: int
    stride: int
    num_classes: int
    classes: Classes
    card: dict[str, Any]
    architecture: str | None = None
    config: dict[str, Any]
    optimized: bool = False

    @abstractmethod
    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, H, W), RGB, float in [0, 1] to features with a fused map (B, C, ⌈H/stride⌉, ⌈W/stride⌉).

        Normalisation belongs to the network: do it here. H and W are what `padded_length` gives.
        """

    @abstractmethod
    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Features to logits (B, K, H, W) at `size` = (H, W)."""

    def padded_length(self, length: int) -> int:
        """The least height or width that `encode` takes, from `length` pixels on: a multiple of the stride.

        Images are padded to it, and the logits cut back (`segmenter.encode_any_size`). A network that wants other
        sizes says so here.
        """
        return -(-length // self.stride) * self.stride

    @property
    def setting(self) -> dict[str, Any]:
        """What its output depends on beside its class, `config` and weights, as JSON values; nothing here."""
        return {}

    def encoder_parts(self) -> tuple[nn.Module, ...]:
        """The modules that `encode` runs: frozen in steps 1 and 2 of the training."""
        raise NotImplementedError(f"{type(self).__name__} does not say which of its modules encode")

    def decoder_parts(self) -> tuple[nn.Module, ...]:
        """The modules that `decode` runs: frozen in step 1, trained in step 2."""
        raise NotImplementedError(f"{type(self).__name__} does not say which of its modules decode")

    def fold_norms(self) -> None:
        """Fold BatchNorm into the convolutions before it, in place; same output in `eval` mode, no training.

        `optimize` calls it on its copy. Nothing is folded unless a network says how: where a convolution is followed
        by a norm and nothing else uses what is between them, `torch.nn.utils.fusion.fuse_conv_bn_eval` makes the one
        of the two, and `nn.Identity()` takes the norm's place.
        """

    def optimize(self, dtype: torch.dtype | None = None) -> Self:
        """A copy for inference, as fast as it gets: see `VideoSegmenter.optimize`."""
        if self.optimized and dtype in (None, next(self.parameters()).dtype):
            return self
        fast = copy.deepcopy(self).eval()
        if not fast.optimized:
            fast.fold_norms()
            fast.optimized = True
        # What was folded in is new: it is in training mode, and its weights want gradients.
        fast.eval().requires_grad_(False)
        return fast if dtype is None else fast.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        """The single-frame network: images (B, 3, H, W) in [0, 1] to logits (B, K, H, W)."""
        return self.decode(self.encode(images), (images.shape[-2], images.shape[-1]))
