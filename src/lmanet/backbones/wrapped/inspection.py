"""Where a network can be cut, and where it is best."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import log2
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from lmanet.backbones.wrapped.layout import is_map, key_of
from lmanet.backbones.wrapped.network import Wrapped
from lmanet.backbones.wrapped.obstacles import check_kind, obstacle
from lmanet.backbones.wrapped.outputs import Outputs
from lmanet.backbones.wrapped.probing import Probe, find_probe, gradients, in_eval_mode
from lmanet.backbones.wrapped.unwrapping import called_by_python, unwrapped
from lmanet.errors import InputError
from lmanet.nn.hooks import removed_after

BEST_STRIDE = 8
"""The paper's: finer maps make the memory slow, in coarser ones small things are lost."""
USUAL_CHANNELS = (64, 512)
COST_OF_A_BYPASS = 0.05
TRIES = 8


@dataclass(frozen=True)
class Candidate:
    """A submodule that a network can be cut behind.

    Attributes:
        at: its name.
        entry: of its output, where that is a list, tuple or dict.
        channels: of the map.
        stride: pixels per cell of the map.
        gmacs_before: multiplications and additions (10⁹ pairs) per megapixel up to the map.
        gmacs_after: the same from there on.
        rectified: whether the map has no negative values, as what a fusion gives has none.
    """

    at: str
    entry: int | str | None
    channels: int
    stride: int
    gmacs_before: float
    gmacs_after: float
    rectified: bool

    @property
    def share_before(self) -> float:
        """Share of the network's multiplications that comes before the cut."""
        return self.gmacs_before / (self.gmacs_before + self.gmacs_after)

    @property
    def merit(self) -> float:
        """What the default is chosen by: late in the network, near stride 8, of a usual width, rectified."""
        few, many = USUAL_CHANNELS
        octaves = log2(self.stride / BEST_STRIDE)
        off_width = max(0.0, log2(few / self.channels), log2(self.channels / many))
        return self.share_before + 0.1 * self.rectified - 0.1 * off_width - max(0.3 * octaves, -0.4 * octaves)


def cut_where_best(model: nn.Module, **options: Any) -> Wrapped:
    """A network cut behind the candidate of most merit, less a little for each further map that goes around the cut.

    Args:
        model: as `lmanet.wrap` takes it.
        options: further arguments of `Wrapped`.

    Raises:
        InputError: it cannot be cut anywhere.
    """
    return best_cut(
        model, inspect(model, probe=options.get("probe"), output=options.get("output")), **options
    )[0]


def best_cut(
    model: nn.Module, candidates: list[Candidate], **options: Any
) -> tuple[Wrapped, dict[Candidate, int]]:
    """Where a network is cut best, among known candidates, and how many maps go around each cut that was tried.

    Args:
        model: as `cut_where_best` takes it.
        candidates: what `inspect` listed.
        options: as `cut_where_best` takes them.
    """
    best, best_merit, failure = None, float("-inf"), None
    around: dict[Candidate, int] = {}
    # Of equals the later one.
    for candidate in sorted(candidates[::-1], key=lambda c: -c.merit)[:TRIES]:
        if candidate.merit <= best_merit:
            break
        try:
            wrapped = Wrapped(model, at=candidate.at, entry=candidate.entry, **options)
        except InputError as error:
            failure = error
            continue
        around[candidate] = wrapped.bypasses
        merit = candidate.merit - COST_OF_A_BYPASS * wrapped.bypasses
        if merit > best_merit:
            best, best_merit = wrapped, merit
    if best is None:
        raise InputError(
            f"no place to cut {type(model).__name__} at was found; the last one tried: {failure}"
        )
    return best, around


def inspect(
    model: nn.Module, *, probe: tuple[int, int] | Probe | None = None, output: str | int | None = None
) -> list[Candidate]:
    """Where a network can be cut: submodules called once that return a map which the logits depend on, in call order.

    Args:
        model: as `lmanet.wrap` takes it.
        probe: (H, W) of images that it takes, if it does not take the usual ones; or what was found out about it.
        output: key or index of the logits among what it returns, if that does not tell by itself.

    Raises:
        InputError: the model does not run, or does not return logits.
    """
    model = unwrapped(model)
    check_kind(model)
    with in_eval_mode(model):
        tried = find_probe(model, probe, output=output)
        # One that takes a single image at a time cannot be cut anywhere.
        candidates = _candidates(model, tried) if len(tried.images) > 1 else []
    if candidates:
        return candidates
    raise InputError(
        obstacle(model, tried)
        or f"{type(model).__name__} has no submodule that is called once and returns a map (B, C, h, w) before the "
        f"logits: it cannot be cut"
    )


def _candidates(model: nn.Module, tried: Probe) -> list[Candidate]:
    images = tried.images[:1]
    found, logits, total = _trace(model, images, tried.outputs)
    grads = gradients(logits, [x.value for x in found])
    names = {module: name for name, module in model.named_modules()}
    height, width = images.shape[-2:]

    def gmacs(flops: float) -> float:
        return flops / 2e9 / (height * width / 1e6)

    candidates = []
    for x, grad in zip(found, grads, strict=True):
        batch, channels, rows, columns = x.value.shape
        stride = round(height / rows)
        fits = batch == 1 and stride == round(width / columns) >= 1 and channels != logits.shape[1]
        if grad is not None and fits and 0 < x.flops < total:
            costs = gmacs(x.flops), gmacs(total - x.flops)
            candidates.append(Candidate(names[x.module], x.entry, channels, stride, *costs, x.rectified))
    return candidates


@dataclass(frozen=True)
class _Found:
    module: nn.Module
    entry: int | str | None
    value: Tensor
    flops: float
    rectified: bool


def _trace(model: nn.Module, images: Tensor, outputs: Outputs) -> tuple[list[_Found], Tensor, float]:
    """Every map that a submodule called once returns, in call order; what logits are made of; the operations in all."""
    calls: Counter[nn.Module] = Counter()
    found: dict[int, _Found] = {}
    counter = FlopCounterMode(display=False)

    def leave(module: nn.Module, _: Any, out: Any) -> None:
        calls[module] += 1
        for path, value in pytree.tree_flatten_with_path(out)[0]:
            if is_map(value) and value.requires_grad and len(path) < 2:
                entry = key_of(path[0]) if path else None
                # The same map again: of an outer module, or of one that does nothing in `eval` mode.
                before = found.pop(id(value), None)
                if before is not None and path:
                    found[id(value)] = before
                else:
                    flops, rectified = counter.get_total_flops(), bool((value >= 0).all())
                    found[id(value)] = _Found(module, entry, value, flops, rectified)

    hooks = [m.register_forward_hook(leave) for m in called_by_python(model)]
    with removed_after(hooks), torch.inference_mode(False), torch.enable_grad(), counter:
        logits = outputs.map_of(model(images.clone().requires_grad_().clone()))
    return [x for x in found.values() if calls[x.module] == 1], logits, counter.get_total_flops()
