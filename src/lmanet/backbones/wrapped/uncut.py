"""A network that is not cut in two: for methods that need its output alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from lmanet.backbones.base import Backbone, Features
from lmanet.backbones.wrapped.forwards import copied
from lmanet.backbones.wrapped.probing import Probe, check_size, in_eval_mode, try_out
from lmanet.backbones.wrapped.unwrapping import is_plain, set_mode
from lmanet.nn.folding import fold_norms_of
from lmanet.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, RGB, Normalise
from lmanet.nn.place import place_of


class Uncut(Backbone):
    """A third-party network that runs whole: `encode` is all of it, `decode` brings its output to the frames' size.

    So any network will do that gives logits for images: also TorchScript, exported programs, quantised networks, and
    such as run without gradients. The fused map is what its logits are made of, at its own output's size; methods that
    match frames by a map inside of the network cannot use it.

    Args:
        model: takes images (B, 3, H, W), or (1, 3, H, W) alone, and returns logits (B, K, h, w) as `Wrapped`
            finds them.
        mean: of the images that the model was trained on, per RGB channel in [0, 1].
        std: their standard deviation, likewise.
        bgr: whether it takes the channels as BGR.
        probe: (H, W) of images that the model takes, if it does not take the usual ones. A model that takes no other
            is given images of this size alone.
        output: key or index of the logits among what the model returns; see `Wrapped`.

    Attributes:
        multiple: what heights and widths are padded to multiples of.
        fixed_size: (H, W) of a model that takes images of one size alone, otherwise None.
        outputs: how logits are made of what the model returns.
        one_by_one: whether the model takes one image at a time.

    Raises:
        InputError: the model does not run, or returns no logits; the message says why.
    """

    not_cut = "this one is whole, as single-frame and flow-average take it"

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: RGB = IMAGENET_MEAN,
        std: RGB = IMAGENET_STD,
        bgr: bool = False,
        probe: tuple[int, int] | Probe | None = None,
        output: str | int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(mean, std, bgr)
        self.normalise.to(place_of(model))
        found = probe if isinstance(probe, Probe) else try_out(model, probe, output=output)
        self.multiple, self.fixed_size = found.multiple, found.fixed_size
        self.outputs, self.notes = found.outputs, found.outputs.notes
        self.one_by_one = len(found.images) == 1
        self._probe_size = found.size
        self._format = torch.contiguous_format
        with in_eval_mode(model), torch.inference_mode(False), torch.no_grad():
            fused = self.outputs.map_of(model(found.images.clone()))
            self.channels, self.num_classes = fused.shape[1], self._logits(fused, None).shape[1]
            self.stride = max(1, round(found.size[0] / fused.shape[-2]))
            if is_plain(model):
                self._lay_out(found.images)
        # What is exported has one mode for good: that of inference, as far as it goes.
        self.training = is_plain(model) and model.training

    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, H, W) in [0, 1] to what logits are made of (B, C, h, w), at the output's own size."""
        check_size(images, self.fixed_size)
        x = self.normalise(images.contiguous(memory_format=self._format))
        parts = x.split(1) if self.one_by_one else (x,)
        size = images.shape[-2], images.shape[-1]
        return Features(torch.cat([self.outputs.map_of(self.model(part), size) for part in parts]))

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        """What logits are made of to logits (B, K, H, W), interpolated bilinearly to `size` = (H, W)."""
        return self._logits(features.fused, size)

    def padded_length(self, length: int) -> int:
        """The next multiple of what the network takes; often any length."""
        return -(-length // self.multiple) * self.multiple

    def encoder_parts(self) -> tuple[nn.Module, ...]:
        """All of it."""
        return (self.normalise, self.model)

    def decoder_parts(self) -> tuple[nn.Module, ...]:
        """Nothing."""
        return ()

    @property
    def setting(self) -> dict[str, Any]:
        """How its images are normalised, and what of its output logits are made of."""
        return {"cut": False, **self.normalise.setting, **self.outputs.setting}

    def train(self, mode: bool = True) -> Self:
        """Training or `eval` mode; exported programs keep the one that they were exported in."""
        self.training = mode
        self.normalise.train(mode)
        set_mode(self.model, mode)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with a network of its own."""
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        with torch.no_grad():  # or TorchScript's copies would be results of the originals
            copied(self.model, memo)
            other.__setstate__(copy.deepcopy(self.__dict__, memo))
        return other

    def fold_norms(self) -> None:
        """Fold every BatchNorm into the convolution before it where the two are by themselves."""
        if is_plain(self.model):
            generator = torch.Generator().manual_seed(0)
            images = torch.rand(1, 3, *self._probe_size, generator=generator).to(place_of(self.model))
            fold_norms_of(
                self.model, lambda: self._logits(self.outputs.map_of(self.model(images.clone())), None)
            )

    def _logits(self, fused: Tensor, size: tuple[int, int] | None) -> Tensor:
        return replace(self.outputs, path=(), queries=None)(fused, size)

    def _lay_out(self, images: Tensor) -> None:
        """Weights and images with their channels last, which is faster, unless the network's own code forbids it."""
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        try:
            self.model(images.clone(memory_format=torch.channels_last))
        except Exception:
            self.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        else:
            self._format = torch.channels_last
