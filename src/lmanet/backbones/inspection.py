"""Where a network can be cut, and where it is best."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from lmanet.backbones.wrapped import Wrapped, find_probe, in_eval_mode, key_of, logits_of
from lmanet.errors import InputError

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
    best, best_merit, failure = None, float("-inf"), None
    for candidate in sorted(inspect(model, probe=options.get("probe"))[::-1], key=lambda c: -c.merit)[:TRIES]:
        if candidate.merit <= best_merit:
            break
        try:
            wrapped = Wrapped(model, at=candidate.at, entry=candidate.entry, **options)
        except InputError as error:
            failure = error
            continue
        merit = candidate.merit - COST_OF_A_BYPASS * wrapped.bypasses
        if merit > best_merit:
            best, best_merit = wrapped, merit
    if best is None:
        raise InputError(
            f"no place to cut {type(model).__name__} at was found; the last one tried: {failure}"
        )
    return best


def inspect(model: nn.Module, *, probe: tuple[int, int] | None = None) -> list[Candidate]:
    """Where a network can be cut: submodules called once that return a map which the logits depend on, in call order.

    Args:
        model: as `lmanet.wrap` takes it.
        probe: (H, W) of images that it takes, if it does not take the usual ones.

    Raises:
        InputError: the model does not run, or does not return logits.
    """
    with in_eval_mode(model):
        images, _ = find_probe(model, probe)
        images = images[:1]
        names = {module: name for name, module in model.named_modules()}
        calls: dict[nn.Module, int] = {}
        found: dict[int, tuple[nn.Module, Any, Tensor, float, bool]] = {}
        counter = FlopCounterMode(display=False)

        def leave(module: nn.Module, _: Any, out: Any) -> None:
            calls[module] = calls.get(module, 0) + 1
            for path, value in pytree.tree_flatten_with_path(out)[0]:
                if isinstance(value, Tensor) and value.ndim == 4 and value.requires_grad and len(path) < 2:
                    entry = key_of(path[0]) if path else None
                    # The same map again: of an outer module, or of one that does nothing in `eval` mode.
                    before = found.pop(id(value), None)
                    if before is not None and path:
                        module, entry, flops = before[0], before[1], before[3]
                    else:
                        flops = counter.get_total_flops()
                    found[id(value)] = (module, entry, value, flops, bool((value >= 0).all()))

        hooks = [m.register_forward_hook(leave) for m in model.modules() if m is not model]
        try:
            with counter:
                logits = logits_of(model(images.requires_grad_()))
        finally:
            for hook in hooks:
                hook.remove()
        maps = [value for _, _, value, _, _ in found.values()]
        grads = torch.autograd.grad(logits.sum(), maps, allow_unused=True) if maps else ()
        total, megapixels = counter.get_total_flops(), images.shape[-2] * images.shape[-1] / 1e6

    def gmacs(flops: float) -> float:
        return flops / 2e9 / megapixels

    candidates = []
    for (module, entry, value, flops, rectified), grad in zip(found.values(), grads, strict=True):
        stride = round(images.shape[-2] / value.shape[-2])
        is_map = len(value) == 1 and stride == round(images.shape[-1] / value.shape[-1]) >= 1
        if (
            grad is not None
            and calls[module] == 1
            and is_map
            and 0 < flops < total
            and value.shape[1] != logits.shape[1]
        ):
            candidates.append(
                Candidate(
                    names[module],
                    entry,
                    value.shape[1],
                    stride,
                    gmacs(flops),
                    gmacs(total - flops),
                    rectified,
                )
            )
    if not candidates:
        raise InputError(
            f"{type(model).__name__} has no submodule that is called once and returns a map (B, C, h, w) before the "
            f"logits of {logits.shape[1]} classes: it cannot be cut"
        )
    return candidates
