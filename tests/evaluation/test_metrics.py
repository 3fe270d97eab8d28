import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lmanet.errors import InputError
from lmanet.evaluation.metrics import ConfusionMatrix, mean_iou, per_class_iou, pixel_accuracy

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
VOID = 255

LABEL = np.array([[0, 0, 1], [1, 1, VOID]], np.uint8)
PREDICTION = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)


def confusion_of(label, prediction, num_classes=3):
    confusion = ConfusionMatrix(num_classes)
    confusion.update(label, prediction)
    return confusion.compute()


def test_hand_computed_example():
    confusion = confusion_of(LABEL, PREDICTION)

    # The void pixel, predicted as class 2, counts nowhere: so class 2 is absent.
    assert confusion.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    np.testing.assert_allclose(per_class_iou(confusion), [1 / 3, 2 / 4, np.nan])
    assert mean_iou(confusion) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert pixel_accuracy(confusion) == pytest.approx(3 / 5)


def test_a_class_that_is_only_predicted_is_not_absent():
    confusion = confusion_of(np.array([[0, 0]], np.uint8), np.array([[0, 2]], np.uint8))

    np.testing.assert_allclose(per_class_iou(confusion), [1 / 2, np.nan, 0])
    assert mean_iou(confusion) == pytest.approx(1 / 4)


def test_a_perfect_prediction_scores_one():
    label = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    confusion = confusion_of(label, label)

    assert mean_iou(confusion) == 1.0
    assert pixel_accuracy(confusion) == 1.0


def test_only_void_scores_nan():
    confusion = confusion_of(np.full((2, 3), VOID, np.uint8), PREDICTION)

    assert math.isnan(mean_iou(confusion))
    assert math.isnan(pixel_accuracy(confusion))
    assert np.isnan(per_class_iou(confusion)).all()


@settings(deadline=None)
@given(data=st.data(), num_classes=st.integers(1, 255))
def test_streaming_equals_counting_pixel_by_pixel(data, num_classes):
    shape = (data.draw(st.integers(1, 4)), 2, 3)
    predictions = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, num_classes - 1)))
    labels = data.draw(
        hnp.arrays(np.uint8, shape, elements=st.one_of(st.just(VOID), st.integers(0, num_classes - 1)))
    )
    expected = np.zeros((num_classes, num_classes), int)
    for true, predicted in zip(labels.ravel(), predictions.ravel(), strict=True):
        if true != VOID:
            expected[true, predicted] += 1

    confusion = ConfusionMatrix(num_classes)
    for label, prediction in zip(labels, predictions, strict=True):
        confusion.update(label, prediction)

    np.testing.assert_array_equal(confusion.compute(), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_tensors_count_as_arrays_do(device):
    label, prediction = (torch.from_numpy(ids).to(device) for ids in (LABEL, PREDICTION))

    np.testing.assert_array_equal(confusion_of(label, prediction), confusion_of(LABEL, PREDICTION))


def test_non_contiguous_maps_count_as_their_copies_do():
    np.testing.assert_array_equal(
        confusion_of(LABEL.T[::-1], PREDICTION.T[::-1]), confusion_of(LABEL, PREDICTION)
    )


def test_reset_forgets_and_compute_gives_a_copy():
    confusion = ConfusionMatrix(3)
    confusion.update(LABEL, PREDICTION)
    confusion.compute()[:] = 100
    assert confusion.compute().sum() == 5

    confusion.reset()
    assert confusion.compute().sum() == 0


@pytest.mark.parametrize(
    ("label", "prediction", "message"),
    [
        (np.array([[3]], np.uint8), np.array([[0]], np.uint8), "label holds id 3, expected 0 to 2 or 255"),
        (np.array([[0]], np.uint8), np.array([[3]], np.uint8), "prediction holds id 3, expected 0 to 2"),
        (np.array([[0]], np.uint8), np.array([[VOID]], np.uint8), "prediction holds id 255"),
        (np.array([[VOID]], np.uint8), np.array([[7]], np.uint8), "prediction holds id 7"),
        (LABEL, PREDICTION[:, :2], r"prediction's shape is \(2, 2\) but the label's is \(2, 3\)"),
        (LABEL.astype(np.int64), PREDICTION, "label is int64"),
        (LABEL, torch.zeros(1, 2, 3, dtype=torch.uint8), r"prediction is uint8 of shape \(1, 2, 3\)"),
        (LABEL.tolist(), PREDICTION, "label is a list"),
    ],
)
def test_wrong_maps_are_refused_and_not_counted(label, prediction, message):
    confusion = ConfusionMatrix(3)
    with pytest.raises(InputError, match=message):
        confusion.update(label, prediction)
    assert confusion.compute().sum() == 0


@pytest.mark.parametrize("num_classes", [0, 256])
def test_class_counts_that_uint8_cannot_hold_are_refused(num_classes):
    with pytest.raises(InputError, match="expected 1 to 255"):
        ConfusionMatrix(num_classes)
