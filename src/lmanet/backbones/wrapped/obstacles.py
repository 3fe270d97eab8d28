"""Why a network cannot be cut in two, where that is not a matter of the place."""

from __future__ import annotations

import torch
from torch import nn

from lmanet.backbones.wrapped.probing import Probe, in_eval_mode
from lmanet.backbones.wrapped.unwrapping import is_quantised, kind_of_graph
from lmanet.errors import InputError

ADVICE = "or choose single-frame or flow-average, which need no cut"


def check_kind(model: nn.Module) -> None:
    """Raise InputError, by `obstacle`'s message, where a network by its kind has no submodules to be cut behind."""
    if (kind := kind_of_graph(model)) is not None:
        raise InputError(_of_graph(kind))


def obstacle(model: nn.Module, probe: Probe) -> str | None:
    """Why a network that runs cannot be cut in two anywhere, for an error; None where nothing is known.

    Args:
        model: that was tried to be cut.
        probe: what was found out about it.
    """
    name = type(model).__name__
    if len(probe.images) == 1:
        return f"{name} takes one image at a time, and to be cut in two it must take several: change that, {ADVICE}"
    if any(map(is_quantised, model.modules())):
        return (
            f"the quantised network {name} cannot be cut in two, as it has no gradients by which it is found out what "
            f"its logits depend on: give the network as it was before, {ADVICE}"
        )
    kind = next((kind for kind in map(kind_of_graph, model.modules()) if kind is not None), None)
    if kind is not None:
        return f"within {name}, {_of_graph(kind)}"
    if not _has_gradients(model, probe):
        return (
            f"{name} runs without gradients (torch.no_grad, torch.inference_mode or detach in its forward), by which "
            f"it is found out what its logits depend on, so it cannot be cut in two: take that out of its forward, "
            f"{ADVICE}"
        )
    return None


def _of_graph(kind: str) -> str:
    return f"{kind} cannot be cut in two: give the Python module that it was made of, {ADVICE}"


def _has_gradients(model: nn.Module, probe: Probe) -> bool:
    """Whether what a network returns has a gradient for the images."""
    with in_eval_mode(model), torch.inference_mode(False), torch.enable_grad():
        try:
            returned = model(probe.images.clone().requires_grad_().clone())
        except RuntimeError:  # it writes where gradients forbid it
            return True
        return probe.outputs.map_of(returned).requires_grad
