"""The losses: cross-entropy weighted by class, which is the paper's, and Lovász-Softmax, which is IoU's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lmanet.data.base import VOID
from lmanet.errors import DataError

ERROR_BINS = 1024
"""Errors closer than 1/1024 count as equal in `lovasz_softmax`."""


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
    rows, ids = _pixels(logits, labels)
    total = F.cross_entropy(rows, ids, weights, ignore_index=VOID, reduction="sum")
    padded = torch.cat([weights, weights.new_zeros(VOID + 1 - len(weights))])
    return total, padded[ids].sum()


def lovasz_softmax(
    logits: Tensor, labels: Tensor, *, joint: Callable[[Tensor], Tensor] = lambda counts: counts
) -> Tensor:
    """The Lovász-Softmax loss over the whole batch (Berman, Triki and Blaschko, CVPR 2018, algorithm 1).

    A smooth stand-in for 1 - IoU, averaged over the classes that occur. The formula sorts each class's errors;
    here they are counted in `ERROR_BINS` bins, which takes a third of the time, and counts of several processes can
    be added.

    Args:
        logits: (B, K, H, W) float.
        labels: (B, H, W) integer ids, void 255.
        joint: sums counts over all processes, so that each has its part of the loss of the joint batch.

    Returns:
        A float32 scalar from 0 to 1: this process's pixels' part, which is the loss if it is alone. Without a
        labelled pixel 0.
    """
    rows, ids = _pixels(logits, labels)
    classes = rows.shape[1]
    labelled = (ids != VOID)[:, None]
    truth = F.one_hot(ids.where(ids != VOID, 0), classes).bool() & labelled
    errors = (truth.float() - rows.softmax(1)).abs()
    with torch.no_grad():
        bins = (errors * ERROR_BINS).long().clamp_max_(ERROR_BINS - 1)
        bins += torch.arange(classes, device=bins.device) * ERROR_BINS
        size = classes * ERROR_BINS
        counts = torch.stack(
            [torch.bincount(bins[mask], minlength=size) for mask in (truth, ~truth & labelled)]
        )
        counts = joint(counts).view(2, classes, ERROR_BINS).float()
        # From the largest error down, F true pixels and B others become wrong, and 1 - IoU grows to
        # 1 - (T - F) / (T + B), T the true ones in all. Within a bin neither kind comes first: the mean of both orders.
        true, other = counts.flip(-1).cumsum(-1).flip(-1)
        true_before, other_before = true - counts[0], other - counts[1]
        total = true[:, :1]
        union, union_before = (total + other).clamp_min(1), (total + other_before).clamp_min(1)
        of_true = (1 / union + 1 / union_before) / 2
        of_other = (total - (true + true_before) / 2) / (union * union_before)
        present = total > 0
        weights = torch.stack([of_other, of_true]) * present / present.sum().clamp_min(1)
        weights = weights.flatten()[bins + truth * size] * labelled
    return (errors * weights).sum()


def _pixels(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits as (B H W, K) float32 and ids (B H W) int64.

    On a CPU, channels_last makes this a view, and the softmax runs over neighbours in memory.
    """
    return logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).float(), labels.long().reshape(-1)
