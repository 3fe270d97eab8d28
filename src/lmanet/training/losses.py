"""The losses: cross-entropy weighted by class, which is the paper's, and Lovász-Softmax, which is IoU's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lmanet.classes import VOID
from lmanet.errors import DataError

ERROR_BINS = 1024
"""Errors closer than 1/1024 count as equal in `lovasz_softmax`."""


def class_weights(counts: NDArray[np.int64], num_classes: int) -> Tensor:
    """Weight per class 1 / ln(1.10 + p), p its share of the labelled pixels (ERFNet's and the paper's).

    Args:
        counts: (256,) pixels of the labels by id, void 255.
        num_classes: K.

    Returns:
        (K,) float32; a class that never occurs has weight 1/ln(1.10), about 10.5.

    Raises:
        DataError: a label is out of range, or nothing is labelled.
    """
    beyond = np.flatnonzero(counts[num_classes:VOID]) + num_classes
    if len(beyond):
        raise DataError(f"label {beyond[0]} found, expected 0 to {num_classes - 1} or {VOID} for void")
    counts = counts[:num_classes]
    if counts.sum() == 0:
        raise DataError("the training labels hold nothing but void: there is nothing to learn from")
    return torch.from_numpy(1 / np.log(1.10 + counts / counts.sum())).float()


def pixels(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What the losses take: log-probabilities and ids of all pixels.

    Args:
        logits: (B, K, H, W) float.
        labels: (B, H, W) integer ids, void 255.

    Returns:
        (B H W, K) float32 and (B H W,) int64.
    """
    # On a CPU, channels_last makes this a view and the softmax runs over neighbours in memory.
    rows = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    return rows.float().log_softmax(1), labels.long().reshape(-1)


def cross_entropy_sums(log_probabilities: Tensor, ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy as a sum and the weight it is to be divided by.

    Kept apart so that several processes can divide by the weight of the joint batch.

    Args:
        log_probabilities: (N, K) float32, of `pixels`.
        ids: (N,) int64, void 255.
        weights: (K,) float.

    Returns:
        Two float32 scalars: the sum over pixels of weight × negative log-likelihood, and the sum of the weights
        of the labelled pixels.
    """
    total = F.nll_loss(log_probabilities, ids, weights, ignore_index=VOID, reduction="sum")
    padded = torch.cat([weights, weights.new_zeros(VOID + 1 - len(weights))])
    return total, padded[ids].sum()


def distillation(log_probabilities: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy to the probabilities of a teacher, mean over the pixels (Hinton et al., 2015, temperature 1).

    Args:
        log_probabilities: (N, K) float32, of `pixels`.
        teacher: (N, K) float32, the teacher's log-probabilities of the same pixels.

    Returns:
        A float32 scalar.
    """
    return -(teacher.exp() * log_probabilities).sum(1).mean()


def lovasz_softmax(
    log_probabilities: Tensor, ids: Tensor, *, joint: Callable[[Tensor], Tensor] = lambda counts: counts
) -> Tensor:
    """The Lovász-Softmax loss over the whole batch (Berman, Triki and Blaschko, CVPR 2018, algorithm 1).

    A smooth stand-in for 1 - IoU, averaged over the classes that occur. The formula sorts each class's errors;
    here they are counted in `ERROR_BINS` bins, which takes a third of the time, and counts of several processes can
    be added.

    Args:
        log_probabilities: (N, K) float32, of `pixels`.
        ids: (N,) int64, void 255.
        joint: sums counts over all processes, so that each has its part of the loss of the joint batch.

    Returns:
        A float32 scalar from 0 to 1: this process's pixels' part, which is the loss if it is alone. Without a
        labelled pixel 0.
    """
    classes = log_probabilities.shape[1]
    truth = F.one_hot(ids.where(ids != VOID, 0), classes)
    errors = (truth - log_probabilities.exp()).abs()
    with torch.no_grad():
        # Numbered by kind (other pixels, true ones), class and error; the last is for void.
        bins = (errors * ERROR_BINS).long().clamp_max_(ERROR_BINS - 1)
        bins += torch.arange(classes, device=bins.device) * ERROR_BINS
        bins.add_(truth, alpha=classes * ERROR_BINS)
        nowhere = 2 * classes * ERROR_BINS
        bins[ids == VOID] = nowhere
        counts = joint(torch.bincount(bins.flatten(), minlength=nowhere + 1)[:nowhere])
        counts = counts.view(2, classes, ERROR_BINS).float()
        # From the largest error down, B other pixels and F true ones become wrong, and 1 - IoU grows to
        # 1 - (T - F) / (T + B), T the true ones in all. Within a bin neither kind comes first: the mean of both orders.
        other, true = counts.flip(-1).cumsum(-1).flip(-1)
        other_before, true_before = other - counts[0], true - counts[1]
        total = true[:, :1]
        union, union_before = (total + other).clamp_min(1), (total + other_before).clamp_min(1)
        of_other = (total - (true + true_before) / 2) / (union * union_before)
        of_true = (1 / union + 1 / union_before) / 2
        present = total > 0
        weights = torch.stack([of_other, of_true]) * present / present.sum().clamp_min(1)
        weights = torch.cat([weights.flatten(), weights.new_zeros(1)])[bins]
    return (errors * weights).sum()
