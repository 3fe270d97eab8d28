import numpy as np
import pytest

from contracts.imagefiles import DiskDataContract, picture, write_image
from contracts.trees import video
from lmanet.classes import VOID
from lmanet.data.vspw import VSPW_CLASSES, load_vspw, scan_vspw
from lmanet.errors import DataError


class TestVSPW(DiskDataContract):
    image = "data/0_wHveSGjXyDY/origin/00000167.jpg"
    label = "data/0_wHveSGjXyDY/mask/00000167.png"
    wrong_value = 125

    def make(self, root):
        video(root, "1000_TI-3Jlujxlk", range(392, 396))
        video(root, "0_wHveSGjXyDY", (166, 167))
        video(root, "10_EpnJ4c9Sni4", (1, 2), split="val")

    def load(self, root):
        return load_vspw(root, "train")

    def test_videos_are_sequences_at_15_frames_a_second(self, data):
        assert [s.name for s in data.sequences] == ["1000_TI-3Jlujxlk", "0_wHveSGjXyDY"]
        assert data.sequences[1].frame_names == ("00000166", "00000167")
        assert data.sequences[1].labelled == (True, True)
        assert data.sequences[0].spacing_s == pytest.approx(1 / 15)

    def test_a_missing_label_is_named(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / self.label).unlink()
        with pytest.raises(
            DataError, match=r"mask/00000167\.png is missing: the label of .*origin/00000167\.jpg"
        ):
            self.load(tmp_path)


def test_there_are_124_classes():
    # Some places of the data set's own list, label_num_dic_final.json.
    known = {
        1: "wall",
        8: "handrail_or_fence",
        41: "billboard_or_Bulletin_Board",
        61: "person",
        85: "bottle_or_cup",
    }
    known |= {100: "refrigerator", 118: "Mobile_phone", 124: "train"}
    assert len(VSPW_CLASSES) == 124
    assert {i: VSPW_CLASSES.names[i - 1] for i in known} == known
    assert len(set(VSPW_CLASSES.palette)) == 124 and (0, 0, 0) not in VSPW_CLASSES.palette


def test_ids_begin_at_1_and_others_are_void(tmp_path):
    values = np.array([[0, 1], [124, 255]], np.uint8).repeat(6, 0).repeat(8, 1)
    (sequence,) = load_vspw(video(tmp_path, "v", [1], label=values), "train").sequences
    expected = np.array([[VOID, 0], [123, VOID]]).repeat(6, 0).repeat(8, 1)
    np.testing.assert_array_equal(sequence.label(0), expected)


def test_a_missing_frame_splits_a_video(tmp_path):
    data = load_vspw(video(tmp_path, "v", [3, 4, 7, 8, 9]), "train")
    assert [(s.name, len(s.frame_names)) for s in data.sequences] == [("v-00000003", 2), ("v-00000007", 3)]


def test_videos_of_the_test_split_have_no_labels(tmp_path):
    (sequence,) = load_vspw(video(tmp_path, "v", [1, 2], split="test", masks=False), "test").sequences
    assert sequence.labelled == (False, False)


def test_every_problem_is_told(tmp_path):
    video(tmp_path, "good", [1, 2])
    video(tmp_path, "bad", [1, 2, 3])
    (tmp_path / "data/bad/mask/00000002.png").unlink()
    (tmp_path / "data/bad/origin/00000003.jpg").unlink()
    write_image(tmp_path / "data/bad/origin/first.jpg", picture())
    video(tmp_path, "empty", [])
    (tmp_path / "data/empty/origin").mkdir(parents=True)
    video(tmp_path, "gone", [])
    data = scan_vspw(tmp_path, "train")
    expected = [
        "bad/origin/first.jpg: expected the frame's number",
        "bad/origin/00000003.jpg is missing: the frame of",
        "bad/mask/00000002.png is missing: the label of",
        "empty/origin holds no frames",
        "gone/origin is missing",
    ]
    assert len(data.problems) == len(expected)
    assert all(words in problem for words, problem in zip(expected, data.problems, strict=True))
    with pytest.raises(DataError, match=r"first\.jpg.*and 4 more: lmanet data check"):
        load_vspw(tmp_path, "train")


def test_what_is_no_vspw_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"train\.txt is missing.*splits found: none"):
        load_vspw(tmp_path, "train")
    video(tmp_path, "v", [1])
    with pytest.raises(DataError, match=r"val\.txt is missing.*\['train'\]"):
        load_vspw(tmp_path, "val")
    (tmp_path / "val.txt").touch()
    with pytest.raises(DataError, match="names no video"):
        load_vspw(tmp_path, "val")
