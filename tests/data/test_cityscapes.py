import re

import numpy as np
import pytest
from PIL import Image

from contracts.imagefiles import SIZE, DiskDataContract, picture, read_all, write_image
from contracts.trees import snippet, stem
from lmanet.classes import VOID
from lmanet.data.cityscapes import (
    CITYSCAPES_CLASSES,
    load_cityscapes,
    needed_files,
    scan_cityscapes,
    to_label_ids,
)
from lmanet.data.spec import open_data
from lmanet.errors import DataError, InputError

# The data set's own table: name, id, id for training (255: not scored), colour.
LABELS = {
    "unlabeled": (0, 255, (0, 0, 0)),
    "ego vehicle": (1, 255, (0, 0, 0)),
    "rectification border": (2, 255, (0, 0, 0)),
    "out of roi": (3, 255, (0, 0, 0)),
    "static": (4, 255, (0, 0, 0)),
    "dynamic": (5, 255, (111, 74, 0)),
    "ground": (6, 255, (81, 0, 81)),
    "road": (7, 0, (128, 64, 128)),
    "sidewalk": (8, 1, (244, 35, 232)),
    "parking": (9, 255, (250, 170, 160)),
    "rail track": (10, 255, (230, 150, 140)),
    "building": (11, 2, (70, 70, 70)),
    "wall": (12, 3, (102, 102, 156)),
    "fence": (13, 4, (190, 153, 153)),
    "guard rail": (14, 255, (180, 165, 180)),
    "bridge": (15, 255, (150, 100, 100)),
    "tunnel": (16, 255, (150, 120, 90)),
    "pole": (17, 5, (153, 153, 153)),
    "polegroup": (18, 255, (153, 153, 153)),
    "traffic light": (19, 6, (250, 170, 30)),
    "traffic sign": (20, 7, (220, 220, 0)),
    "vegetation": (21, 8, (107, 142, 35)),
    "terrain": (22, 9, (152, 251, 152)),
    "sky": (23, 10, (70, 130, 180)),
    "person": (24, 11, (220, 20, 60)),
    "rider": (25, 12, (255, 0, 0)),
    "car": (26, 13, (0, 0, 142)),
    "truck": (27, 14, (0, 0, 70)),
    "bus": (28, 15, (0, 60, 100)),
    "caravan": (29, 255, (0, 0, 90)),
    "trailer": (30, 255, (0, 0, 110)),
    "train": (31, 16, (0, 80, 100)),
    "motorcycle": (32, 17, (0, 0, 230)),
    "bicycle": (33, 18, (119, 11, 32)),
}


class TestCityscapes(DiskDataContract):
    image = "leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png"
    label = "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png"
    wrong_value = 34

    def make(self, root):
        snippet(root, number=0)
        snippet(root, number=1)
        snippet(root, "bochum", 0, 1234)

    def load(self, root):
        return load_cityscapes(root, "train")

    def test_a_missing_image_is_named(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / self.image).unlink()
        image = self.image.replace("leftImg8bit/", "leftImg8bit_sequence/")
        with pytest.raises(DataError, match=f"{image} is missing.*{self.label}"):
            self.load(tmp_path)

    def test_each_labelled_frame_ends_a_sequence(self, data):
        assert [s.name for s in data.sequences] == [
            "aachen_000000_000019",
            "aachen_000001_000019",
            "bochum_000000_001234",
        ]
        for sequence in data.sequences:
            first, second, last = (int(name.rpartition("_")[2]) for name in sequence.frame_names)
            assert (first, second) == (last - 2, last - 1)
            assert sequence.frame_names[-1] == sequence.name
            assert sequence.labelled == (False, False, True)
            assert sequence.spacing_s == pytest.approx(1 / 17)


class TestResized(TestCityscapes):
    def load(self, root):
        return open_data(f"cityscapes:{root},size=6x8,past=1", "train")

    def test_each_labelled_frame_ends_a_sequence(self, data):
        assert data.name == "cityscapes/train,size=6x8"
        assert [len(s.frame_names) for s in data.sequences] == [2, 2, 2]
        assert data.sequences[0].image(0).shape == (6, 8, 3)


def test_classes_are_the_19_that_are_scored():
    scored = {name: row for name, row in LABELS.items() if row[1] != 255}
    assert dict(zip(CITYSCAPES_CLASSES.names, CITYSCAPES_CLASSES.palette, strict=True)) == {
        name: colour for name, (_, _, colour) in scored.items()
    }
    assert [scored[name][1] for name in CITYSCAPES_CLASSES.names] == list(range(19))


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_ids_become_classes(tmp_path, kind):
    rows = [row[:2] for row in LABELS.values()]
    values = np.array([row[kind == "labelTrainIds"] for row in rows], np.uint8).reshape(2, 17)
    expected = np.array([row[1] for row in rows], np.uint8).reshape(2, 17)
    snippet(tmp_path, before=0, kind=kind, label=values)
    write_image(
        tmp_path / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png", picture(0, (2, 17))
    )
    np.testing.assert_array_equal(load_cityscapes(tmp_path, "train").sequences[0].label(0), expected)


def test_label_ids_are_taken_where_both_are(tmp_path):
    snippet(tmp_path, before=0, label=np.full(SIZE, 26, np.uint8))
    snippet(tmp_path, before=0, kind="labelTrainIds", label=np.full(SIZE, 2, np.uint8))
    assert np.all(load_cityscapes(tmp_path, "train").sequences[0].label(0) == 13)


def test_train_ids_beyond_the_classes_are_refused(tmp_path):
    snippet(tmp_path, before=0, kind="labelTrainIds", label=np.full(SIZE, 19, np.uint8))
    with pytest.raises(DataError, match=r"gtFine_labelTrainIds\.png: label 19 in.*expected 0 to 18, or 255"):
        read_all(load_cityscapes(tmp_path, "train"))


def test_classes_become_the_servers_ids():
    ids = {name: row[0] for name, row in LABELS.items()}
    labels = np.arange(19, dtype=np.uint8).reshape(1, 19)
    out = to_label_ids(labels)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, [[ids[name] for name in CITYSCAPES_CLASSES.names]])


def test_the_labelled_frame_may_lie_in_either_folder(tmp_path):
    snippet(tmp_path / "a", still=True)
    snippet(tmp_path / "b", still=False)
    a, b = (load_cityscapes(tmp_path / x, "train").sequences[0] for x in "ab")
    assert a.frame_names == b.frame_names
    for i in range(3):
        np.testing.assert_array_equal(a.image(i), b.image(i))
    np.testing.assert_array_equal(a.image(2), picture(0))


def test_a_gap_ends_the_past(tmp_path):
    snippet(tmp_path, before=6)
    (tmp_path / "leftImg8bit_sequence/train/aachen/aachen_000000_000015_leftImg8bit.png").unlink()
    names = load_cityscapes(tmp_path, "train").sequences[0].frame_names
    assert names == tuple(stem("aachen", 0, i) for i in (16, 17, 18, 19))


def test_a_full_download_gives_the_snippet_up_to_the_labelled_frame(tmp_path):
    snippet(tmp_path, before=19, still=False)
    for frame in range(20, 30):
        path = tmp_path / "leftImg8bit_sequence/train/aachen" / f"{stem('aachen', 0, frame)}_leftImg8bit.png"
        write_image(path, picture(frame))
    (sequence,) = load_cityscapes(tmp_path, "train").sequences
    assert sequence.frame_names == tuple(stem("aachen", 0, i) for i in range(20))
    (sequence,) = load_cityscapes(tmp_path, "train", past=4).sequences
    assert sequence.frame_names == tuple(stem("aachen", 0, i) for i in range(15, 20))


def test_all_of_the_past_that_was_asked_for_must_be_there(tmp_path):
    snippet(tmp_path, before=4)
    snippet(tmp_path, number=1, before=2)
    data = scan_cityscapes(tmp_path, "train", past=4)
    assert [s.name for s in data.sequences] == ["aachen_000000_000019"]
    expected = "leftImg8bit_sequence/train/aachen/aachen_000001_0000{}_leftImg8bit.png is missing"
    assert len(data.problems) == 2
    for problem, frame in zip(data.problems, (16, 15), strict=True):
        assert expected.format(frame) in problem
    with pytest.raises(DataError, match=r"000016_leftImg8bit\.png is missing.*and 1 more"):
        load_cityscapes(tmp_path, "train", past=4)


def test_a_frame_without_label_is_a_problem_in_train_but_not_in_test(tmp_path):
    snippet(tmp_path, kind="")
    with pytest.raises(
        DataError, match=r"gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds\.png is missing"
    ):
        load_cityscapes(tmp_path, "train")
    # The test set comes with labels that hold nothing but void: they are not read.
    snippet(tmp_path, "berlin", split="test", label=np.full(SIZE, 77, np.uint8))
    (sequence,) = load_cityscapes(tmp_path, "test").sequences
    assert sequence.labelled == (False, False, False)
    read_all(load_cityscapes(tmp_path, "test"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "leftImg8bit/train/aachen/bochum_000000_000019_leftImg8bit.png",
            "expected aachen_SEQUENCE_FRAME_leftImg8bit",
        ),
        (
            "leftImg8bit/train/aachen/aachen_1_19_leftImg8bit.png",
            "such as aachen_000000_000019_leftImg8bit.png",
        ),
        (
            "gtFine/train/aachen/aachen_000000_000019.png",
            "expected aachen_SEQUENCE_FRAME_gtFine_labelIds.png",
        ),
    ],
)
def test_a_misnamed_file_is_named(tmp_path, path, message):
    snippet(tmp_path)
    write_image(tmp_path / path, picture())
    with pytest.raises(DataError, match=f"{re.escape(path)}: .*{message}"):
        load_cityscapes(tmp_path, "train")


def test_what_is_no_cityscapes_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"holds no Cityscapes val: expected .*leftImg8bit/val or .*gtFine/val"
    ):
        load_cityscapes(tmp_path, "val")
    (tmp_path / "gtFine/val").mkdir(parents=True)
    with pytest.raises(DataError, match="hold no frames"):
        load_cityscapes(tmp_path, "val")
    with pytest.raises(DataError, match="no split 'dawn'"):
        load_cityscapes(tmp_path, "dawn")
    with pytest.raises(InputError, match=r"20 frames before.*give 0 to 19"):
        load_cityscapes(tmp_path, "val", past=20)


def test_needed_files_follow_from_the_labels_alone(tmp_path):
    snippet(tmp_path, before=0, still=False)
    (tmp_path / "leftImg8bit_sequence/train/aachen/aachen_000000_000019_leftImg8bit.png").unlink()
    snippet(tmp_path, "bochum", 3, 1234, before=0)
    folder = "leftImg8bit_sequence/train"
    assert list(needed_files(tmp_path, "train", 2)) == [
        *(f"{folder}/aachen/aachen_000000_{i:06d}_leftImg8bit.png" for i in (17, 18, 19)),
        *(f"{folder}/bochum/bochum_000003_{i:06d}_leftImg8bit.png" for i in (1232, 1233)),
    ]
    # With these, and no others, everything that a memory of 2 frames takes is there.
    for path in needed_files(tmp_path, "train", 2):
        write_image(tmp_path / path, picture())
    data = load_cityscapes(tmp_path, "train", past=2)
    assert [len(s.frame_names) for s in data.sequences] == [3, 3]
    read_all(data)


def test_resizing_averages_images_and_picks_labels(tmp_path):
    values = np.full(SIZE, 7, np.uint8)
    values[1::2, 1::2] = 26  # the pixels that a label of half the size is of
    snippet(tmp_path, before=0, label=values)
    (sequence,) = open_data(f"cityscapes:{tmp_path},size=6x8", "train").sequences
    whole = picture(0).astype(float)
    blocks = whole.reshape(6, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(sequence.image(0) - blocks).max() <= 0.5
    assert np.all(sequence.label(0) == 13)
    (sequence,) = open_data(f"cityscapes:{tmp_path},size=13x17", "train").sequences
    assert sequence.image(0).shape == (13, 17, 3)
    assert set(np.unique(sequence.label(0))) <= {0, 13}


def test_void_is_what_is_not_scored(tmp_path):
    snippet(tmp_path)
    label = load_cityscapes(tmp_path, "train").sequences[0].label(2)
    with Image.open(tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png") as file:
        ids = np.array(file)
    void = [row[0] for row in LABELS.values() if row[1] == 255]
    np.testing.assert_array_equal(label == VOID, np.isin(ids, void))
