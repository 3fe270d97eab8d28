"""Local attention as its definition says it, for comparison: every other backend is tested against this.

It gathers the whole window of every cell and so needs S·R² times the memory of one map: small inputs only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def local_attention(
    query: Tensor, keys: Tensor, values: Tensor, *, window: int, border: str, scale: float
) -> Tensor:
    """Local attention (equations 2 and 3 of the paper) of checked inputs, differentiable through autograd.

    Args:
        query: (B, Ck, h, w), float32, bfloat16, float16 or float64.
        keys: (B, S, Ck, h, w), the query's dtype.
        values: (B, S, Cv, h, w), the query's dtype.
        window: side of the window in cells, odd.
        border: `mask` leaves positions outside the map out; `zero` keeps them with score 0 and value 0.
        scale: factor on the scores.

    Returns:
        (B, Cv, h, w) in the query's dtype.
    """
    weights = window_weights(query, keys, window=window, border=border, scale=scale)
    return torch.einsum("bsnhw,bscnhw->bchw", weights, gather_windows(values, window).to(weights.dtype)).to(
        query.dtype
    )


def window_weights(query: Tensor, keys: Tensor, *, window: int, border: str, scale: float) -> Tensor:
    """Softmax weights (B, S, R², h, w), 0 to 1, of every cell's window: float32 (float64 for float64 inputs).

    Args:
        query: (B, Ck, h, w), any floating-point dtype.
        keys: (B, S, Ck, h, w), the query's dtype.
        window: R, the side of the square window in cells, odd.
        border: `mask` gives positions outside the map weight 0; `zero` the weight of score 0.
        scale: factor on the scores.
    """
    precise = torch.promote_types(query.dtype, torch.float32)
    scores = scale * torch.einsum(
        "bchw,bscnhw->bsnhw", query.to(precise), gather_windows(keys.to(precise), window)
    )
    if border == "mask":
        on_map = gather_windows(torch.ones_like(keys[:1, :1, :1]), window)[:, :, 0] > 0
        scores = scores.masked_fill(~on_map, -torch.inf)
    return scores.flatten(1, 2).softmax(dim=1).view_as(scores)


def gather_windows(cells: Tensor, window: int) -> Tensor:
    """Every cell's window of R × R cells of maps (B, S, C, h, w), zeros outside, as (B, S, C, R², h, w)."""
    height, width = cells.shape[-2:]
    padded = F.pad(cells, [window // 2] * 4)
    shifted = [padded[..., y : y + height, x : x + width] for y in range(window) for x in range(window)]
    return torch.stack(shifted, dim=3)
