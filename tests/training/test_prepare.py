from dataclasses import replace

import numpy as np
import pytest
from accelerate import Accelerator

from contracts.tiny import tiny_data
from lmanet.classes import VOID, Classes
from lmanet.errors import DataError
from lmanet.training.options import RunOptions
from lmanet.training.prepare import store_splits


@pytest.fixture
def options():
    return RunOptions(Accelerator(cpu=True))


def relabelled(change):
    """The tiny data with every label changed."""
    data = tiny_data()
    sequences = tuple(replace(s, labels=tuple(change(label) for label in s.labels)) for s in data.sequences)
    return replace(data, sequences=sequences)


def test_labels_of_one_class_and_void_are_refused_before_training(tmp_path, options):
    masks = relabelled(lambda label: np.where(label == 0, 0, VOID).astype(np.uint8))
    with pytest.raises(DataError, match=r"nothing but the class 'sky' and void \(255\).*an id of its own"):
        store_splits(masks, None, tmp_path, options)


def test_classes_that_never_occur_are_warned_of(tmp_path, options):
    without = relabelled(lambda label: np.where(label == 2, 0, label).astype(np.uint8))
    with pytest.warns(UserWarning, match=r"1 of 3 classes occur in no label of tiny/train .*: car\."):
        stored, _ = store_splits(without, tiny_data(), tmp_path, options)
    assert stored.classes == without.classes


def test_labels_that_hold_every_class_are_stored_in_silence(tmp_path, options):
    store_splits(tiny_data(), tiny_data(), tmp_path, options)  # pytest makes an error of a warning


def test_a_network_of_one_class_is_no_mask(tmp_path, options):
    one = relabelled(lambda label: np.where(label == VOID, VOID, 0).astype(np.uint8))
    store_splits(replace(one, classes=Classes(("sky",), ((0, 0, 1),))), None, tmp_path, options)
