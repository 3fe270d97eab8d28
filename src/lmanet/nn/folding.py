"""BatchNorm folded into the convolutions of a network that lmanet does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Set
from typing import Any

import torch
from torch import Tensor, nn

from lmanet.nn.convolution import fold_norm
from lmanet.nn.hooks import removed_after

TOLERANCE = 1e-3
"""Largest difference of the logits, relative to the largest logit, that folding may make in float32."""


@torch.no_grad()
def fold_norms_of(model: nn.Module, run: Callable[[], Tensor], before: Set[nn.Module] = frozenset()) -> None:
    """Fold each BatchNorm of a network into the convolution whose output it takes, in place; in `eval` mode.

    Only pairs that are called once each and directly one after the other are folded. That nothing else uses what is
    between them cannot be seen from outside: where the logits are not the same afterwards, all is put back.

    Args:
        model: the network.
        run: runs it on some images and returns logits.
        before: modules that run before a cut: none of them is folded with one that runs after it, so that what goes
            from one side to the other stays the same.
    """
    expected = run()
    pairs = [pair for pair in _pairs(model, run) if len({module in before for module in pair}) == 1]
    names = {module: name for name, module in model.named_modules()}
    unfolded = [(norm, convolution, convolution.weight, convolution.bias) for convolution, norm in pairs]
    for convolution, norm in pairs:
        fold_norm(convolution, norm)
        _set(model, names[norm], _without_norm(norm))
    difference = (run() - expected).abs().max()
    if not difference <= TOLERANCE * expected.abs().max():
        for norm, convolution, weight, bias in unfolded:
            convolution.weight, convolution.bias = weight, bias
            _set(model, names[norm], norm)


def _pairs(model: nn.Module, run: Callable[[], Tensor]) -> list[tuple[Any, nn.BatchNorm2d]]:
    """Convolutions and the BatchNorm that takes the output of each."""
    calls: Counter[nn.Module] = Counter()
    pairs: list[tuple[Any, nn.BatchNorm2d]] = []
    # By identity; the tensor is held, or another could take its id.
    made: dict[int, tuple[nn.Module, Tensor]] = {}

    def convolved(module: nn.Module, _: Any, out: Tensor) -> None:
        calls[module] += 1
        made[id(out)] = (module, out)

    def normed(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        if id(inputs[0]) in made and isinstance(module, nn.BatchNorm2d):
            pairs.append((made[id(inputs[0])][0], module))

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            hooks.append(module.register_forward_hook(convolved))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(normed))
    with removed_after(hooks):
        run()
    return [
        (convolution, norm)
        for convolution, norm in pairs
        if calls[convolution] == calls[norm] == 1 and _foldable(convolution, norm)
    ]


def _foldable(convolution: nn.Module, norm: nn.BatchNorm2d) -> bool:
    plain = type(norm) is nn.BatchNorm2d or (hasattr(norm, "drop") and hasattr(norm, "act"))
    # A weight that is made anew in each call (weight_norm, pruning), or what a hook looks at, cannot be replaced.
    hooks = (m._forward_hooks or m._forward_pre_hooks for m in (convolution, norm))
    if "weight" not in convolution._parameters or any(hooks):
        return False
    # Of a grouped transposed convolution the weights lie otherwise.
    return plain and not (isinstance(convolution, nn.ConvTranspose2d) and convolution.groups > 1)


def _without_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a BatchNorm: nothing, or in timm's the activation that is part of it."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    return nn.Sequential(norm.drop, norm.act)  # pyright: ignore[reportArgumentType]


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
