"""Maps (…, C, h, w) and how they lie in memory: the kernels want each cell's channels one after the other."""

from __future__ import annotations

import torch
from torch import Tensor


def to_cells(maps: Tensor) -> Tensor:
    """Maps (…, C, h, w) as contiguous cells (…, h, w, C)."""
    return maps.movedim(-3, -1).contiguous()


def to_maps(cells: Tensor) -> Tensor:
    """Cells (…, h, w, C) seen as maps (…, C, h, w)."""
    return cells.movedim(-1, -3)


def empty_cells(maps: Tensor) -> Tensor:
    """Uninitialised contiguous cells (…, h, w, C) for maps (…, C, h, w), of their dtype and device."""
    return torch.empty_like(maps.movedim(-3, -1), memory_format=torch.contiguous_format)
