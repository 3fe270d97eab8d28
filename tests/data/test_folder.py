import numpy as np
import pytest

from contracts.imagefiles import SIZE, DiskDataContract, picture, write_image
from contracts.trees import sequence, write_classes
from lmanet.classes import VOID
from lmanet.data.folder import load_folder, scan_folder
from lmanet.errors import DataError

COLOURS = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


class TestFolder(DiskDataContract):
    image = "images/drive/f10.png"
    label = "labels/drive/f10.png"
    wrong_value = 3

    def make(self, root):
        write_classes(root)
        sequence(root, "drive", ["f1", "f2", "f10"], ["f1", "f10"])
        sequence(root, "walk", ["a", "b"], ["b"], suffix=".jpg")
        sequence(root, "unlabelled", ["a"])

    def load(self, root):
        return load_folder(root, "all")

    def test_sequences_are_folders_in_natural_order(self, data):
        assert [s.name for s in data.sequences] == ["drive", "unlabelled", "walk"]
        assert data.sequences[0].frame_names == ("f1", "f2", "f10")
        assert [s.labelled for s in data.sequences] == [(True, False, True), (False,), (False, True)]
        assert data.sequences[0].spacing_s == 0.04
        assert data.classes.names == ("road", "car", "tree")

    def test_splits_are_lists_of_sequences(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / "train.txt").write_text("walk\n\ndrive\n")
        assert [s.name for s in load_folder(tmp_path, "train").sequences] == ["walk", "drive"]
        with pytest.raises(
            DataError, match=r"val\.txt is missing.*split all.*found: drive, unlabelled, walk"
        ):
            load_folder(tmp_path, "val")
        (tmp_path / "val.txt").write_text("walk\nrun\n")
        with pytest.raises(DataError, match=r"images/run is missing.*val\.txt names"):
            load_folder(tmp_path, "val")
        (tmp_path / "val.txt").write_text("\n")
        with pytest.raises(DataError, match=r"val\.txt holds no sequence"):
            load_folder(tmp_path, "val")


def test_void_and_colours_are_what_the_file_says(tmp_path):
    write_classes(tmp_path, void=[7, 9], colours=[[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    values = np.array([[0, 7], [9, 2]], np.uint8).repeat(6, 0).repeat(8, 1)
    data = load_folder(sequence(tmp_path, "s", ["f"], ["f"], label=values), "all")
    assert data.classes.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    expected = np.array([[0, VOID], [VOID, 2]]).repeat(6, 0).repeat(8, 1)
    np.testing.assert_array_equal(data.sequences[0].label(0), expected)
    # 255 is then no longer void.
    sequence(tmp_path, "s", ["f"], ["f"], label=np.full(SIZE, 255, np.uint8))
    with pytest.raises(
        DataError, match=r"labels/s/f\.png: label 255 in.*0 to 2, or void, \[7, 9\].*classes\.json"
    ):
        data.sequences[0].label(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": None}, r'expected \{"names"'),
        ({"fps": None}, r'expected \{"names"'),
        (
            {"colors": []},
            "unknown key 'colors': known are names, fps, first_id, values, void, colours, labels",
        ),
        ({"names": []}, r"names are \[\]"),
        ({"names": "road"}, "names are 'road'"),
        ({"names": {"0": "road"}}, "names are {'0': 'road'}: expected a list of 1 to 255 different ones"),
        ({"names": ["a", " "]}, "names are .* expected a list"),
        ({"names": ["a", "a"]}, "names hold 'a' twice: expected 1 to 255 different ones"),
        ({"names": [f"c{i}" for i in range(256)]}, "names are 256: expected 1 to 255.*ids go up to 254"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": "25"}, "fps is '25'"),
        ({"fps": True}, "fps is True"),
        ({"void": [2]}, "void is .* 2 is also the value of the class 'tree'"),
        ({"void": 0}, "0 is also the value of the class 'road'.*\"first_id\": 1"),
        ({"void": [-1]}, "void is .* expected a value in the label files, 0 to 65535"),
        ({"void": "255"}, "void is '255'"),
        ({"first_id": -1}, "first_id is -1: expected the value of the first class"),
        ({"first_id": True}, "first_id is True"),
        ({"first_id": 65534}, "first_id is 65534"),
        ({"first_id": 1, "values": [1, 2, 3]}, "first_id and values say the same thing in two ways"),
        ({"values": [0, 255]}, "values are .* expected one for each of the 3 names"),
        ({"values": [0, 1, []]}, "values are"),
        ({"values": [0, 1, "2"]}, "values are"),
        ({"values": [0, 1, 65536]}, "values are"),
        ({"values": [0, [1, 2], 2]}, "values hold 2 twice"),
        ({"values": [0, 1, 255], "void": 255}, "255 is also the value of the class 'tree'"),
        ({"labels": "colors"}, 'labels is \'colors\': expected "ids" or "colours"'),
        ({"labels": "colours"}, '"labels": "colours" without colours'),
        ({"labels": "colours", "colours": [[0, 0, 0]] * 3}, "two classes have the colour \\[0, 0, 0\\]"),
        ({"labels": "colours", "colours": COLOURS, "first_id": 1}, 'first_id with "labels": "colours"'),
        ({"labels": "colours", "colours": COLOURS, "void": 255}, "void is 255: .*expected a colour"),
        ({"labels": "colours", "colours": COLOURS, "void": [1, 0, 0]}, "also the colour of the class 'car'"),
        ({"colours": [[0, 0, 0]]}, "colours are"),
        ({"colours": [[0, 0, 0], [0, 0, 256], [0, 0, 0]]}, "colours are"),
        ({"colours": [[0, 0, 0], [0, 0], [0, 0, 0]]}, "colours are"),
        ({"colours": [1, 2, 3]}, "colours are"),
    ],
)
def test_a_malformed_classes_file_is_named(tmp_path, changes, message):
    write_classes(tmp_path, **changes)
    sequence(tmp_path, "s", ["f"], ["f"])
    with pytest.raises(DataError, match=rf"classes\.json: .*{message}|classes\.json: {message}"):
        load_folder(tmp_path, "all")


def test_what_json_gets_wrong_is_told_with_its_line(tmp_path):
    sequence(tmp_path, "s", ["f"], ["f"])
    for content, message in {
        '{"names": ["a"],\n "fps": 3,}': "line 2",
        '{"names": ["a"], "names": ["b"], "fps": 3}': "the key 'names' is there twice",
    }.items():
        (tmp_path / "classes.json").write_text(content)
        with pytest.raises(DataError, match=message):
            load_folder(tmp_path, "all")
    (tmp_path / "classes.json").write_text(
        '\ufeff{"names": ["a", "b"], "fps": 3}'
    )  # as Windows' editors write
    assert load_folder(tmp_path, "all").classes.names == ("a", "b")


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_classes_file_that_is_none_is_named(tmp_path, content):
    sequence(tmp_path, "s", ["f"], ["f"])
    if content:
        (tmp_path / "classes.json").write_text(content)
    with pytest.raises(DataError, match=r'classes\.json.*expected \{"names": \["road", "car"\], "fps": 30\}'):
        load_folder(tmp_path, "all")


def test_every_problem_is_told(tmp_path):
    write_classes(tmp_path)
    sequence(tmp_path, "s", ["f1", "f2", "f3"], ["f1", "f2", "f3"])
    (tmp_path / "images/s/f2.png").unlink()
    write_image(tmp_path / "images/s/f1.jpg", picture())
    (tmp_path / "images/s/notes.txt").touch()
    (tmp_path / "images/s/.hidden").touch()
    write_image(tmp_path / "labels/s/f3.jpg", picture())
    write_image(tmp_path / "images/loose.png", picture())
    (tmp_path / "images/void").mkdir()
    write_image(tmp_path / "labels/loose.png", picture())
    write_image(tmp_path / "labels/t/f1.png", np.zeros(SIZE, np.uint8))
    data = scan_folder(tmp_path, "all")
    expected = [
        "images/loose.png: expected folders of frames",
        "labels/loose.png: expected folders of labels",
        "images/t is missing: the frames of",
        "images/s/f1.png and f1.jpg are the same frame",
        "images/s/notes.txt: expected files of type .png, .jpg, .jpeg",
        "labels/s/f3.jpg: expected files of type .png, .bmp, .tif, .tiff (JPEG changes the values",
        "images/s/f2.png or .jpg is missing: the frame of",
        "images/void holds no frames",
    ]
    assert len(data.problems) == len(expected)
    for words, problem in zip(expected, data.problems, strict=True):
        assert words in problem
    assert [s.frame_names for s in data.sequences] == [("f1", "f3")]


def test_without_images_it_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"images is missing: expected a folder of frames"):
        load_folder(write_classes(tmp_path), "all")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="images holds no sequence"):
        load_folder(tmp_path, "all")


@pytest.mark.parametrize("name", ["f2_mask.png", "f2_labelIds.png", "f2.png.png", "f2-seg.tif"])
def test_labels_of_other_names_are_told_what_to_be_called(tmp_path, name):
    write_classes(tmp_path)
    sequence(tmp_path, "s", ["f", "f2", "f22"])
    write_image(tmp_path / "labels/s" / name, np.zeros(SIZE, np.uint8))
    assert len(problems := scan_folder(tmp_path, "all").problems) == 1
    assert problems[0].endswith("if it is that of f2.png, call it f2.png")


@pytest.mark.parametrize(("name", "words"), [("f.npy", "an array"), ("f.json", "lmanet data convert")])
def test_labels_that_are_no_images_are_told_what_to_become(tmp_path, name, words):
    sequence(write_classes(tmp_path), "s", ["f"])
    (tmp_path / "labels/s").mkdir(parents=True)
    (tmp_path / "labels/s" / name).touch()
    (problem,) = scan_folder(tmp_path, "all").problems
    assert "expected files of type .png" in problem and words in problem
