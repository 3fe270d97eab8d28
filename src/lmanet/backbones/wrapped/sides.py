"""What the logits need of what comes before the cut, and which modules run on which side of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmanet.backbones.wrapped.cut import run_after
from lmanet.backbones.wrapped.layout import Layout
from lmanet.backbones.wrapped.outputs import Outputs
from lmanet.backbones.wrapped.probing import gradients


@torch.enable_grad()
def what_logits_need(
    model: nn.Module,
    early: list[nn.Module],
    made: list[Any],
    layout: Layout,
    images: Tensor,
    outputs: Outputs,
) -> tuple[tuple[int, ...], set[nn.Parameter]]:
    """What has a part in the logits from the cut on: what a gradient reaches.

    Returns:
        The numbers of leaves of what the early calls made, those among them that cannot have a gradient (whole
        numbers, booleans); and the parameters, those among them that want no gradient.
    """
    tensors = {n: x for n, x in enumerate(made) if isinstance(x, Tensor)}
    fixed = {n for n, x in tensors.items() if not x.is_floating_point()}
    leaves = {n: x.detach().requires_grad_() for n, x in tensors.items() if n not in fixed}
    # Not the leaves themselves: the network may write into its maps.
    values = [leaves[n].clone() if n in leaves else x for n, x in enumerate(made)]
    logits = outputs(run_after(model, early, pytree.tree_unflatten(values, layout.spec), images))
    trained = [p for p in model.parameters() if p.requires_grad]
    grads = gradients(logits, [*leaves.values(), *trained])
    reached = {n for n, grad in zip(leaves, grads, strict=False) if grad is not None}
    used = {p for p, grad in zip(trained, grads[len(leaves) :], strict=True) if grad is not None}
    return tuple(sorted(fixed | reached)), used | {p for p in model.parameters() if not p.requires_grad}


def parts_of(
    model: nn.Module, early: set[nn.Module], late: set[nn.Module], used: set[nn.Parameter]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the modules that encode and of those that decode; what does both, or neither, counts as encoding."""
    before = {inner for module in early for inner in module.modules()}
    encoder: list[str] = []
    decoder: list[str] = []

    def sort(name: str, module: nn.Module) -> None:
        inside = set(module.modules())
        if not inside & late or inside <= before:
            encoder.append(name)
        elif module in late and not inside & before and used.issuperset(module.parameters()):
            decoder.append(name)
        else:
            for child_name, child in module.named_children():
                sort(f"{name}.{child_name}", child)

    for name, child in model.named_children():
        sort(f"model.{name}", child)
    return tuple(encoder), tuple(decoder)
