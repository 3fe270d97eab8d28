import pytest

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
