import os
from pathlib import Path

import numpy as np
import pytest

from contracts.dataset import VideoDataContract
from contracts.imagefiles import SIZE, DiskDataContract, picture, write_image
from contracts.trees import cambridge, segnet
from lmanet.classes import VOID
from lmanet.data.camvid import CAMBRIDGE_COLOURS, load_camvid
from lmanet.data.spec import open_data
from lmanet.errors import DataError
from lmanet.training.frames import store_frames

REAL = Path(os.environ.get("LMANET_CAMVID", Path(__file__).parents[2] / "../shared/camvid"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no CamVid at {REAL}: set LMANET_CAMVID")

# The data set's own list of colours (R, G, B), and the classes that the field's 11-class split makes of them.
COLOURS = {
    "Animal": ((64, 128, 64), "pedestrian"),
    "Archway": ((192, 0, 128), "building"),
    "Bicyclist": ((0, 128, 192), "bicyclist"),
    "Bridge": ((0, 128, 64), "building"),
    "Building": ((128, 0, 0), "building"),
    "Car": ((64, 0, 128), "car"),
    "CartLuggagePram": ((64, 0, 192), "pedestrian"),
    "Child": ((192, 128, 64), "pedestrian"),
    "Column_Pole": ((192, 192, 128), "pole"),
    "Fence": ((64, 64, 128), "fence"),
    "LaneMkgsDriv": ((128, 0, 192), "road"),
    "LaneMkgsNonDriv": ((192, 0, 64), "road"),
    "Misc_Text": ((128, 128, 64), "sign"),
    "MotorcycleScooter": ((192, 0, 192), "bicyclist"),
    "OtherMoving": ((128, 64, 64), "car"),
    "ParkingBlock": ((64, 192, 128), "pavement"),
    "Pedestrian": ((64, 64, 0), "pedestrian"),
    "Road": ((128, 64, 128), "road"),
    "RoadShoulder": ((128, 128, 192), "pavement"),
    "Sidewalk": ((0, 0, 192), "pavement"),
    "SignSymbol": ((192, 128, 128), "sign"),
    "Sky": ((128, 128, 128), "sky"),
    "SUVPickupTruck": ((64, 128, 192), "car"),
    "TrafficCone": ((0, 0, 64), "pole"),
    "TrafficLight": ((0, 64, 64), "sign"),
    "Train": ((192, 64, 128), "car"),
    "Tree": ((128, 128, 0), "tree"),
    "Truck_Bus": ((192, 128, 192), "car"),
    "Tunnel": ((64, 0, 64), "building"),
    "VegetationMisc": ((192, 192, 0), "tree"),
    "Void": ((0, 0, 0), None),
    "Wall": ((64, 192, 0), "building"),
}


def layout(data):
    return [(s.name, len(s.frame_names), round(s.spacing_s * 30)) for s in data.sequences]


class TestSegNetLayout(DiskDataContract):
    image = "train/0016E5_00420.png"
    label = "trainannot/0016E5_00420.png"
    wrong_value = 12

    def make(self, root):
        segnet(root, [f"0016E5_{n:05d}" for n in (390, 420, 450, 900, 930)])

    def load(self, root):
        return load_camvid(root, "train")


class TestCambridgeLayout(DiskDataContract):
    image = "701_StillsRaw_full/0006R0_f00960.png"
    label = "LabeledApproved_full/0006R0_f00960_L.png"
    wrong_value = None

    def make(self, root):
        cambridge(root, ["0006R0_f00930", "0006R0_f00960", "0001TP_006690"])

    def load(self, root):
        return load_camvid(root, "train")


class TestStoredFrames(VideoDataContract):
    @pytest.fixture
    def data(self, tmp_path):
        names = [f"0016E5_{n:05d}" for n in (390, 420, 450, 900)]
        return store_frames(load_camvid(segnet(tmp_path / "camvid", names), "train"), tmp_path / "frames")


@needs_real
class TestRealVal(VideoDataContract):
    @pytest.fixture
    def data(self):
        return load_camvid(REAL, "val")

    def test_is_one_sequence_at_a_fifteenth_of_a_second(self, data):
        assert layout(data) == [("0016E5-07959", 101, 2)]
        assert data.sequences[0].spacing_s == pytest.approx(1 / 15)


@needs_real
class TestRealTrain(VideoDataContract):
    @pytest.fixture
    def data(self):
        return load_camvid(REAL, "train")

    def test_has_the_known_frames_and_gaps(self, data):
        # 00901 lies one frame off the second's grid: 31 after the frame before it, 29 before the next.
        assert layout(data) == [
            ("0001TP-06690", 62, 30),
            ("0006R0-00930", 101, 30),
            ("0016E5-00390", 17, 30),
            ("0016E5-00901", 1, 30),
            ("0016E5-00930", 50, 30),
            ("0016E5-04350", 120, 30),
            ("0016E5-08190", 16, 30),
        ]
        assert sum(len(s.frame_names) for s in data.sequences) == 367


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([390, 420, 450, 900, 930], [("390", 3, 30), ("900", 2, 30)]),
        ([390, 420, 900], [("390", 2, 30), ("900", 1, 30)]),
        ([390], [("390", 1, 1)]),
        ([390, 420, 450, 510, 570], [("390", 3, 30), ("510", 1, 30), ("570", 1, 30)]),
        ([0, 30, 60, 90, 99, 101, 103, 134, 164], [("0", 4, 30), ("99", 3, 2), ("134", 2, 30)]),
        ([0, 2, 4, 8, 10], [("0", 3, 2), ("8", 2, 2)]),
    ],
)
def test_gaps_split_a_sequence(tmp_path, numbers, expected):
    data = load_camvid(segnet(tmp_path, [f"0016E5_{n:05d}" for n in numbers]), "train")
    assert layout(data) == [(f"0016E5-{int(n):05d}", count, step) for n, count, step in expected]
    names = [name for sequence in data.sequences for name in sequence.frame_names]
    assert names == [f"0016E5_{n:05d}" for n in numbers]


def test_neighbours_in_a_sequence_are_one_spacing_apart(tmp_path):
    names = [f"Seq05VD_f{n:05d}" for n in (0, 30, 60, 150, 180)] + ["0006R0_f00930", "0006R0_f00960"]
    data = load_camvid(segnet(tmp_path, names), "train")
    for sequence in data.sequences:
        numbers = [int(name.rpartition("_")[2].lstrip("f")) for name in sequence.frame_names]
        assert np.all(np.diff(numbers) == sequence.spacing_s * 30)
        assert len({name.partition("_")[0] for name in sequence.frame_names}) == 1


def test_cambridge_splits_are_those_of_segnet(tmp_path):
    names = ["0001TP_008520", "0001TP_008550", "0006R0_f00930", "Seq05VD_f00000", "0016E5_07920"]
    names += ["0016E5_07959", "0016E5_07961", "0016E5_08190"]
    root = cambridge(tmp_path, names)
    found = {
        split: {n for s in load_camvid(root, split).sequences for n in s.frame_names}
        for split in ("train", "val", "test", "all")
    }
    assert found["test"] == {"0001TP_008550", "Seq05VD_f00000"}
    assert found["val"] == {"0016E5_07959", "0016E5_07961"}
    assert found["train"] == set(names) - found["test"] - found["val"]
    assert found["all"] == set(names)


def test_the_hand_written_table_has_all_32_colours():
    assert len({colour for colour, _ in COLOURS.values()}) == len(COLOURS) == len(CAMBRIDGE_COLOURS) == 32


@pytest.mark.parametrize("name", COLOURS)
def test_each_colour_becomes_its_class(tmp_path, name):
    colour, expected = COLOURS[name]
    data = load_camvid(cambridge(tmp_path, ["0006R0_f00930"], colour), "train")
    label = data.sequences[0].label(0)
    value = VOID if expected is None else data.classes.names.index(expected)
    assert np.all(label == value)


def test_colours_are_mapped_pixel_by_pixel(tmp_path):
    root = cambridge(tmp_path, ["0006R0_f00930"])
    label = np.full((*SIZE, 3), (128, 64, 128), np.uint8)
    label[2, 5] = (64, 0, 128)
    label[11, 15] = 0
    write_image(root / "LabeledApproved_full/0006R0_f00930_L.png", label)
    expected = np.full(SIZE, 3)
    expected[2, 5], expected[11, 15] = 8, VOID
    np.testing.assert_array_equal(load_camvid(root, "train").sequences[0].label(0), expected)


def test_pictures_are_rgb_and_void_is_255(tmp_path):
    ids = np.array([[0, 10], [11, 3]], np.uint8).repeat(6, 0).repeat(8, 1)
    sequence = load_camvid(segnet(tmp_path, ["0016E5_00390"], label=ids), "train").sequences[0]
    np.testing.assert_array_equal(sequence.image(0), picture(0))
    np.testing.assert_array_equal(sequence.label(0), np.where(ids == 11, VOID, ids))


def test_any_split_folder_works(tmp_path):
    root = segnet(segnet(tmp_path, ["0016E5_00390"]), ["Seq05VD_f00000"], split="night")
    data = open_data(f"camvid:{root}", "night")
    assert data.name == "camvid/night"
    assert data.sequences[0].frame_names == ("Seq05VD_f00000",)


def test_unknown_colour_names_file_and_colour(tmp_path):
    root = cambridge(tmp_path, ["0006R0_f00930"])
    label = np.zeros((*SIZE, 3), np.uint8)
    label[3, 4] = (1, 2, 3)
    write_image(root / "LabeledApproved_full/0006R0_f00930_L.png", label)
    with pytest.raises(DataError, match=r"0006R0_f00930_L\.png: colour \(1, 2, 3\) in 1 pixels.*32"):
        load_camvid(root, "train").sequences[0].label(0)


def test_missing_label_is_named(tmp_path):
    root = segnet(tmp_path, ["0016E5_00390", "0016E5_00420"])
    (root / "trainannot/0016E5_00420.png").unlink()
    with pytest.raises(DataError, match=r"trainannot/0016E5_00420\.png is missing.*train/0016E5_00420\.png"):
        load_camvid(root, "train")


def test_missing_split_lists_those_found(tmp_path):
    root = segnet(segnet(tmp_path, ["0016E5_00390"]), ["0016E5_00420"], split="night")
    with pytest.raises(DataError, match=r"no split 'dawn'.*\['night', 'train'\]"):
        load_camvid(root, "dawn")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "is not a folder"),
        (lambda root: (root / "train").mkdir(parents=True), "splits found: none"),
        (lambda root: [(root / f).mkdir(parents=True) for f in ("train", "trainannot")], "holds no frames"),
        (lambda root: (root / "701_StillsRaw_full").mkdir(parents=True), "LabeledApproved_full is missing"),
        (lambda root: segnet(root, ["picture"]), r"picture\.png: expected a CamVid name"),
    ],
)
def test_what_is_no_camvid_is_refused(tmp_path, make, message):
    root = tmp_path / "camvid"
    make(root)
    with pytest.raises(DataError, match=message):
        load_camvid(root, "train")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("kitti:x", "expected camvid:PATH, cityscapes:PATH, vspw:PATH, folder:PATH or synthetic:"),
        ("camvid", "expected camvid:PATH"),
        ("camvid:", "needs a path"),
    ],
)
def test_specs_that_name_no_data(spec, message):
    with pytest.raises(DataError, match=message):
        open_data(spec, "train")
