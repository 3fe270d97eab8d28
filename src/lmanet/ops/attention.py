"""Attention over a memory of frames: the public functions, and the choice of a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lmanet.errors import InputError
from lmanet.ops import reference, tiled

Border = Literal["mask", "zero"]
Backend = Literal["auto", "reference", "tiled", "flex"]


def local_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    window: int,
    border: Border = "mask",
    scale: float = 1.0,
    backend: Backend = "auto",
) -> Tensor:
    if backend == "reference":
        return reference.local_attention(query, keys, values, window=window, border=border, scale=scale)
    return _local_attention(query, keys, values, window, border, scale, "tiled")[0]


@torch.library.custom_op("lmanet::local_attention", mutates_args=())
def _local_attention(
    query: Tensor, keys: Tensor, values: Tensor, window: int, border: str, scale: float, backend: str
) -> tuple[Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        return tiled.forward(query, keys, values, window=window, border=border, scale=scale)


@torch.library.custom_op("lmanet::local_attention_backward", mutates_args=())
def _local_attention_backward(
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
    with torch.autocast(query.device.type, enabled=False):
        return tiled.backward(gradient, query, keys, values, output, log_sum, window=window, scale=scale)


@_local_attention.register_fake
def _(query, keys, values, window, border, scale, backend):
    b, _, c, h, w = values.shape
    dt = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(b, c, h, w), query.new_empty(b, h, w, dtype=dt)


@_local_attention_backward.register_fake
def _(gradient, query, keys, values, output, log_sum, window, scale, backend):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (query, keys, values))


def _setup(ctx, inputs, output):
    query, keys, values, ctx.window, _, ctx.scale, ctx.backend = inputs
    ctx.save_for_backward(query, keys, values, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, gradient, _):
    g = _local_attention_backward(gradient, *ctx.saved_tensors, ctx.window, ctx.scale, ctx.backend)
    return *g, None, None, None, None


_local_attention.register_autograd(_backward, setup_context=_setup)
