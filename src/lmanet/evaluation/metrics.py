"""Accuracy from one streaming confusion matrix: mIoU, IoU per class, pixel accuracy.

Plain numpy, so that training can import it: no image, table or plotting library loads with this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmanet.classes import VOID
from lmanet.errors import InputError

if TYPE_CHECKING:
    import torch

    IdMap = NDArray[np.uint8] | torch.Tensor
    """A map of class ids, (H, W) uint8, as a numpy array or a torch tensor on any device."""


def as_ids(ids: IdMap, name: str) -> NDArray[np.uint8]:
    """The map of class ids as a numpy array; it may share memory with what was given.

    Args:
        ids: (H, W) uint8 class ids.
        name: what the map is, for the error message.

    Raises:
        InputError: if it is no array or tensor, or not (H, W) uint8.
    """
    if isinstance(ids, np.ndarray):
        array = ids
    elif hasattr(ids, "detach"):
        array = ids.detach().cpu().numpy()
    else:
        raise InputError(f"the {name} is a {type(ids).__name__}: give a numpy array or a torch tensor")
    if array.ndim != 2 or array.dtype != np.uint8:
        raise InputError(
            f"the {name} is {array.dtype} of shape {array.shape}, expected uint8 class ids of shape (H, W): "
            "take the argmax over the classes and convert it to uint8"
        )
    return array


def as_id_pair(label: IdMap, prediction: IdMap) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A frame's label and prediction as numpy arrays of the same shape.

    Raises:
        InputError: if either is not (H, W) uint8, or their shapes differ.
    """
    labels, predictions = as_ids(label, "label"), as_ids(prediction, "prediction")
    if labels.shape != predictions.shape:
        raise InputError(
            f"the prediction's shape is {predictions.shape} but the label's is {labels.shape}: "
            "resize the logits to the label's size before taking the argmax"
        )
    return labels, predictions


class ConfusionMatrix:
    """Counts of (true class, predicted class) over all pixels seen; pixels labelled void are left out.

    Memory is one K×K table, however many frames pass through.
    """

    def __init__(self, num_classes: int) -> None:
        """Start with no pixel seen.

        Args:
            num_classes: K, 1 to 255.

        Raises:
            InputError: if `num_classes` is out of range.
        """
        if not 1 <= num_classes <= VOID:
            raise InputError(
                f"num_classes is {num_classes}, expected 1 to {VOID}: ids are uint8, {VOID} is void"
            )
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        """Forget every pixel seen."""
        self._counts = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, label: IdMap, prediction: IdMap) -> None:
        """Count one frame.

        Args:
            label: (H, W) uint8 true class ids, 0 to K-1, or 255 for void.
            prediction: (H, W) uint8 predicted class ids, 0 to K-1.

        Raises:
            InputError: on a wrong dtype or shape, or an id out of range; nothing is counted then.
        """
        labels, predictions = as_id_pair(label, prediction)
        k = self.num_classes
        # The two bytes side by side are one 16-bit number: a single bincount gives the joint histogram of all
        # 256×256 pairs, void and out-of-range ids included, with no boolean indexing of the image.
        pairs = (labels.astype(np.uint16) << 8) | predictions
        counts = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
        if counts[k:VOID].any():
            worst = k + int(counts[k:VOID].any(axis=1).argmax())
            raise InputError(
                f"label holds id {worst}, expected 0 to {k - 1} or {VOID} for void: map the ids first"
            )
        if counts[:, k:].any():
            worst = k + int(counts[:, k:].any(axis=0).argmax())
            raise InputError(
                f"prediction holds id {worst}, expected 0 to {k - 1}: check the number of classes"
            )
        self._counts += counts[:k, :k]

    def compute(self) -> NDArray[np.int64]:
        """The counts so far, (K, K) int64: row the true class, column the predicted class. A copy."""
        return self._counts.copy()


def per_class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union per class: true positives / (true + predicted - true positives).

    Args:
        confusion: (K, K) counts, row the true class, column the predicted class.

    Returns:
        (K,) float64, 0 to 1; NaN for an absent class, one that is neither in the labels nor predicted. A
        class that is predicted where the labels never have it is not absent: its IoU is 0.
    """
    hits = np.diag(confusion)
    return _ratio(hits, confusion.sum(axis=0) + confusion.sum(axis=1) - hits)


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """Mean over the classes of `per_class_iou`, 0 to 1, absent classes left out; NaN if all are absent."""
    iou = per_class_iou(confusion)
    present = iou[~np.isnan(iou)]
    return float(present.mean()) if present.size else float("nan")


def pixel_accuracy(confusion: NDArray[np.int64]) -> float:
    """Share of the non-void pixels whose class is right, 0 to 1; NaN if there was no such pixel."""
    return float(_ratio(np.trace(confusion), confusion.sum()))


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """`part / whole`, NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
