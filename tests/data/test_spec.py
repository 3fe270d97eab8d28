import numpy as np
import pytest

from contracts.imagefiles import SIZE
from contracts.trees import segnet, sequence, snippet, video, write_classes
from lmanet.data.resize import resize_data
from lmanet.data.spec import open_data, scan_data
from lmanet.errors import DataError, InputError


def test_every_kind_opens(tmp_path):
    segnet(tmp_path / "camvid", ["0016E5_00390"])
    snippet(tmp_path / "cityscapes")
    video(tmp_path / "vspw", "v", [1])
    sequence(write_classes(tmp_path / "mine"), "s", ["f"], ["f"])
    (tmp_path / "mine/train.txt").write_text("s\n")
    names = {}
    for kind, folder in [
        ("camvid", "camvid"),
        ("cityscapes", "cityscapes"),
        ("vspw", "vspw"),
        ("folder", "mine"),
    ]:
        data = open_data(f"{kind}:{tmp_path / folder}", "train")
        names[kind] = data.name
        assert len(data.sequences) == 1
        resized = open_data(f"{kind}:{tmp_path / folder},size=6x9", "train")
        assert resized.name == f"{data.name},size=6x9"
        assert resized.sequences[0].image(0).shape == (6, 9, 3)
        assert resized.sequences[0].stamp == data.sequences[0].stamp
    assert names == {
        "camvid": "camvid/train",
        "cityscapes": "cityscapes/train",
        "vspw": "vspw/train",
        "folder": "mine/train",
    }
    assert open_data("synthetic:,size=16x20", "val").sequences[0].image(0).shape == (16, 20, 3)


def test_commas_in_paths_are_kept(tmp_path):
    root = segnet(tmp_path / "a,b,size=x", ["0016E5_00390"])
    with pytest.raises(DataError, match="expected size=HEIGHTxWIDTH"):
        open_data(f"camvid:{root}", "train")
    root = segnet(tmp_path / "a,b", ["0016E5_00390"])
    assert open_data(f"camvid:{root}", "train").name == "camvid/train"
    assert open_data(f"camvid:{root},size=4x5", "train").sequences[0].image(0).shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=512", "data option 'size=512': expected size=HEIGHTxWIDTH"),
        ("past=four", "data option 'past=four'"),
        ("past=2,size=3", "data option 'size=3'"),
        ("past=2", "past= is for cityscapes"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        open_data(f"camvid:{segnet(tmp_path, ['0016E5_00390'])},{options}", "train")


def test_a_size_of_nothing_is_refused(tmp_path):
    root = segnet(tmp_path, ["0016E5_00390"])
    with pytest.raises(InputError, match=r"size \(0, 5\)"):
        resize_data(open_data(f"camvid:{root}", "train"), (0, 5))
    with pytest.raises(InputError, match=r"size \(5, 0\)"):
        open_data(f"camvid:{root},size=5x0", "train")


def test_scanning_leaves_out_what_opening_refuses(tmp_path):
    root = segnet(tmp_path, [f"0016E5_{n:05d}" for n in (390, 420, 450)])
    (root / "trainannot/0016E5_00450.png").unlink()
    data, problems = scan_data(f"camvid:{root}", "train")
    assert data.sequences[0].frame_names == ("0016E5_00390", "0016E5_00420")
    assert len(problems) == 1
    with pytest.raises(DataError) as error:
        open_data(f"camvid:{root}", "train")
    assert str(error.value) == problems[0]


def masks(root, *, bright=255, **changes):
    """A folder of two labelled frames, each a mask of 0 and `bright`."""
    label = np.zeros(SIZE, np.uint8)
    label[2:5] = bright
    return sequence(write_classes(root, **changes), "s", ["f1", "f2"], ["f1", "f2"], label=label)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["background", "car"], r"255 is the class 'car', write \"values\": \[0, 255\]"),
        (["background", "car", "bus"], r"255 is the class 'car', write \"values\": \[0, 255, …\]"),
        (["car"], r'255 is the class \'car\', write "names": \["background", "car"\], "values": \[0, 255\]'),
    ],
)
def test_masks_of_0_and_255_are_refused_with_what_to_write(tmp_path, names, words):
    root = masks(tmp_path, names=names)
    for options in ("", ",size=6x8"):
        with pytest.raises(DataError, match=words):
            open_data(f"folder:{root}{options}", "all")
        open_data(f"folder:{root}{options}", "all", labels=False)  # where nobody will look at them


@pytest.mark.parametrize(
    "changes",
    [
        {"values": [0, 255]},
        {"void": 255},  # said by name: the foreground is somewhere else
        {"bright": 1},
        {"bright": 0},  # no void: nothing that could be the foreground
    ],
)
def test_labels_that_say_what_255_is_are_opened(tmp_path, changes):
    root = masks(tmp_path, names=["background", "car"], **changes)
    assert len(open_data(f"folder:{root}", "all").sequences) == 1


def test_one_label_with_another_class_is_enough(tmp_path):
    root = masks(tmp_path, names=["background", "car"])
    label = np.zeros(SIZE, np.uint8)
    label[1] = 1
    sequence(root, "t", ["f"], ["f"], label=label)
    assert len(open_data(f"folder:{root}", "all").sequences) == 2
