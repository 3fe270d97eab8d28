"""Checks of what the attention functions are given, with errors that say what to do."""

from __future__ import annotations

import torch
from torch import Tensor

from lmanet.errors import InputError

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_query_and_keys(query: Tensor, keys: Tensor) -> None:
    """Raise InputError unless query (B, Ck, h, w) and keys (B, S, Ck, h, w) belong together."""
    if query.ndim != 4:
        raise InputError(f"query has shape {tuple(query.shape)}, expected (B, Ck, h, w): four dimensions")
    if keys.ndim != 5:
        raise InputError(
            f"keys have shape {tuple(keys.shape)}, expected (B, S, Ck, h, w): five dimensions; "
            "for one memory frame add the second with keys.unsqueeze(1)"
        )
    batch, channels, height, width = query.shape
    _, size, _, _, _ = keys.shape
    if keys.shape != (batch, size, channels, height, width):
        raise InputError(
            f"keys have shape {tuple(keys.shape)}, expected (B, S, Ck, h, w) = "
            f"({batch}, S, {channels}, {height}, {width}) as the query has shape {tuple(query.shape)}: "
            "query and memory must come from maps of one size and projections of one width"
        )
    _check_not_empty("query", query)
    _check_not_empty("keys", keys)
    if query.dtype not in DTYPES:
        raise InputError(f"query is {query.dtype}, expected one of {', '.join(map(str, DTYPES))}: convert it")
    _check_alike("keys", keys, query)


def check_values(query: Tensor, keys: Tensor, values: Tensor) -> None:
    """Raise InputError unless values (B, S, Cv, h, w) belong to checked query and keys."""
    batch, size, _, height, width = keys.shape
    if values.ndim != 5 or values.shape != (batch, size, values.shape[2], height, width):
        raise InputError(
            f"values have shape {tuple(values.shape)}, expected (B, S, Cv, h, w) = "
            f"({batch}, {size}, Cv, {height}, {width}) as the keys have shape {tuple(keys.shape)}: "
            "keys and values must come from the same frames"
        )
    _check_not_empty("values", values)
    _check_alike("values", values, query)


def check_window(window: int, border: str) -> None:
    """Raise InputError unless window is an odd number of cells and border is known."""
    if isinstance(window, bool) or not isinstance(window, int) or window < 1 or window % 2 == 0:
        raise InputError(
            f"window is {window!r}, expected an odd number of cells, 1 or more: "
            "it is the whole side of the square, so that ±10 cells are window=21"
        )
    if border not in ("mask", "zero"):
        raise InputError(
            f"border is {border!r}, expected 'mask' (leave out what is outside the map) or 'zero' "
            "(keep it with score 0, for checkpoints of the original implementation)"
        )


def _check_not_empty(name: str, cells: Tensor) -> None:
    if 0 in cells.shape:
        raise InputError(f"{name} has shape {tuple(cells.shape)}, expected at least 1 in every dimension")


def _check_alike(name: str, other: Tensor, query: Tensor) -> None:
    if other.dtype != query.dtype:
        raise InputError(
            f"{name} are {other.dtype}, expected {query.dtype} as the query: convert one to the other's "
            "dtype, or run under torch.autocast, which does"
        )
    if other.device != query.device:
        raise InputError(
            f"{name} are on {other.device}, expected {query.device} as the query: move one of them"
        )
