"""Other ways to compute local attention, and the global attention that it replaces, to compare the kernels with.

All of them leave places outside the map out of the softmax (border `mask`) and do not scale the scores.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmanet.ops import global_attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Query (B, Ck, h, w), keys (B, S, Ck, h, w) and values (B, S, Cv, h, w) to the output (B, Cv, h, w)."""


def _never() -> None:
    return None


def _no_sampler() -> str | None:
    if importlib.util.find_spec("spatial_correlation_sampler") is None:
        return "the package spatial-correlation-sampler is not installed"
    return None


def _no_compiler() -> str | None:
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        return "torch.compile needs a C++ compiler when it runs, and finds none"
    return None


@dataclass(frozen=True)
class Peer:
    """A way to compute attention.

    Attributes:
        build: for a window, and query, keys and values of the shapes to come, what computes it.
        scratch: number of elements that it holds at once besides inputs and output, roughly, from query, keys,
            values, window and whether a backward pass follows.
        refusal: why it cannot run on this machine; None if it can.
        no_gradients: why it cannot be differentiated on a CPU; None if it can.
        every_dtype: whether it takes bfloat16 too.
        sees_all: it reads the whole map, whatever the window.
    """

    build: Callable[[int, Tensor, Tensor, Tensor], Attend]
    scratch: Callable[[Tensor, Tensor, Tensor, int, bool], int]
    refusal: Callable[[], str | None] = _never
    no_gradients: str | None = None
    every_dtype: bool = True
    sees_all: bool = False


def unfold(query: Tensor, keys: Tensor, values: Tensor, *, window: int) -> Tensor:
    """Gather the window of every cell with `F.unfold`, a frame at a time."""
    batch, _, height, width = query.shape

    def windows(cells: Tensor) -> Tensor:
        gathered = F.unfold(cells, window, padding=window // 2)
        return gathered.view(batch, cells.shape[1], window**2, height, width)

    # Products and sums: einsum makes a matrix product of each cell's, far slower on a CPU.
    scores = torch.stack([(query.unsqueeze(2) * windows(key)).sum(1) for key in keys.unbind(1)], 1)
    weights = scores.masked_fill(~_on_map(query, window), -torch.inf).flatten(1, 2).softmax(1)
    by_frame = weights.view_as(scores).unbind(1)
    frames = zip(by_frame, values.unbind(1), strict=True)
    return torch.stack([(weight.unsqueeze(1) * windows(value)).sum(2) for weight, value in frames]).sum(0)


def shifted_loop(query: Tensor, keys: Tensor, values: Tensor, *, window: int) -> Tensor:
    """Loop over the shifts of the window twice, first for the scores, then for the values. Nothing is gathered."""
    padded = F.pad(keys, [window // 2] * 4)
    height, width = query.shape[-2:]
    # Stacked a row of shifts at a time: small tensors that stay among large ones that go would scatter the heap.
    rows = [
        torch.stack(
            [(query.unsqueeze(1) * padded[..., y : y + height, x : x + width]).sum(2) for x in range(window)],
            2,
        )
        for y in range(window)
    ]
    return _softmax_and_read(torch.cat(rows, 2), values, window)


def correlation_sampler(query: Tensor, keys: Tensor, values: Tensor, *, window: int) -> Tensor:
    """The scores by PyPI's spatial-correlation-sampler, the values by the shifted loop."""
    from spatial_correlation_sampler import (  # pyright: ignore[reportMissingImports]
        spatial_correlation_sample,
    )

    scores = [spatial_correlation_sample(query, key, patch_size=window) for key in keys.unbind(1)]
    return _softmax_and_read(torch.stack(scores, 1).flatten(2, 3), values, window)


def global_products(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Global attention with the scores of all pairs in memory, as the paper's comparison has them."""
    batch, channels, height, width = values.shape[0], *values.shape[2:]
    scores = query.flatten(2).transpose(1, 2) @ keys.transpose(1, 2).flatten(2)
    read = values.transpose(1, 2).flatten(2) @ scores.softmax(2).transpose(1, 2)
    return read.view(batch, channels, height, width)


def compiled_flex(window: int, query: Tensor, keys: Tensor, values: Tensor) -> Attend:
    """FlexAttention with its block mask, both compiled; mask and compilation are made here, once."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    # Each shape compiles anew; what was compiled for others would count against torch's limit.
    torch.compiler.reset()
    batch, size, channels, height, width = values.shape
    cells, radius = height * width, window // 2

    def seen(_batch: Tensor, _head: Tensor, place: Tensor, other: Tensor) -> Tensor:
        cell = other % cells
        rows, columns = cell // width - place // width, cell % width - place % width
        return (rows.abs() <= radius) & (columns.abs() <= radius)

    make_mask: Callable[..., Any] = torch.compile(create_block_mask)
    mask = make_mask(seen, None, None, cells, size * cells, device=str(query.device))
    compiled: Callable[..., Any] = torch.compile(flex_attention)

    def flat(frames: Tensor) -> Tensor:
        return frames.movedim(2, -1).reshape(batch, 1, -1, frames.shape[2])

    def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        output = compiled(flat(query[:, None]), flat(keys), flat(values), block_mask=mask, scale=1.0)
        return output.reshape(batch, height, width, channels).permute(0, 3, 1, 2)

    with torch.no_grad():
        attend(query, keys, values)
    return attend


PEERS: dict[str, Peer] = {
    "unfold": Peer(
        lambda window, *_: partial(unfold, window=window),
        # A frame's windows and their products; backward keeps those of all frames.
        lambda q, k, v, window, backward: (
            window**2
            * q[:, 0].numel()
            * (2 * v.shape[2] + 2 * k.shape[1] + (k.shape[1] * (k.shape[2] + v.shape[2]) if backward else 0))
        ),
    ),
    "shifted loop": Peer(
        lambda window, *_: partial(shifted_loop, window=window),
        # The scores as made, stacked, masked, and after the softmax.
        lambda q, k, v, window, backward: window**2 * k[:, :, 0].numel() * (6 if backward else 4),
    ),
    "correlation sampler": Peer(
        lambda window, *_: partial(correlation_sampler, window=window),
        lambda q, k, v, window, backward: window**2 * k[:, :, 0].numel() * (6 if backward else 4),
        refusal=_no_sampler,
        no_gradients="its gradients use what PyTorch deprecates",
        every_dtype=False,
    ),
    "compiled FlexAttention": Peer(
        compiled_flex,
        lambda *_: 0,
        refusal=_no_compiler,
        no_gradients="FlexAttention has no gradients on a CPU",
    ),
    "global attention (SDPA)": Peer(
        lambda *_: partial(global_attention, scale=1.0), lambda *_: 0, sees_all=True
    ),
    "global attention (products)": Peer(
        lambda *_: global_products,
        # The scores and their softmax; backward also the gradients of both.
        lambda q, k, v, window, backward: q[:, 0].numel() * k[:, :, 0].numel() * (4 if backward else 2),
        sees_all=True,
    ),
}
"""What is compared with the kernels of `lmanet.ops`, by name. The backends `reference` and `flex` are left out:
`unfold` and compiled FlexAttention are the same at their best."""


def _softmax_and_read(scores: Tensor, values: Tensor, window: int) -> Tensor:
    """Values (B, S, Cv, h, w) summed by the softmax of scores (B, S, R², h, w), a shift at a time."""
    batch, _, channels, height, width = values.shape
    inside = scores.masked_fill(~_on_map(values, window), -torch.inf)
    weights = inside.flatten(1, 2).softmax(1).view_as(scores)
    # Unbound, not indexed: the gradient of each index would be as large as all it was taken from.
    padded = F.pad(values, [window // 2] * 4).unbind(1)
    output = values.new_zeros(batch, channels, height, width)
    for n, by_frame in enumerate(weights.unbind(2)):
        y, x = divmod(n, window)
        for frame, weight in zip(padded, by_frame.unbind(1), strict=True):
            output.addcmul_(weight.unsqueeze(1), frame[..., y : y + height, x : x + width])
    return output


def _on_map(cells: Tensor, window: int) -> Tensor:
    """(R², h, w) bool: which places of each cell's window lie on the map."""
    height, width = cells.shape[-2:]

    def axis(length: int) -> Tensor:
        places = torch.arange(length) + torch.arange(window)[:, None] - window // 2
        return (places >= 0) & (places < length)

    rows, columns = axis(height), axis(width)
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)
