"""Any network as a backbone: what comes before one of its submodules encodes, what comes after decodes."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmanet.backbones.base import Backbone, Features
from lmanet.backbones.wrapped.cut import calls_around, run_after, run_before
from lmanet.backbones.wrapped.exporting import unnoted
from lmanet.backbones.wrapped.forwards import copied
from lmanet.backbones.wrapped.layout import Layout, RecentLayouts, check_leaves, number_of_map
from lmanet.backbones.wrapped.probing import Probe, check_size, find_probe, first_parameter, in_eval_mode
from lmanet.backbones.wrapped.sides import parts_of, what_logits_need
from lmanet.backbones.wrapped.tries import same
from lmanet.errors import InputError, in_a_line
from lmanet.nn.folding import fold_norms_of
from lmanet.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise


class Wrapped(Backbone):
    """A third-party network, cut behind one of its submodules.

    Nothing of the network is rewritten: `encode` runs it up to the cut, `decode` from there on, and the two together
    give bit for bit what it gives by itself. That is tried out here, on random images.

    Threads may share it, call `model` itself meanwhile, or copy it (`copy.deepcopy`, `optimize`); they do not wait for
    each other. It must not be pickled meanwhile. `encode` and `decode` can be exported (`torch.export`), together or
    apart, and compiled (`torch.compile`; in one graph from PyTorch 2.14 on), as far as `model` itself can be. An export
    with `strict=True` holds operations that nothing uses: of a run of the encoder that only finds out shapes.

    Args:
        model: takes images (B, 3, H, W) and returns logits (B, K, h, w), as they are or under the key `out` or
            `logits`; logits of another size than the images' are interpolated bilinearly. Its weights are laid out
            with their channels last.
        at: name of the submodule whose output is fused, as in `model.named_modules()`.
        entry: which entry of that output, if it is a list, tuple or dict.
        mean: of the images that the model was trained on, per RGB channel in [0, 1].
        std: their standard deviation, likewise.
        bgr: whether it takes the channels as BGR.
        probe: (H, W) of images that the model takes, if it does not take the usual ones. A model that takes no other
            is given images of this size alone.
        output: key or index of the logits among what the model returns, nested ones with dots between (`aux.0`); if
            not given, `out`, `logits`, or the only map there is.

    Attributes:
        multiple: what heights and widths are padded to multiples of; as found, the least that the model takes.
        fixed_size: (H, W) of a model that takes images of one size alone, otherwise None.
        outputs: how logits are made of what the model returns.

    Raises:
        InputError: the model does not run, or cannot be cut there; the message says why.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        at: str,
        entry: int | str | None = None,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        bgr: bool = False,
        probe: tuple[int, int] | Probe | None = None,
        output: str | int | None = None,
    ) -> None:
        super().__init__()
        if at not in dict(model.named_modules()) or not at:
            raise InputError(
                f"at={at!r}: {type(model).__name__} has no such submodule: `lmanet inspect` or "
                f"lmanet.inspect(model) lists where it can be cut"
            )
        self.model = model
        self.training = model.training
        self.normalise = Normalise(mean, std, bgr)
        self.normalise.to(first_parameter(model))
        self.at, self.entry = at, entry
        # Outside of inference mode, in which tensors do not count how often they were written to.
        with in_eval_mode(model), torch.inference_mode(False), torch.no_grad():
            found = find_probe(model, probe, output=output)
            images, self.multiple, self.fixed_size = found.images, found.multiple, found.fixed_size
            self.outputs, self.notes = found.outputs, found.outputs.notes
            self._probe_size = (images.shape[-2], images.shape[-1])
            self._find_cut(images)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, H, W) in [0, 1] to the map at the cut, and what else the rest of the network needs."""
        check_size(images, self.fixed_size)
        made, layout = self._before(images)
        # A graph is made once: it may not depend on, nor leave anything of, what was called before it.
        if not torch.compiler.is_compiling():
            self._layouts.put((images.shape[-2], images.shape[-1]), layout)
        return Features(made[self._fused], tuple(layout.by_image(made[n], n) for n in self._needed))

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Features to logits (B, K, H, W); `size` is that of the images that they are of."""
        known = {self._fused: features.fused, **dict(zip(self._needed, features.rest, strict=True))}
        known |= {n: known[n].clone() for n in self._written}
        batch = features.fused.shape[0]
        images = self._unseen(features.fused.new_zeros(()), batch, size)
        returned = self._layout(images).build(known, batch, images)
        return self.outputs(run_after(self.model, self._early(), returned, images), size)

    def _before(self, images: Tensor) -> tuple[list[Any], Layout]:
        """What is made of images up to the cut."""
        x = self.normalise(images.contiguous(memory_format=torch.channels_last))
        return Layout.of(run_before(self.model, self._early(), x), images.shape[0])

    def _layout(self, images: Tensor) -> Layout:
        """The layout of what comes before the cut for images (B, 3, H, W), whose values may all be 0.

        The network is run up to the cut if it is not known.
        """
        size = images.shape[-2], images.shape[-1]
        if not torch.compiler.is_compiling() and (known := self._layouts.get(size)):
            return known
        # What these images look like must not get into the statistics of norms.
        training = [module for module in self.model.modules() if module.training]
        for module in training:
            module.training = False
        try:
            with unnoted(), torch.no_grad():
                layout = self._before(images[:1])[1]
        finally:
            for module in training:
                module.training = True
        if not torch.compiler.is_compiling():
            self._layouts.put(size, layout)
        return layout

    def padded_length(self, length: int) -> int:
        """The next multiple of what the network takes; often any length."""
        return -(-length // self.multiple) * self.multiple

    def encoder_parts(self) -> tuple[nn.Module, ...]:
        """What runs before the cut, on both sides of it, or not at all (auxiliary heads)."""
        return (self.normalise, *map(self.get_submodule, self._parts[0]), self._loose_tensors())

    def decoder_parts(self) -> tuple[nn.Module, ...]:
        """What runs after the cut alone."""
        return tuple(map(self.get_submodule, self._parts[1]))

    @property
    def setting(self) -> dict[str, Any]:
        """Where the network is cut, how its images are normalised, and what of its output logits are made of."""
        return {"at": self.at, "entry": self.entry, **self.normalise.setting, **self.outputs.setting}

    def train(self, mode: bool = True) -> Self:
        """Training or `eval` mode of all parts; what lies on both sides of the cut itself stays in `eval` mode.

        Its own `forward` runs on both sides: what it does otherwise in training (dropout, auxiliary logits) would be
        done to the frozen side too.
        """
        super().train(mode)
        inside = {m for part in (*self.encoder_parts(), *self.decoder_parts()) for m in part.modules()}
        for module in self.model.modules():
            module.training = mode and module in inside
        return self

    @property
    def bypasses(self) -> int:
        """How many maps besides the fused one the rest of the network needs."""
        return len(self._needed)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with networks of its own; other threads may run this one meanwhile."""
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        copied(self.model, memo)
        other.__setstate__(copy.deepcopy(self.__dict__, memo))
        return other

    def fold_norms(self) -> None:
        """Fold every BatchNorm into the convolution before it where the two are by themselves."""
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(1, 3, *self._probe_size, generator=generator).to(first_parameter(self.model))
        before = {inner for module in self._early() for inner in module.modules()}
        fold_norms_of(self.model, lambda: self.outputs(self.model(images.clone())), before)

    def _early(self) -> list[nn.Module]:
        return [self.model.get_submodule(name) for name in self._early_names]

    def _find_cut(self, images: Tensor) -> None:
        """Find out what the cut consists of, and that it is one."""
        model, at = self.model, self.model.get_submodule(self.at)
        shown = images.clone()
        early, late, count = calls_around(model, at, shown)
        self._writes_images = shown._version > 0
        if count != 1:
            raise InputError(
                f"at={self.at!r} is called {count} times for an image: choose a submodule that is called once"
            )
        names = {module: name for name, module in model.named_modules()}
        self._early_names = [names[module] for module in early]
        self._layouts = RecentLayouts()

        returned = run_before(model, early, images.clone())
        made, layout = Layout.of(returned, len(images))
        self._fused = number_of_map(returned, self.entry, self.at)
        fused = made[self._fused]
        needed, used = what_logits_need(model, early, made, layout, images.clone(), self.outputs)
        if self._fused not in needed:
            raise InputError(
                f"what {self.at!r} returns has no part in the logits (an auxiliary head?): choose another submodule"
            )
        self._needed = tuple(n for n in needed if n != self._fused)
        expected = self.outputs(model(images.clone()))
        self.num_classes, self.channels = expected.shape[1], fused.shape[1]
        self.stride = round(images.shape[-2] / fused.shape[-2])
        self._parts = parts_of(model, set(early), late, used)

        # From here on the network sees another image: what it remembers by itself would show below.
        check_leaves(made, pytree.tree_leaves(run_before(model, early, images[:1].flip(-1))), needed)
        kept = {n: layout.by_image(made[n], n).clone() for n in needed}
        versions = {n: value._version for n, value in kept.items()}
        # So would what is not needed: it is not a number here.
        nothing = self._unseen(images.new_full((), torch.nan), len(images), self._probe_size)
        try:
            again = self.outputs(run_after(model, early, layout.build(kept, len(images), nothing), nothing))
        except Exception as error:
            raise InputError(f"{self._not_a_cut()} ({in_a_line(error)})") from error
        if not same(again, expected):
            raise InputError(self._not_a_cut())
        # The network writes into these: what it is given must be a copy.
        self._written = tuple(n for n, value in kept.items() if value._version != versions[n])

    def _unseen(self, value: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
        """Images (B, 3, H, W) of one value, for the part after the cut, which asks for their shape alone."""
        images = value.expand(batch, 3, *size)
        return images.clone() if self._writes_images else images

    def _not_a_cut(self) -> str:
        return (
            f"{type(self.model).__name__} does not give the same logits when it is cut at {self.at!r}: the code around "
            f"that submodule uses more than what submodules return; choose another"
        )

    def _loose_tensors(self) -> nn.Module:
        """Parameters and buffers that belong to modules on both sides of the cut themselves, as one module."""
        parts = [self.normalise, *map(self.get_submodule, (*self._parts[0], *self._parts[1]))]
        known = {id(x) for part in parts for x in (*part.parameters(), *part.buffers())}
        loose = nn.Module()
        for n, parameter in enumerate(p for p in self.parameters() if id(p) not in known):
            loose.register_parameter(str(n), parameter)
        for n, buffer in enumerate(b for b in self.buffers() if id(b) not in known):
            loose.register_buffer(f"buffer{n}", buffer)
        return loose
