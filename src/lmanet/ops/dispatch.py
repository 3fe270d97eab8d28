"""Local attention as a torch operator: one node for torch.compile and torch.export, whatever runs inside.

A new kernel is a `lmanet.ops.kernel.Kernel` in a file of its own and a line in `KERNELS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmanet.ops import tiled
from lmanet.ops.kernel import Inputs, Kernel
from lmanet.ops.layout import empty_cells, to_maps
from lmanet.ops.native import Native

KERNELS: dict[str, Kernel] = {
    "native": Native(),
    "tiled": tiled,
}
"""Kernels by name, in the order in which `auto` tries them. The last one takes everything."""


def chosen_kernel(query: Tensor) -> str:
    """The name in `KERNELS` that `auto` takes for tensors of this query's dtype and device."""
    return next(name for name, kernel in KERNELS.items() if kernel.refusal(query) is None)


def _forward(
    query: Tensor, keys: Tensor, values: Tensor, window: int, border: str, scale: float, backend: str
) -> tuple[Tensor, Tensor]:
    """Output (B, Cv, h, w) and log-sum-exp (B, h, w) of checked inputs; the latter has no gradient.

    `auto` is resolved here, when the node runs, so that an exported graph takes what its machine has.
    """
    # An operator's inside still sees the caller's autocast, which would lower the products of the scores.
    with torch.autocast(query.device.type, enabled=False):
        return _kernel(backend, query).forward(Inputs(query, keys, values, window, scale), border)


def _backward(
    gradient: Tensor,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    output: Tensor,
    log_sum: Tensor,
    window: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, keys and values, of their shapes and dtype. They have no gradient themselves."""
    with torch.autocast(query.device.type, enabled=False):
        inputs = Inputs(query, keys, values, window, scale)
        return _kernel(backend, query).backward(inputs, output, log_sum, gradient)


def _kernel(backend: str, query: Tensor) -> Kernel:
    return KERNELS[chosen_kernel(query) if backend == "auto" else backend]


def _fake_forward(query: Tensor, keys: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = values[:, 0].shape
    precise = torch.promote_types(query.dtype, torch.float32)
    return (
        to_maps(query.new_empty(batch, height, width, channels)),
        query.new_empty(batch, height, width, dtype=precise),
    )


def _fake_backward(
    gradient: Tensor, query: Tensor, keys: Tensor, values: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return to_maps(empty_cells(query)), to_maps(empty_cells(keys)), to_maps(empty_cells(values))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, keys, values, ctx.window, _, ctx.scale, ctx.backend = inputs
    ctx.save_for_backward(query, keys, values, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, gradient: Tensor, _log_sum_gradient: Tensor | None) -> tuple[Any, ...]:
    gradients = local_attention_backward(gradient, *ctx.saved_tensors, ctx.window, ctx.scale, ctx.backend)
    return *gradients, None, None, None, None


def _register(name: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Make a torch operator of a function and return it.

    What `torch.library.custom_op` does, without its wrapper, which loads all of torch's compiler at the first
    call: more than a second before the first frame.
    """
    torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(name, "CompositeExplicitAutograd", function)
    torch.library.register_fake(name, fake)
    namespace, operator = name.split("::")
    return getattr(getattr(torch.ops, namespace), operator).default


local_attention = _register("lmanet::local_attention", _forward, _fake_forward)
local_attention_backward = _register("lmanet::local_attention_backward", _backward, _fake_backward)
torch.library.register_autograd("lmanet::local_attention", _differentiate, setup_context=_save)
