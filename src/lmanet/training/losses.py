"""The paper's loss: cross-entropy weighted by class, void left out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lmanet.data.base import VOID
from lmanet.errors import DataError


def class_weights(labels: Iterable[NDArray[np.uint8]], num_classes: int) -> Tensor:
    """Weight per class 1 / ln(1.10 + p), p its share of the labelled pixels (ERFNet's and the paper's).

    Args:
        labels: (H, W) uint8 ids, void 255.
        num_classes: K.

    Returns:
        (K,) float32; a class that never occurs has weight 1/ln(1.10), about 10.5.

    Raises:
        DataError: a label is out of range, or nothing is labelled.
    """
    counts = np.zeros(256, np.int64)
    for label in labels:
        counts += np.bincount(label.ravel(), minlength=256)
    beyond = np.flatnonzero(counts[num_classes:VOID]) + num_classes
    if len(beyond):
        raise DataError(f"label {beyond[0]} found, expected 0 to {num_classes - 1} or {VOID} for void")
    counts = counts[:num_classes]
    if counts.sum() == 0:
        raise DataError("the training labels hold nothing but void: there is nothing to learn from")
    return torch.from_numpy(1 / np.log(1.10 + counts / counts.sum())).float()


def cross_entropy_sums(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy as a sum and the weight it is to be divided by.

    Kept apart so that several processes can divide by the weight of the joint batch.

    Args:
        logits: (B, K, H, W) float.
        labels: (B, H, W) integer ids, void 255.
        weights: (K,) float.

    Returns:
        Two float32 scalars: the sum over pixels of weight × negative log-likelihood, and the sum of the weights
        of the labelled pixels.
    """
    labels = labels.long()
    # One row per pixel: on a CPU, channels_last makes this a view and the softmax runs over neighbours in memory.
    rows = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).float()
    ids = labels.reshape(-1)
    total = F.cross_entropy(rows, ids, weights, ignore_index=VOID, reduction="sum")
    padded = torch.cat([weights, weights.new_zeros(VOID + 1 - len(weights))])
    return total, padded[ids].sum()
