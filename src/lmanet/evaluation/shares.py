"""What a stream shows: the share of each class in its pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class ClassShares:
    """Counts pixels per class over a stream, in constant memory.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self._counts = np.zeros(num_classes, np.int64)

    def update(self, label: NDArray[np.uint8]) -> None:
        """Count a label map (H, W) of class ids below K."""
        self._counts += np.bincount(label.ravel(), minlength=len(self._counts))

    def compute(self) -> NDArray[np.float64]:
        """Share of each class (K,), summing to 1; NaN before the first frame."""
        total = self._counts.sum()
        return self._counts / total if total else np.full(len(self._counts), np.nan)
