"""Any network as a backbone: what comes before one of its submodules encodes, what comes after decodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from lmanet.backbones.base import Backbone, Features
from lmanet.backbones.cut import early_calls, late_modules, run_after, run_before
from lmanet.backbones.folding import fold_norms_of
from lmanet.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PROBE_SIZES = ((128, 192), (224, 224), (256, 256), (384, 384), (512, 512))
"""Heights and widths that networks are tried at, until one runs."""
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


class Wrapped(Backbone):
    """A third-party network, cut behind one of its submodules.

    Nothing of the network is changed or rewritten: `encode` runs it up to the cut, `decode` from there on, and the two
    together give bit for bit what it gives by itself. That is tried out here, on random images.

    Args:
        model: takes images (B, 3, H, W) and returns logits (B, K, h, w), as they are or under the key `out` or
            `logits`; logits of another size than the images' are interpolated bilinearly.
        at: name of the submodule whose output is fused, as in `model.named_modules()`.
        entry: which entry of that output, if it is a list, tuple or dict.
        mean: of the images that the model was trained on, per RGB channel in [0, 1].
        std: their standard deviation, likewise.
        probe: (H, W) of images that the model takes, if it does not take the usual ones.

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
        probe: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if at not in dict(model.named_modules()) or not at:
            raise InputError(
                f"at={at!r}: {type(model).__name__} has no such submodule: `lmanet inspect` or "
                f"lmanet.inspect(model) lists where it can be cut"
            )
        self.model = model
        self.normalise = Normalise(mean, std)
        self.normalise.to(_first(model))
        self.at, self.entry = at, entry
        with in_eval_mode(model):
            images, self._multiple = find_probe(model, probe)
            self._probe_size = (images.shape[-2], images.shape[-1])
            self._find_cut(images)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, H, W) in [0, 1] to the map at the cut, and what else the rest of the network needs."""
        x = self.normalise(images.contiguous(memory_format=torch.channels_last))
        made, layout = _Layout.of(run_before(self.model, self._early(), x), len(images))
        self._layouts[(images.shape[-2], images.shape[-1])] = layout
        return Features(made[self._fused], tuple(layout.by_image(made[n], n) for n in self._needed))

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Features to logits (B, K, H, W); `size` is that of the images that they are of."""
        if size not in self._layouts:
            # Features of another process, or from disk.
            with torch.no_grad():
                self.encode(features.fused.new_zeros(()).expand(1, 3, *size))
        layout = self._layouts[size]
        known = {self._fused: features.fused, **dict(zip(self._needed, features.rest, strict=True))}
        images = features.fused.new_zeros(()).expand(len(features.fused), 3, *size)
        out = run_after(self.model, self._early(), layout.build(known, len(images), images), images)
        logits = logits_of(out)
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits

    def padded_length(self, length: int) -> int:
        """The next multiple of what the network takes; often any length."""
        return -(-length // self._multiple) * self._multiple

    def encoder_parts(self) -> tuple[nn.Module, ...]:
        """What runs before the cut."""
        return (self.normalise, *(self.get_submodule(name) for name in self._parts[0]))

    def decoder_parts(self) -> tuple[nn.Module, ...]:
        """What runs after the cut alone."""
        return tuple(self.get_submodule(name) for name in self._parts[1])

    @property
    def bypasses(self) -> int:
        """How many maps besides the fused one the rest of the network needs."""
        return len(self._needed)

    def fold_norms(self) -> None:
        """Fold every BatchNorm into the convolution before it where the two are by themselves."""
        parameter = next(self.model.parameters())
        images = torch.rand(1, 3, *self._probe_size, device=parameter.device, dtype=parameter.dtype)
        fold_norms_of(self.model, lambda: logits_of(self.model(images)))

    def _early(self) -> list[nn.Module]:
        return [self.model.get_submodule(name) for name in self._early_names]

    @torch.no_grad()
    def _find_cut(self, images: Tensor) -> None:
        """Find out what the cut consists of, and that it is one."""
        model, at = self.model, self.model.get_submodule(self.at)
        early, count = early_calls(model, at, images)
        if count != 1:
            raise InputError(
                f"at={self.at!r} is called {count} times for an image: choose a submodule that is called once"
            )
        names = {module: name for name, module in model.named_modules()}
        self._early_names = [names[module] for module in early]
        self._layouts: dict[tuple[int, int], _Layout] = {}

        made, layout = _Layout.of(run_before(model, early, images), len(images))
        expected = logits_of(model(images))
        self._fused = self._find_fused(made, layout)
        fused = made[self._fused]
        self._needed = _needed(model, early, made, layout, self._fused, images)
        for n in self._needed:
            layout.by_image(made[n], n)  # raises if it cannot

        self.num_classes, self.channels = expected.shape[1], fused.shape[1]
        self.stride = round(images.shape[-2] / fused.shape[-2])
        self._parts = _parts(model, set(early), late_modules(model, at, images))
        # What is not needed is not a number here: it would show.
        kept = {n: made[n] for n in (self._fused, *self._needed)}
        nothing = images.new_full((), torch.nan).expand(1, *images.shape[1:])
        again = logits_of(
            run_after(model, early, layout.build(kept, len(images), nothing), nothing.expand_as(images))
        )
        if not torch.equal(again, expected):
            raise InputError(
                f"{type(model).__name__} gives other logits when it is cut at {self.at!r}: the code around that "
                f"submodule uses more than what submodules return; choose another"
            )

    def _find_fused(self, made: list[Any], layout: _Layout) -> int:
        """Place of the map to fuse among all leaves."""
        last = layout.calls[-1]
        maps = {
            path: n
            for path, n in last.items()
            if isinstance(made[n], Tensor) and made[n].ndim == 4 and made[n].is_floating_point()
        }
        entry = self.entry
        chosen = next((n for path, n in maps.items() if path == (() if entry is None else (entry,))), None)
        if isinstance(entry, int) and entry < 0:
            chosen = list(maps.values())[entry] if -entry <= len(maps) else None
        if chosen is None:
            found = ", ".join(f"{_entry_name(path)} {tuple(made[n].shape)}" for path, n in maps.items())
            raise InputError(
                f"the output of {self.at!r} has no map (B, C, h, w) at entry {entry!r}: it holds {found or 'none'}"
                f"; give entry= one of these, or choose another submodule"
            )
        return chosen


class Normalise(nn.Module):
    """From [0, 1] to what a network was trained on.

    Args:
        mean: per channel.
        std: per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to the same shape."""
        return (images - self.mean) / self.std


def logits_of(output: Any) -> Tensor:
    """The logits (B, K, h, w) among what a segmentation network returns.

    Raises:
        InputError: there are none.
    """
    found = output
    if isinstance(output, Mapping):
        found = output.get("out", output.get("logits"))
    if not isinstance(found, Tensor) or found.ndim != 4:
        got = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(output).__name__}"
        raise InputError(
            f"the model returned {got}: expected logits (B, K, h, w), as they are or under the key 'out' or 'logits'; "
            f"give it a forward that returns them"
        )
    return found


@dataclass(frozen=True)
class _Leaf:
    """What is known of a leaf without its value."""

    per_image: int
    """Its length in the first dimension, per image; 0 for what is the same for all images."""
    shape: tuple[int, ...]
    constant: Any


@dataclass(frozen=True)
class _Layout:
    """How what the calls returned is made of tensors, for images of one size.

    Attributes:
        spec: the nesting.
        leaves: one per leaf.
        calls: per call, the path of each leaf in what it returned and the leaf's number.
    """

    spec: Any
    leaves: tuple[_Leaf, ...]
    calls: tuple[dict[tuple[Any, ...], int], ...]

    @classmethod
    def of(cls, returned: list[Any], batch: int) -> tuple[list[Any], _Layout]:
        """All leaves of what the calls returned, and the layout."""
        paths, spec = pytree.tree_flatten_with_path(returned)
        calls: list[dict[tuple[Any, ...], int]] = [{} for _ in returned]
        for n, (path, _) in enumerate(paths):
            number, *inside = (key_of(step) for step in path)
            calls[number][tuple(inside)] = n
        values = [value for _, value in paths]
        leaves = []
        for value in values:
            if not isinstance(value, Tensor):
                leaves.append(_Leaf(0, (), value))
            elif value.ndim == 0 or len(value) % batch:
                leaves.append(_Leaf(0, tuple(value.shape), None))
            else:
                leaves.append(_Leaf(len(value) // batch, tuple(value.shape[1:]), None))
        return values, cls(spec, tuple(leaves), tuple(calls))

    def by_image(self, value: Tensor, n: int) -> Tensor:
        """A leaf with the images along its first dimension."""
        per_image = self.leaves[n].per_image
        if per_image == 0:
            raise InputError(
                f"what comes after the cut needs a tensor {tuple(value.shape)} that does not belong to single "
                f"images: choose another submodule to cut at"
            )
        return value if per_image == 1 else value.unflatten(0, (-1, per_image))

    def build(self, known: Mapping[int, Tensor], batch: int, like: Tensor) -> list[Any]:
        """What the calls returned, with known leaves `by_image`; all others are copies of one number of `like`."""
        values = []
        for n, leaf in enumerate(self.leaves):
            if n in known:
                value = known[n]
                if leaf.per_image > 1 and value.shape[1:] != leaf.shape:
                    value = value.flatten(0, 1)
                values.append(value)
            elif leaf.per_image or leaf.shape:
                shape = (batch * leaf.per_image, *leaf.shape) if leaf.per_image else leaf.shape
                values.append(like.flatten()[0].expand(shape))
            else:
                values.append(leaf.constant)
        return pytree.tree_unflatten(values, self.spec)


def key_of(step: Any) -> Any:
    """The index or key of one step of a path."""
    return next(getattr(step, name) for name in ("idx", "key", "name") if hasattr(step, name))


def _entry_name(path: tuple[Any, ...]) -> str:
    return "itself" if not path else f"entry {path[0]!r}" if len(path) == 1 else f"entry {path!r}"


def _needed(
    model: nn.Module, early: list[nn.Module], made: list[Any], layout: _Layout, fused: int, images: Tensor
) -> tuple[int, ...]:
    """Which leaves besides the fused map have a part in the logits: those that a gradient reaches.

    What cannot have a gradient (whole numbers, booleans) is kept whether needed or not.
    """
    with torch.enable_grad():
        fixed = {n for n, x in enumerate(made) if isinstance(x, Tensor) and not x.is_floating_point()}
        leaves = {
            n: x.detach().requires_grad_()
            for n, x in enumerate(made)
            if isinstance(x, Tensor) and x.is_floating_point() and n != fused
        }
        # Not the leaves themselves: the network may write into its maps.
        values = [
            leaves[n].clone() if n in leaves else x.clone() if n == fused else x for n, x in enumerate(made)
        ]
        out = logits_of(run_after(model, early, pytree.tree_unflatten(values, layout.spec), images))
        if not leaves or not out.requires_grad:
            return tuple(sorted(fixed))
        wanted = list(leaves)
        grads = torch.autograd.grad(out.sum(), [leaves[n] for n in wanted], allow_unused=True)
    return tuple(sorted(fixed | {n for n, grad in zip(wanted, grads, strict=True) if grad is not None}))


def _parts(
    model: nn.Module, early: set[nn.Module], late: set[nn.Module]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the modules that encode and of those that decode; what does both, or neither, counts as encoding."""
    before = {inner for module in early for inner in module.modules()}
    encoder: list[str] = []
    decoder: list[str] = []

    def sort(name: str, module: nn.Module) -> None:
        inside = set(module.modules())
        if not inside & late or inside <= before:
            encoder.append(name)
        elif module in late and not inside & before:
            decoder.append(name)
        else:
            for child_name, child in module.named_children():
                sort(f"{name}.{child_name}", child)

    for name, child in model.named_children():
        sort(f"model.{name}", child)
    return tuple(encoder), tuple(decoder)


def find_probe(model: nn.Module, size: tuple[int, int] | None) -> tuple[Tensor, int]:
    """Two random images that the model takes, and the number that heights and widths must be multiples of."""
    parameter = _first(model)
    generator = torch.Generator().manual_seed(0)

    def run(size: tuple[int, int]) -> Tensor:
        images = torch.rand(2, 3, *size, generator=generator).to(parameter)
        with torch.no_grad():
            logits_of(model(images))
        return images

    failures = []
    for height, width in (size,) if size else PROBE_SIZES:
        try:
            images = run((height, width))
        except InputError:
            raise
        except Exception as error:  # whatever a network raises of a size it does not take
            failures.append(f"{height}×{width}: {type(error).__name__}: {error}")
            continue
        for multiple in MULTIPLES:
            try:
                run((height + multiple, width + multiple))
            except Exception:
                continue
            return images, multiple
        raise InputError(
            f"{type(model).__name__} takes images of {height}×{width}, but none a little larger: networks of one fixed "
            f"size are not supported; set up the model so that it interpolates its position embedding"
        )
    raise InputError(
        f"{type(model).__name__} runs on no image that was tried ({'; '.join(failures)}): give probe=(H, W) of one "
        f"that it takes"
    )


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in `eval` mode, and afterwards back in its own."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _first(model: nn.Module) -> Tensor:
    """The first parameter, for its device and type."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise InputError(f"{type(model).__name__} has no parameters: expected a trained network")
    return parameter
