"""What enters the first layer of a network: the image as it was given, or what the network's own code made of it.

No name is looked at: the network runs on images of one colour each until the first layer is reached, and what enters
there is compared with the colours. So it works alike for modules, code between them, TorchScript and exported graphs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from lmanet.nn.place import place_of

LAYER = re.compile(r"(^|_)(conv(?!ert)|linear|addmm|baddbmm|bmm|mm|matmul|batch_norm|quantize|to_mkldnn)")
"""Names of operations that have weights, or that pack an image for one that has."""
MOST_OPERATIONS = 200
"""Before the first layer; where there are more, it is of a kind that is not known."""
MOST_ENTRANCES = 6
"""Layers that images enter directly, of which one may be given normalised ones."""
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
"""Of what is made of one channel, the share that must be one function of it; the rest is a border."""
BESIDE = 0.4
"""Of what enters, the share that must be made of one channel."""


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
    for size, tracked in product(sizes, (True, False)):

        def run(
            colour: Tensor, number: int = 0, size: tuple[int, int] = size, tracked: bool = tracked
        ) -> _FirstLayer:
            images = colour.to(like)[None, :, None, None].expand(1, 3, *size).contiguous()
            return _run(model, images, number, tracked)

        first = run(torch.tensor(COLOURS[0]))
        if first.entering is not None:
            found = _fitted(torch.tensor(COLOURS), run)
            # What cannot be followed may be anything: then only what is clear counts.
            if tracked or found.kind in ("image", "affine"):
                return _looked_at_closely(model, found, first, run, size)
    return Entering("unknown")


def _looked_at_closely(
    model: nn.Module,
    found: Entering,
    first: _FirstLayer,
    run: Callable[..., _FirstLayer],
    size: tuple[int, int],
) -> Entering:
    """What was found with images of usual colours, tried with others too, and at the other layers that they enter."""
    colours = torch.tensor(COLOURS)
    if found.kind == "image":
        if _fitted(colours * BEYOND - BEYOND / 2, run).kind != "image":
            return Entering("range")
        for number in range(1, MOST_ENTRANCES):
            at = partial(run, number=number)
            if at(colours[0]).entering is None:
                break
            if (other := _fitted(colours, at)).kind == "affine":
                return other
        return Entering("image", statistics=first.statistics)
    if found.kind == "other" and _by_image(model, place_of(model), size):
        return Entering("by image")
    return found


class _Reached(BaseException):
    """The first layer is reached; not an Exception, which the network's code might catch."""


class _FirstLayer(TorchDispatchMode):
    """Follows what is made of the images, up to a layer that it enters.

    Args:
        images: (B, 3, H, W).
        number: how many layers are passed before, which images enter by ways that do not lead through one another.
        tracked: whether what enters must be made of the images by operations of PyTorch; what was NumPy's or Pillow's
            in between cannot be followed.
    """

    def __init__(self, images: Tensor, number: int, tracked: bool) -> None:
        super().__init__()
        # What is made of them is kept, or something else might take its place in memory.
        self.made = {_memory(images): images}
        self.behind: dict[int, Tensor] = {}
        """What layers made."""
        self.left, self.tracked = number, tracked
        self.entering: Tensor | None = None
        self.statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        behind = any(_memory(x) in self.behind for x in given)
        of_images = [x for x in given if _memory(x) in self.made and not behind]
        layer = _is_layer(func, args)
        if layer and not self.tracked:
            of_images = [args[1 if "add" in func._schema.name else 0]]
        if not of_images and not behind:
            return func(*args, **(kwargs or {}))
        if layer and of_images:
            if not self.left:
                self._reach(func, args, of_images[0])
            self.left -= 1
        if len(self.made) > MOST_OPERATIONS:
            raise _Reached
        made = func(*args, **(kwargs or {}))
        # Also what is written into: it is among what is given.
        written = given[:1] if func._schema.is_mutable else []
        for x in (*pytree.tree_leaves(made), *written):
            if isinstance(x, Tensor):
                (self.behind if behind or layer else self.made)[_memory(x)] = x
        return made

    def _reach(self, func: Any, args: tuple[Any, ...], entering: Tensor) -> NoReturn:
        self.entering = entering.detach().clone()
        if "batch_norm" in func._schema.name:
            self.statistics = _numbers(args[3]), _numbers(args[4])
        raise _Reached


def _run(model: nn.Module, images: Tensor, number: int = 0, tracked: bool = True) -> _FirstLayer:
    first = _FirstLayer(images, number, tracked)
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
        return not _is_of_colours(args[1])
    return True


def _is_of_colours(weight: Tensor) -> bool:
    """Whether a convolution from three channels to three is a normalisation, a change of colours or a blur."""
    if weight.ndim != 4 or weight.shape[0] != 3 or weight.shape[1] not in (1, 3):
        return False
    learned = isinstance(weight, nn.Parameter)
    numbers = weight.detach().float()
    if weight.shape[2:] == (1, 1):
        largest = numbers.abs().amax(1)
        each_alone = bool((numbers.abs().sum(1) - largest <= 2 * ROUNDING * largest).all())
        return each_alone or not learned
    each_sum = numbers.sum((1, 2, 3))
    return not learned and weight.shape[1] == 1 and bool(((each_sum - 1).abs() < ROUNDING).all())


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
    # What is made of several channels may come beside the image: grey, differences.
    if agreeing < MOST * int(usable.sum()) or int(usable.sum()) < BESIDE * int(depends.sum()):
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
