import os
from pathlib import Path

import numpy as np
import pytest

from contracts.tiny import tiny_data
from contracts.trees import cambridge, segnet
from lmanet.data.camvid import load_camvid
from lmanet.data.subset import LEAST_APART_S, camvid_folds, seconds_apart, subset, thinned
from lmanet.errors import DataError

REAL = Path(os.environ.get("LMANET_CAMVID", Path(__file__).parents[2] / "../shared/camvid"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no CamVid at {REAL}: set LMANET_CAMVID")

RUNS = {"0001TP": [6690, 6720], "0006R0": [930, 960], "0016E5": [390, 420, 4350, 4380, 8190, 8220]}


def names(data):
    return [name for sequence in data.sequences for name in sequence.frame_names]


def test_a_subset_has_the_sequences_asked_for_in_the_datas_order():
    data = tiny_data(sequences=3)
    part = subset(data, ["s2", "s0"], name="part")
    assert part.name == "part" and part.classes == data.classes
    assert [sequence.name for sequence in part.sequences] == ["s0", "s2"]
    np.testing.assert_array_equal(part.sequences[1].image(1), data.sequences[2].image(1))


@pytest.mark.parametrize("every", [1, 2, 3, 50])
def test_every_k_th_frame_and_no_frame_is_lost(every):
    data = tiny_data(sequences=2)
    fewer = thinned(data, every)
    length = len(data.sequences[0].frame_names)
    assert len(fewer.sequences) == 2 * min(every, length)
    assert len({sequence.name for sequence in fewer.sequences}) == len(fewer.sequences)
    assert sorted(names(fewer)) == sorted(names(data))
    for k, sequence in enumerate(fewer.sequences[: min(every, length)]):
        source = data.sequences[0]
        assert sequence.spacing_s == every * source.spacing_s
        assert sequence.frame_names == source.frame_names[k::every]
        assert sequence.labelled == source.labelled[k::every]
        for i in range(len(sequence.frame_names)):
            np.testing.assert_array_equal(sequence.image(i), source.image(k + i * every))
            np.testing.assert_array_equal(sequence.label(i), source.label(k + i * every))


@pytest.mark.parametrize("wanted", [["s0", "s7"], []])
def test_a_sequence_that_is_not_there_is_told(wanted):
    with pytest.raises(DataError, match=r"tiny/train has no sequence (s7|asked for): it has s0, s1"):
        subset(tiny_data(), wanted, name="part")


@pytest.mark.parametrize(("make", "letter"), [(segnet, ""), (cambridge, "f")])
def test_each_part_is_left_out_once_in_both_layouts(tmp_path, make, letter):
    make(tmp_path, [f"{run}_{letter}{n:05d}" for run, numbers in RUNS.items() for n in numbers])
    folds = camvid_folds(tmp_path)
    left_out = {fold.name: [int(name[-4:]) for name in names(fold.held_out)] for fold in folds}
    assert left_out == {
        "0001TP": [6690, 6720],
        "0006R0": [930, 960],
        "0016E5-a": [390, 420],
        "0016E5-b": [4350, 4380],
    }
    everything = sorted(names(load_camvid(tmp_path, "train")))
    for fold in folds:
        assert sorted(names(fold.train) + names(fold.held_out)) == everything
    assert folds[2].train.name == "camvid/train without 0016E5-a"


def test_parts_that_come_close_are_refused(tmp_path):
    close = {**RUNS, "0016E5": [390, 420, 7890, 7920, 8160, 8190]}
    segnet(tmp_path, [f"{run}_{n:05d}" for run, numbers in close.items() for n in numbers])
    with pytest.raises(DataError, match=r"fold 0016E5-b: .* are 8 s apart, expected at least 9 s"):
        camvid_folds(tmp_path)


def test_a_part_without_frames_is_told(tmp_path):
    segnet(tmp_path, [f"{run}_{n:05d}" for run in ("0001TP", "0016E5") for n in RUNS[run]])
    with pytest.raises(DataError, match="no frames 00000 to 1000000 of 0006R0"):
        camvid_folds(tmp_path)


@needs_real
def test_camvids_own_folds_do_not_touch():
    folds = camvid_folds(REAL)
    assert [len(names(fold.held_out)) for fold in folds] == [62, 101, 68, 120]
    assert all(len(names(fold.train)) == 367 - len(names(fold.held_out)) for fold in folds)
    apart = [seconds_apart(fold.train, fold.held_out) for fold in folds]
    assert apart[:2] == [float("inf")] * 2 and min(apart[2:]) == LEAST_APART_S
    assert {name for fold in folds for name in names(fold.held_out)}.isdisjoint(
        names(load_camvid(REAL, "val"))
    )
