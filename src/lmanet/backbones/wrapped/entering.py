"""What enters the first layer of a network: the image as it was given, or what the network's own code made of it.

No name is looked at: the network runs on images of one colour each until the first layer is reached, and what enters
there is compared with the colours. So it works alike for modules, code between them, TorchScript and exported graphs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from lmanet.nn.place import place_of

LAYER = re.compile(r"(^|_)(conv(?!ert)|linear|addmm|baddbmm|bmm|mm|matmul|batch_norm|quantize|to_mkldnn)")
"""Names of operations that have weights, or that pack an image for one that has."""
MOST_OPERATIONS = 200
"""Before the first layer; where there are more, it is of a kind that is not known."""
COLOURS = (
    (0.2, 0.5, 0.8),
    (0.7, 0.3, 0.4),
    (0.9, 0.9, 0.2),
    (0.1, 0.6, 0.3),
    (0.5, 0.1, 0.6),
    (0.35, 0.75, 0.95),
)
BEYOND = 4.0
"""Colours times this less half of it are like those of normalised images: beyond [0, 1] on both sides."""
ROUNDING = 0.01
"""What precisions down to bfloat16 make of numbers, relative to the largest."""
MOST = 0.8
"""Of what enters, the share that must be one function of the colours; the rest is a border."""


@dataclass(frozen=True)
class Entering:
    """What enters a network's first layer.

    Attributes:
        kind: `image`: the image as it is. `affine`: each channel times a number, plus another. `by image`: the
            same for images that differ in brightness and contrast alone, so each is standardised by itself. `range`:
            the image as it is, but only where its values are in [0, 1]. `other`: something else. `unknown`: not found.
        mean: for `affine`, what is taken from the channels, which are in the order of the image.
        std: for `affine`, what they are divided by.
        bgr: for `affine`, whether the channels are turned round.
        statistics: running mean and variance per channel, where the first layer is a BatchNorm on the image.
    """

    kind: Literal["image", "affine", "by image", "range", "other", "unknown"]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    bgr: bool = False
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def entering(model: nn.Module, sizes: Sequence[tuple[int, int]]) -> Entering:
    """Find out what enters the first layer of a network.

    Args:
        model: any network on images (B, 3, H, W), in `eval` mode.
        sizes: (H, W) of images that it may take, tried in order.
    """
    like = place_of(model)
    for size in sizes:

        def run(colour: Tensor, size: tuple[int, int] = size) -> _FirstLayer:
            return _run(model, colour.to(like)[None, :, None, None].expand(1, 3, *size).contiguous())

        first = run(torch.tensor(COLOURS[0]))
        if first.entering is not None:
            break
    else:
        return Entering("unknown")
    colours = torch.tensor(COLOURS)
    found = _fitted(colours, run)
    if found.kind == "image":
        if _fitted(colours * BEYOND - BEYOND / 2, run).kind != "image":
            return Entering("range")
        return Entering("image", statistics=first.statistics)
    if found.kind == "other" and _by_image(model, like, size):
        return Entering("by image")
    return found


class _Reached(BaseException):
    """The first layer is reached; not an Exception, which the network's code might catch."""


class _FirstLayer(TorchDispatchMode):
    """Follows what is made of the images, up to the first layer that it enters."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        # What is made of them is kept, or something else might take its place in memory.
        self.made = {_memory(images): images}
        self.entering: Tensor | None = None
        self.statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        of_images = [x for x in given if _memory(x) in self.made]
        if not of_images:
            return func(*args, **(kwargs or {}))
        if _is_layer(func, args):
            self.entering = of_images[0].detach().clone()
            if "batch_norm" in func._schema.name:
                self.statistics = _numbers(args[3]), _numbers(args[4])
            raise _Reached
        if len(self.made) > MOST_OPERATIONS:
            raise _Reached
        made = func(*args, **(kwargs or {}))
        # Also what is written into: it is among what is given.
        written = given[:1] if func._schema.is_mutable else []
        for x in (*pytree.tree_leaves(made), *written):
            if isinstance(x, Tensor):
                self.made[_memory(x)] = x
        return made


def _run(model: nn.Module, images: Tensor) -> _FirstLayer:
    first = _FirstLayer(images)
    try:
        with torch.no_grad(), first:
            model(images)
    except _Reached:
        pass
    except Exception:
        # Of another size than the network takes; or TorchScript's interpreter, which makes its own of what ended it.
        pass
    return first


def _is_layer(func: Any, args: tuple[Any, ...]) -> bool:
    name = func._schema.name.partition("::")[2]
    if not LAYER.search(name):
        return False
    if "batch_norm" in name:  # without statistics of its own it standardises the image by itself
        return len(args) > 4 and isinstance(args[3], Tensor) and isinstance(args[4], Tensor)
    if "conv" in name and len(args) > 1 and isinstance(args[1], Tensor):
        # Three numbers to three numbers: a normalisation, written as a convolution.
        return not (args[1].ndim == 4 and args[1].shape[0] == 3 and args[1].shape[2:] == (1, 1))
    return True


def _fitted(colours: Tensor, run: Callable[[Tensor], _FirstLayer]) -> Entering:
    """How what enters depends on the colours (n, 3) of images."""
    entered = [_plain(x) for x in (run(colour).entering for colour in colours) if x is not None]
    if len(entered) < len(colours) or len({x.shape for x in entered}) > 1:
        return Entering("unknown")
    shape, values = entered[0].shape, torch.stack([x.flatten() for x in entered])
    if not values.isfinite().all():
        return Entering("other")
    known = torch.cat([colours.double(), torch.ones(len(colours), 1, dtype=torch.double)], 1)
    fit = torch.linalg.pinv(known) @ values
    tolerance = ROUNDING * values.abs().max()
    slopes = fit[:3].abs()
    largest, channel = slopes.max(0)
    depends = largest > 1e-3 * largest.max().clamp_min(1e-12)
    alone = slopes.sum(0) - largest <= 2 * ROUNDING * largest + tolerance
    usable = depends & alone & ((known @ fit - values).abs().amax(0) <= tolerance)
    factors, offsets, agreeing = [], [], 0
    for n in range(3):
        mine = fit[:, usable & (channel == n)]
        if not mine.numel():
            return Entering("other")
        factor, offset = mine[n].median(), mine[3].median()
        agreeing += int(((mine[n] - factor).abs() <= 2 * ROUNDING * factor.abs() + tolerance).sum())
        factors.append(float(factor))
        offsets.append(float(offset))
    if agreeing < MOST * int(depends.sum()):
        return Entering("other")
    bgr = len(shape) == 4 and shape[1] == 3 and _order(channel.view(shape)) == [2, 1, 0]
    if not bgr and all(abs(f - 1) < ROUNDING for f in factors) and all(abs(o) < ROUNDING for o in offsets):
        return Entering("image")
    mean = tuple(-offset / factor for factor, offset in zip(factors, offsets, strict=True))
    return Entering("affine", mean, tuple(1 / factor for factor in factors), bgr)


def _order(channel: Tensor) -> list[int]:
    """The channels of the image that most of each channel of (B, 3, h, w) is of."""
    return [int(x.flatten().mode().values) for x in channel[0]]


def _by_image(model: nn.Module, like: Tensor, size: tuple[int, int]) -> bool:
    """Whether brightness and contrast of a whole image are lost before the first layer."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(like)
    one, other = (_run(model, x).entering for x in (image, image * 0.5 + 0.25))
    if one is None or other is None or one.shape != other.shape:
        return False
    one, other = _plain(one), _plain(other)
    return bool((one - other).abs().max() <= 2 * ROUNDING * one.abs().max()) and float(one.std()) > 0


def _plain(x: Tensor) -> Tensor:
    return (x.to_dense() if x.layout is not torch.strided else x).double().cpu()


def _memory(x: Tensor) -> int:
    """The same for tensors that share their numbers."""
    try:
        return x.untyped_storage().data_ptr() or id(x)
    except (NotImplementedError, RuntimeError):
        return id(x)


def _numbers(x: Tensor) -> tuple[float, ...]:
    return tuple(x.flatten().tolist())
