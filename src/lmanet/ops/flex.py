"""Local attention through torch's FlexAttention, meant for CUDA.

On a GPU the call is compiled to one fused kernel; that path has never been run, as the project's tests have
had no GPU so far. On a CPU it runs uncompiled, with the scores of the whole map in memory, and forward only
(FlexAttention has no backward there): good for comparing on small maps and nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmanet.errors import InputError

NEEDS_CUDA_FOR_GRADIENTS = "FlexAttention has no gradients on a CPU: use torch.no_grad() or backend='tiled'"


LEAST_CHANNELS = 16
"""What its kernels on a GPU take: fewer are filled up with zeros, which change no score."""

MASKS_KEPT = 8
"""To make one, all pairs of places are looked at: it takes longer than the attention itself."""


def local_attention(
    query: Tensor, keys: Tensor, values: Tensor, *, window: int, border: str, scale: float
) -> Tensor:
    """Local attention (equations 2 and 3 of the paper), of checked inputs.

    Args:
        query: (B, Ck, h, w), float32, bfloat16, float16 or float64.
        keys: (B, S, Ck, h, w), the query's dtype and device.
        values: (B, S, Cv, h, w), the query's dtype and device.
        window: R, the side of the square window in cells, odd.
        border: `mask` leaves positions outside the map out of the softmax; `zero` keeps them with score 0 and
            value 0.
        scale: factor on the scores.

    Returns:
        (B, Cv, h, w) in the query's dtype.

    Raises:
        InputError: gradients are wanted on a CPU.
    """
    # Imported here because it loads torch's compiler, which `import lmanet` should not.
    from torch.nn.attention.flex_attention import flex_attention

    on_cpu = query.device.type == "cpu"
    if on_cpu and torch.is_grad_enabled() and any(x.requires_grad for x in (query, keys, values)):
        raise InputError(NEEDS_CUDA_FOR_GRADIENTS)
    batch, size, channels, height, width = values.shape
    margin = window // 2 if border == "zero" else 0
    if on_cpu:  # FlexAttention refuses on requires_grad alone, even in no_grad
        query, keys, values = query.detach(), keys.detach(), values.detach()
    flat_query = _flatten(query.unsqueeze(1), 0)
    flat_keys, flat_values = _flatten(keys, margin), _flatten(values, margin)

    if not on_cpu:
        flat_query, flat_keys, flat_values = map(_widened, (flat_query, flat_keys, flat_values))
    # Kept masks are real ones: not those of a graph that is being made.
    make_mask = _mask.__wrapped__ if torch.compiler.is_compiling() else _mask
    mask = make_mask(window, margin, size, height, width, query.device)
    # The GPU's kernels add up in float32; float64, for comparing on small maps, is computed as on a CPU.
    attend = flex_attention if on_cpu or query.dtype == torch.float64 else _compiled(flex_attention)
    with warnings.catch_warnings():
        # Uncompiled it is what the module says it is.
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        output = attend(flat_query, flat_keys, flat_values, block_mask=mask, scale=scale)
    return output[..., :channels].squeeze(1).transpose(1, 2).reshape(batch, channels, height, width)


@cache
def _compiled(attend: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(attend, dynamic=False)


@lru_cache(maxsize=MASKS_KEPT)
def _mask(window: int, margin: int, size: int, height: int, width: int, device: torch.device) -> Any:
    """Which places the cells of a map see, in S frames with a margin around each."""
    from torch.nn.attention.flex_attention import create_block_mask

    key_rows, key_columns = height + 2 * margin, width + 2 * margin

    def seen(_batch: Tensor, _head: Tensor, query_index: Tensor, key_index: Tensor) -> Tensor:
        cell = key_index % (key_rows * key_columns)
        rows = cell // key_columns - margin - query_index // width
        columns = cell % key_columns - margin - query_index % width
        return (rows.abs() <= window // 2) & (columns.abs() <= window // 2)

    # Kept, it may serve a training next, which cannot save tensors of an inference for its backward pass.
    with torch.inference_mode(False):
        return create_block_mask(
            seen, None, None, height * width, size * key_rows * key_columns, device=device
        )


def _widened(flat: Tensor) -> Tensor:
    return F.pad(flat, [0, max(0, LEAST_CHANNELS - flat.shape[-1])])


def _flatten(cells: Tensor, margin: int) -> Tensor:
    """(B, S, C, h, w) as (B, 1, S·cells, C), with a margin of zeros around each frame."""
    padded = F.pad(cells, [margin] * 4)
    return padded.permute(0, 1, 3, 4, 2).reshape(cells.shape[0], 1, -1, cells.shape[2])
