"""Reading maps, place by place, for formulas that are tested so."""

from __future__ import annotations

import numpy as np


def read(map_: np.ndarray, x: float, y: float) -> np.ndarray:
    """A map (H, W, C) at a place, by bilinear interpolation; outside as at the border."""
    height, width = map_.shape[:2]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = int(x), int(y)
    right, below = min(left + 1, width - 1), min(top + 1, height - 1)
    across, down = x - left, y - top
    upper = (1 - across) * map_[top, left] + across * map_[top, right]
    lower = (1 - across) * map_[below, left] + across * map_[below, right]
    return (1 - down) * upper + down * lower
