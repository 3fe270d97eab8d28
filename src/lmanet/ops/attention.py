"""Attention over a memory of frames: the public functions, and the choice of a backend."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lmanet.errors import InputError
from lmanet.ops import dispatch, flex, reference
from lmanet.ops.checks import check_query_and_keys, check_values, check_window
from lmanet.ops.layout import to_cells, to_maps

Border = Literal["mask", "zero"]
"""Positions of a window outside the map: `mask` leaves them out of the softmax, `zero` keeps them with score 0 and
value 0."""

Backend = Literal["auto", "native", "tiled", "reference", "flex"]
"""How local attention is computed; `auto` takes the first of `dispatch.KERNELS` that can run."""

_COMPOSED = {"reference": reference.local_attention, "flex": flex.local_attention}
"""Backends that are expressions of other torch functions: these differentiate them, and `auto` takes none."""

_WHY_COMPOSED_NOT_AUTO = {
    "reference": "the definition, for comparison: it needs S·R² maps of memory",
    "flex": "meant for CUDA, where it has not been measured yet; on a CPU it is forward only and slow",
}


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
    """Every cell reads the memory frames within a window around its own place.

    One softmax runs over all S·R² positions together (equations 2 and 3 of the paper). Scores and softmax are
    in float32, or float64 for float64 inputs, whatever the dtype. Under autocast the tensors are cast to its
    dtype, float64 excepted. First derivatives only.

    Args:
        query: (B, Ck, h, w), float32, bfloat16, float16 or float64.
        keys: (B, S, Ck, h, w), the query's dtype and device. Any strides, expanded ones too.
        values: (B, S, Cv, h, w), the query's dtype and device. Any strides, expanded ones too.
        window: R, the side of the square window in cells, odd; it may exceed the map.
        border: `mask` leaves positions outside the map out of the softmax; `zero` keeps them with score 0 and
            value 0, as the original implementation does, and its checkpoints need it.
        scale: factor on the scores; the paper has none.
        backend: `auto`, the first of `native` and `tiled` that can run; or `native`, `tiled`, `reference` or `flex`,
            which is then taken or the call fails. `explain` says which and why.

    Returns:
        (B, Cv, h, w) in the query's dtype (autocast's, under autocast), `channels_last`: in memory (B, h, w, Cv).

    Raises:
        InputError: shapes, dtypes or devices do not belong together, the window is not odd, or the backend
            named is unknown or cannot take these tensors.
    """
    query, keys, values = _cast_for_autocast(query, keys, values)
    check_query_and_keys(query, keys)
    check_values(query, keys, values)
    check_window(window, border)
    _check_backend(backend, query)
    if backend in _COMPOSED:
        with torch.autocast(query.device.type, enabled=False):
            output = _COMPOSED[backend](query, keys, values, window=window, border=border, scale=scale)
            return to_maps(to_cells(output))
    output, _ = dispatch.local_attention(query, keys, values, window, border, float(scale), backend)
    return output


def explain(query: Tensor, keys: Tensor, *, window: int, border: Border = "mask") -> dict[str, str]:
    """Say for each backend why `local_attention` with `backend="auto"` would or would not take it.

    Args:
        query: (B, Ck, h, w), float32, bfloat16, float16 or float64.
        keys: (B, S, Ck, h, w), the query's dtype and device.
        window: R, the side of the square window in cells, odd.
        border: `mask` or `zero`, what becomes of positions outside the map.

    Returns:
        One sentence for each backend by name; that of the one taken begins with `taken`.

    Raises:
        InputError: shapes, dtypes or devices do not belong together, or the window is not odd.
    """
    query, keys = _cast_for_autocast(query, keys)
    check_query_and_keys(query, keys)
    check_window(window, border)
    chosen = dispatch.chosen_kernel(query)
    reasons = {}
    for name, kernel in dispatch.KERNELS.items():
        refusal = kernel.refusal(query)
        if name == chosen:
            reasons[name] = f"taken: the first that can run on {query.device.type} in {query.dtype}"
        else:
            reasons[name] = f"not taken: {refusal or f'{chosen} comes first'}"
    return reasons | {name: f"not taken: {reason}" for name, reason in _WHY_COMPOSED_NOT_AUTO.items()}


def global_attention(query: Tensor, keys: Tensor, values: Tensor, *, scale: float | None = None) -> Tensor:
    """Every cell reads all cells of all memory frames: what local attention is compared with in the paper.

    Args:
        query: (B, Ck, h, w), float32, bfloat16, float16 or float64.
        keys: (B, S, Ck, h, w), the query's dtype and device.
        values: (B, S, Cv, h, w), the query's dtype and device.
        scale: factor on the scores; 1/√Ck if not given.

    Returns:
        (B, Cv, h, w) in the query's dtype (autocast's, under autocast).

    Raises:
        InputError: shapes, dtypes or devices do not belong together.
    """
    query, keys, values = _cast_for_autocast(query, keys, values)
    check_query_and_keys(query, keys)
    check_values(query, keys, values)
    batch, key_channels, height, width = query.shape
    value_channels = values.shape[2]
    # torch's fused kernels want keys and values of one width; without them all scores would be in memory.
    # Channels of zeros change no score, and the values' are cut off again.
    channels = max(key_channels, value_channels)
    flat = [
        F.pad(cells.movedim(-3, -1).reshape(batch, 1, -1, cells.shape[-3]), [0, channels - cells.shape[-3]])
        for cells in (query, keys, values)
    ]
    scale = 1 / math.sqrt(key_channels) if scale is None else scale
    output = F.scaled_dot_product_attention(flat[0], flat[1], flat[2], scale=scale)[:, 0, :, :value_channels]
    return output.transpose(1, 2).reshape(batch, value_channels, height, width)


def attention_weights(
    query: Tensor,
    keys: Tensor,
    *,
    cell: tuple[int, int],
    window: int,
    border: Border = "mask",
    scale: float = 1.0,
) -> Tensor:
    """The weights with which one query cell reads its window in each memory frame, for looking at.

    Args:
        query: (B, Ck, h, w), float32, bfloat16, float16 or float64.
        keys: (B, S, Ck, h, w), the query's dtype and device.
        cell: row and column of the query cell, from 0.
        window: R, the side of the square window in cells, odd; it may exceed the map.
        border: `mask` leaves positions outside the map out of the softmax; `zero` keeps them with score 0.
        scale: factor on the scores; the paper has none.

    Returns:
        (B, S, R, R), float32 (float64 for float64 inputs); each sample sums to 1. Positions outside the map
        weigh 0 with border `mask`, and what they truly weigh with `zero`.

    Raises:
        InputError: shapes, dtypes or devices do not belong together, the window is not odd, or the cell is not on
            the map.
    """
    query, keys = _cast_for_autocast(query, keys)
    check_query_and_keys(query, keys)
    check_window(window, border)
    batch, size, _, height, width = keys.shape
    row, column = cell
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(f"cell is {cell}, expected row 0 to {height - 1} and column 0 to {width - 1}")
    radius = window // 2
    top, left = max(row - radius, 0), max(column - radius, 0)
    bottom, right = min(row + radius + 1, height), min(column + radius + 1, width)
    precise = torch.promote_types(query.dtype, torch.float32)
    seen = keys[..., top:bottom, left:right].to(precise)
    with torch.autocast(query.device.type, enabled=False):
        on_map = scale * torch.einsum("bc,bscyx->bsyx", query[..., row, column].to(precise), seen)
    outside = -torch.inf if border == "mask" else 0.0
    margins = [radius - (column - left), radius - (right - 1 - column)]
    margins += [radius - (row - top), radius - (bottom - 1 - row)]
    scores = F.pad(on_map, margins, value=outside)
    return scores.flatten(1).softmax(dim=1).view(batch, size, window, window)


def _check_backend(backend: str, query: Tensor) -> None:
    if backend not in get_args(Backend):
        raise InputError(f"backend is {backend!r}, expected one of {', '.join(get_args(Backend))}")
    if backend in dispatch.KERNELS and (refusal := dispatch.KERNELS[backend].refusal(query)):
        raise InputError(f"backend {backend!r} cannot run: {refusal}; choose another, or 'auto'")


def _cast_for_autocast(*tensors: Tensor) -> list[Tensor]:
    """Cast as autocast does for matrix products. A registered cast would fix one dtype for all contexts."""
    device_type = tensors[0].device.type
    if not torch.is_autocast_enabled(device_type):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device_type)
    eligible = (torch.float32, torch.bfloat16, torch.float16)
    return [tensor.to(dtype) if tensor.dtype in eligible else tensor for tensor in tensors]
