"""The contract between a single-frame network and the memory: encode, then decode."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmanet.classes import Classes
from lmanet.errors import InputError, in_a_line
from lmanet.nn.place import place_of


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
        """These features with another fused map (B, C, h, w)."""
        return Features(fused, self.rest)


class Backbone(nn.Module, ABC):
    """A single-frame segmentation network split where the memory goes in.

    Attributes:
        channels: channels C of the fused map.
        stride: pixels per cell of the fused map.
        num_classes: K, channels of the logits.
        classes: names and colours of the classes, where they are known; `lmanet.load` sets them.
        card: where the weights came from, where that is known; `lmanet.load` sets it.
        notes: what was recognised of a network of one's own, in sentences for people.
        normalisation: what is done to images before the network sees them, and why, in a line.
        not_cut: why methods that need the fused map cannot use it, for a sentence; None if they can.
        optimized: whether this is a copy that `optimize` made.
        architecture: the name that it is registered under (`lmanet.zoo.register_backbone`), where it was built by name.
        config: optional; arguments that a registered architecture is built again from.
    """

    channels: int
    stride: int
    num_classes: int
    classes: Classes | None = None
    card: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    normalisation: str = "the network's own"
    not_cut: ClassVar[str | None] = None
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

        Images are padded to it, and the logits cut back (`encode_any_size`, `decode_to_size`). A network that wants
        other sizes says so here.
        """
        return -(-length // self.stride) * self.stride

    def prepared(self, images: Tensor) -> Tensor:
        """Images as `encode` takes them: checked, scaled to [0, 1], in the network's dtype, padded right and below.

        Args:
            images: (B, 3, H, W) RGB, uint8 or any float in [0, 1].

        Returns:
            (B, 3, H', W') float in [0, 1], of the lengths that `padded_length` gives; the border is repeated.

        Raises:
            InputError: not an image batch, or NaN or floats far outside of [0, 1] in it.
        """
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise InputError(f"images {tuple(images.shape)}: expected (B, 3, H, W), RGB")
        if images.dtype == torch.uint8:
            images = images.to(torch.get_default_dtype()).div_(255)
        elif not images.is_floating_point():
            raise InputError(f"images of {images.dtype}: expected uint8, or float in [0, 1]")
        elif not torch.compiler.is_compiling():
            _check_range(images)
        images = images.to(place_of(self).dtype)
        height, width = images.shape[-2:]
        below, right = (self.padded_length(n) - n for n in (height, width))
        if below or right:
            images = F.pad(images, (0, right, 0, below), mode="replicate")
        return images

    def encode_any_size(self, images: Tensor) -> tuple[Features, tuple[int, int]]:
        """Encode images of any size.

        Args:
            images: (B, 3, H, W) RGB, uint8 or any float in [0, 1].

        Returns:
            The features of the padded images, and (H, W) before padding, for `decode_to_size`.

        Raises:
            InputError: not an image batch, or NaN or floats far outside of [0, 1] in it.
        """
        return self.encode(self.prepared(images)), (images.shape[-2], images.shape[-1])

    def decode_to_size(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Decode features of padded images and cut the padding off: logits (B, K, *size)."""
        height, width = map(self.padded_length, size)
        return self.decode(features, (height, width))[..., : size[0], : size[1]]

    def segment(self, images: Tensor) -> Tensor:
        """The single-frame network on images of any size.

        Args:
            images: (B, 3, H, W) RGB, uint8 or any float in [0, 1].

        Returns:
            Logits (B, K, H, W).

        Raises:
            InputError: not an image batch, or NaN or floats far outside of [0, 1] in it.
        """
        features, size = self.encode_any_size(images)
        return self.decode_to_size(features, size)

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
        """A copy for inference, as fast as it gets: BatchNorm folded where the network says how (`fold_norms`).

        Args:
            dtype: of the copy's weights, such as `torch.bfloat16`; the network's own if not given.

        Returns:
            The copy, in `eval` mode, on the same device, without gradients; the network itself if it is such a copy
            already.

        Raises:
            InputError: it cannot be copied.
        """
        if self.optimized and dtype in (None, place_of(self).dtype):
            return self
        try:
            with torch.no_grad():  # or TorchScript's copies would be results of the originals
                fast = copy.deepcopy(self).eval()
        except Exception as error:
            raise InputError(
                f"the network cannot be copied by copy.deepcopy ({in_a_line(error)}): keep out of its "
                f"attributes what cannot be copied, such as locks, open files and tensors with a gradient"
            ) from error
        if not fast.optimized:
            fast.fold_norms()
            fast.optimized = True
        # What was folded in is new: it is in training mode, and its weights want gradients.
        fast.eval().requires_grad_(False)
        return fast if dtype is None else fast.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        """The single-frame network: images (B, 3, H, W) in [0, 1] to logits (B, K, H, W)."""
        return self.decode(self.encode(images), (images.shape[-2], images.shape[-1]))


def _check_range(images: Tensor) -> None:
    low, high = (float(x) for x in images.aminmax())
    if math.isnan(low) or math.isinf(low) or math.isinf(high):
        raise InputError("images hold NaN or infinity: expected float in [0, 1]; mend or skip this frame")
    if low < -1 or high > 2:  # what interpolation leaves a little outside is taken
        raise InputError(
            f"images of {low:.3g} to {high:.3g}: expected uint8, or float in [0, 1]; divide by 255, or leave out the "
            f"normalisation, which the network does itself"
        )
