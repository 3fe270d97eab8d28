"""COCO's and labelme's files, made here as the tools write them, to folders of labelled videos."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from contracts.imagefiles import SIZE, picture, write_image
from lmanet.classes import VOID
from lmanet.data.convert.labelme import read_labelme
from lmanet.data.convert.output import ConversionError, write_folder
from lmanet.data.folder import load_folder
from lmanet.errors import DataError, InputError

SQUARE = [2, 2, 10, 2, 10, 8, 2, 8]
INNER = [4, 4, 6, 4, 6, 6, 4, 6]


def rectangle(x1, y1, x2, y2, value, label=None):
    label = np.zeros(SIZE, np.uint8) if label is None else label
    label[y1:y2, x1:x2] = value
    return label


@pytest.fixture
def read_coco():
    pytest.importorskip("pycocotools", reason="pycocotools, the extra coco, is not installed")
    from lmanet.data.convert.coco import read_coco

    return read_coco


def coco(root, files, annotations, categories=((3, "car"), (1, "road")), **more):
    """A file of annotations, and its images: annotations are (image, category, segmentation)."""
    for name in files:
        write_image(root / "images" / name, picture())
    content = {
        "images": [
            {"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for i, name in enumerate(files)
        ],
        "categories": [{"id": number, "name": name} for number, name in categories],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "segmentation": s, "iscrowd": int(isinstance(s, dict))}
            for n, (i, c, s) in enumerate(annotations)
        ],
    }
    (root / "coco.json").write_text(json.dumps(content | more))
    return root / "coco.json", root / "images"


def converted(conversion, out, **options):
    write_folder(conversion, out, fps=25, **options)
    return load_folder(out, "all")


def test_coco_becomes_a_folder_of_videos(tmp_path, read_coco):
    files = ["b/f2.png", "b/f10.png", "a.png"]
    paths = coco(
        tmp_path, files, [(0, 1, [INNER]), (0, 3, [SQUARE]), (2, 3, [SQUARE, [12, 2, 14, 2, 14, 4, 12, 4]])]
    )
    conversion = read_coco(*paths)
    assert conversion.names == ("background", "road", "car")  # by id
    assert conversion.notes == ("1 of 3 images have no annotation and get no label",)
    data = converted(conversion, tmp_path / "out", split="train")
    assert [(s.name, s.frame_names, s.labelled) for s in data.sequences] == [
        ("b", ("f2", "f10"), (True, False)),
        ("images", ("a",), (True,)),
    ]
    # The smaller lies on top, wherever it stands in the file.
    expected = rectangle(4, 4, 6, 6, 1, rectangle(2, 2, 10, 8, 2))
    np.testing.assert_array_equal(data.sequences[0].label(0), expected)
    np.testing.assert_array_equal(
        data.sequences[1].label(0), rectangle(12, 2, 14, 4, 2, rectangle(2, 2, 10, 8, 2))
    )
    np.testing.assert_array_equal(data.sequences[0].image(0), picture())
    assert (tmp_path / "out/images/b/f2.png").samefile(tmp_path / "images/b/f2.png")
    assert (tmp_path / "out/train.txt").read_text() == "b\nimages\n"


def test_coco_run_lengths_are_read_packed_or_not(tmp_path, read_coco):
    from pycocotools import mask

    pixels = rectangle(3, 1, 7, 9, 1)
    pixels[4:6, 4:6] = 0  # a hole
    packed = mask.encode(np.asfortranarray(pixels))
    flat = pixels.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    shapes = [
        {"size": list(SIZE), "counts": packed["counts"].decode()},
        {"size": list(SIZE), "counts": counts},
    ]
    paths = coco(tmp_path, ["f1.png", "f2.png"], [(0, 3, shapes[0]), (1, 3, shapes[1])])
    data = converted(read_coco(*paths, unlabelled="void"), tmp_path / "out")
    assert data.classes.names == ("road", "car")
    for i in range(2):
        np.testing.assert_array_equal(data.sequences[0].label(i), np.where(pixels, 1, VOID))


def test_a_category_called_background_is_the_background(tmp_path, read_coco):
    paths = coco(tmp_path, ["f.png"], [(0, 0, [SQUARE])], [(0, "car"), (7, "Background")])
    data = converted(read_coco(*paths), tmp_path / "out")
    assert data.classes.names == ("Background", "car")
    np.testing.assert_array_equal(data.sequences[0].label(0), rectangle(2, 2, 10, 8, 1))


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ((5, 1, [SQUARE]), "annotation 0: image_id 5 is none of the images'"),
        ((0, 2, [SQUARE]), "annotation 0: category_id 2 is none of the categories'"),
        ((0, 1, []), "no segmentation, as of boxes"),
        ((0, 1, None), "no segmentation"),
        ((0, 1, "abc"), "a segmentation that is a str"),
        ((0, 1, [SQUARE[:4]]), "a polygon of 2 points"),
        ((0, 1, [SQUARE[:7]]), "no list"),
        ((0, 1, SQUARE), "no list"),
        ((0, 1, [[*SQUARE, "1", 2]]), "no list"),
        ((0, 1, [[*SQUARE, 1e9, 2]]), "far outside"),
        ((0, 1, [[*SQUARE, float("nan"), 2]]), "no list"),
        ((0, 1, {"size": [3, 4], "counts": [12]}), r"size \[3, 4\]: expected \[12, 16\]"),
        ((0, 1, {"size": 3, "counts": [12]}), "size 3"),
        ((0, 1, {"size": list(SIZE), "counts": [100, 200]}), "do not add up"),
        ((0, 1, {"size": list(SIZE), "counts": [-1, 193]}), "do not add up"),
        ((0, 1, {"size": list(SIZE)}), "without counts"),
        ((0, 1, {"size": list(SIZE), "counts": "zzz"}), "damaged"),
        ((0, 1, {"size": list(SIZE), "counts": "é"}), "damaged"),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path, read_coco, annotation, words):
    paths = coco(tmp_path, ["f.png"], [annotation])
    with pytest.raises(ConversionError, match=words):
        converted(read_coco(*paths), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"file_name": "gone.png"}, "gone.png is missing: image 0"),
        ({"file_name": "x/f.png"}, r"f\.png is there: file_name and --images do not fit"),
        ({"file_name": "../f.png"}, "expected a path below"),
        ({"file_name": None}, "expected both"),
        ({"width": 99}, "12×16, those in the annotations 12×99"),
    ],
)
def test_a_wrong_image_is_named(tmp_path, read_coco, entry, words):
    whole = {"id": 0, "file_name": "f.png", "height": SIZE[0], "width": SIZE[1]}
    paths = coco(tmp_path, ["f.png"], [(0, 1, [SQUARE])], images=[whole | entry])
    with pytest.raises(ConversionError, match=words):
        converted(read_coco(*paths), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"shapes": []}, "lmanet data convert labelme"),
        ({"_via_img_metadata": {}}, "VIA"),
        ({"imgHeight": 3, "objects": []}, "cityscapes:PATH"),
        ([{"image_id": 1}], "a list, as COCO's files of results do"),
        ({"images": []}, "no list of annotations"),
        ({"images": [], "categories": [], "annotations": [{"segments_info": []}]}, "panoptic"),
        ({"images": [], "annotations": [], "categories": [{"id": "1", "name": "a"}]}, "expected an id"),
        ({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}] * 2}, "is there twice"),
        (
            {"images": [], "annotations": [], "categories": [{"id": i, "name": f"c{i}"} for i in range(255)]},
            "256 classes: expected 1 to 255",
        ),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, read_coco, content, words):
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=words):
        read_coco(tmp_path / "coco.json", tmp_path)


def labelme(path, drawn, /, *, image="", embed=False, **more):
    """A file of labelme, and beside it the image; drawn are (label, points) or (label, points, type)."""
    name = image or f"{path.stem}.png"
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {"label": label, "points": points, "shape_type": kind[0] if kind else "polygon", "group_id": 1}
            for label, points, *kind in drawn
        ],
        "imagePath": name,
        "imageData": None,
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    }
    if embed:
        buffer = io.BytesIO()
        Image.fromarray(picture()).save(buffer, "PNG")
        content["imageData"] = base64.b64encode(buffer.getvalue()).decode()
    else:
        write_image(path.parent / name.replace("\\", "/"), picture())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | more))


BOX = [[2, 2], [9, 2], [9, 7], [2, 7]]
"""Corners that are pixels of it, as labelme draws it."""


def test_labelme_becomes_a_folder_of_videos(tmp_path):
    root = tmp_path / "drive"
    labelme(root / "a/f2.json", [("car", BOX), ("person", [[4, 4], [5, 5]], "rectangle")])
    labelme(root / "a/f10.json", [("person", BOX), ("__ignore__", [[4, 4], [5, 5]], "rectangle")])
    write_image(root / "a/f3.png", picture())
    labelme(root / "b/f.json", [("_background_", BOX), ("point", [[1, 1]], "point")], embed=True)
    conversion = read_labelme(root)
    assert conversion.names == ("background", "car", "person")
    assert conversion.notes == (
        "1 images have no JSON file and get no label",
        "shapes without an area are left out: 1 of type point",
    )
    data = converted(conversion, tmp_path / "out")
    assert [(s.name, s.frame_names, s.labelled) for s in data.sequences] == [
        ("a", ("f2", "f3", "f10"), (True, False, True)),
        ("b", ("f",), (True,)),
    ]
    first, last = data.sequences[0].label(0), data.sequences[0].label(2)
    np.testing.assert_array_equal(first, rectangle(4, 4, 6, 6, 2, rectangle(2, 2, 10, 8, 1)))
    np.testing.assert_array_equal(last, rectangle(4, 4, 6, 6, VOID, rectangle(2, 2, 10, 8, 2)))
    np.testing.assert_array_equal(data.sequences[1].label(0), 0)
    np.testing.assert_array_equal(data.sequences[1].image(0), picture())


def test_labelme_circles_and_masks(tmp_path):
    mask = np.zeros((3, 4), bool)
    mask[1, 1:3] = True
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    labelme(tmp_path / "in/f.json", [("a", [[4, 5], [6, 5]], "circle"), ("b", [[10, 2], [13, 4]], "mask")])
    content = json.loads((tmp_path / "in/f.json").read_text())
    content["shapes"][1]["mask"] = base64.b64encode(buffer.getvalue()).decode()
    (tmp_path / "in/f.json").write_text(json.dumps(content))
    label = (
        converted(read_labelme(tmp_path / "in", unlabelled="void"), tmp_path / "out").sequences[0].label(0)
    )
    assert np.argwhere(label == 1).tolist() == [[3, 11], [3, 12]]
    rows, columns = np.nonzero(label == 0)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 7, 2, 6)
    assert label[3, 2] == VOID and label[5, 4] == 0
    content["shapes"][1]["mask"] = "iVBORw0"
    (tmp_path / "in/f.json").write_text(json.dumps(content))
    with pytest.raises(ConversionError, match="its mask cannot be read"):
        converted(read_labelme(tmp_path / "in"), tmp_path / "other")


def test_labelme_files_beside_a_folder_of_images(tmp_path):
    labelme(tmp_path / "in/json/f.json", [("car", BOX)], image="..\\frames\\f.png")
    write_image(tmp_path / "in/frames/f1.png", picture())
    data = converted(read_labelme(tmp_path / "in"), tmp_path / "out")
    assert [(s.name, s.frame_names, s.labelled) for s in data.sequences] == [
        ("frames", ("f", "f1"), (True, False))
    ]


def test_labelme_classes_may_be_named(tmp_path):
    labelme(tmp_path / "in/f.json", [("car", BOX)])
    assert read_labelme(tmp_path / "in", names=["road", "car"]).names == ("background", "road", "car")
    with pytest.raises(ConversionError, match="shapes are called 'car', which --names lacks"):
        converted(read_labelme(tmp_path / "in", names=["road"]), tmp_path / "out")
    with pytest.raises(InputError, match="expected different ones"):
        read_labelme(tmp_path / "in", names=["a", "a"])


@pytest.mark.parametrize(
    ("shapes", "more", "words"),
    [
        ([("a", BOX[:2])], {}, "shape 0: a polygon of 2 points"),
        ([("a", BOX[:1], "rectangle")], {}, "a rectangle of 1 points: expected 2"),
        ([("a", BOX, "cuboid")], {}, "a shape of type 'cuboid': expected polygon"),
        ([("", BOX)], {}, "expected a label and points"),
        ([("a", [[1, 2, 3]] * 3)], {}, "no list of"),
        ([("a", [*BOX, [1e9, 0]])], {}, "far outside"),
        ([("a", BOX)], {"imageHeight": 99}, "99×16, those of .* 12×16"),
        ([("a", BOX)], {"imagePath": "gone.png"}, "gone.png is missing: the image of .*no imageData"),
        ([("a", BOX)], {"imagePath": "gone.png", "imageData": "iVBORw0K"}, "imageData cannot be read"),
        ([("a", BOX)], {"imagePath": "gone.png", "imageData": 3}, "imageData cannot be read"),
        ([("a", BOX)], {"imagePath": None}, "imagePath is None"),
        ([], {"shapes": None}, "none of labelme's files"),
    ],
)
def test_a_wrong_file_of_labelme_is_named(tmp_path, shapes, more, words):
    labelme(tmp_path / "in/f.json", shapes, **more)
    with pytest.raises(ConversionError, match=rf"f\.json.*{words}|{words}"):
        converted(read_labelme(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_as_json_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no JSON file"):
        read_labelme(tmp_path)
    (tmp_path / "f.json").write_text("{")
    with pytest.raises(ConversionError, match=r"f\.json cannot be read as JSON"):
        converted(read_labelme(tmp_path), tmp_path / "out")


def test_two_frames_of_one_name_are_refused(tmp_path):
    labelme(tmp_path / "in/f.json", [("a", BOX)])
    write_image(tmp_path / "in/f.jpg", picture())
    with pytest.raises(ConversionError, match=r"are the same frame"):
        converted(read_labelme(tmp_path / "in"), tmp_path / "out")


def test_a_folder_that_is_there_is_not_written_to(tmp_path):
    labelme(tmp_path / "in/f.json", [("a", BOX)])
    with pytest.raises(InputError, match="is there already"):
        converted(read_labelme(tmp_path / "in"), tmp_path / "in")
    with pytest.raises(InputError, match="fps 0"):
        write_folder(read_labelme(tmp_path / "in"), tmp_path / "out", fps=0)


def test_coordinates_that_are_no_pixels_are_refused(tmp_path, read_coco):
    share = [0.1, 0.1, 0.9, 0.1, 0.9, 0.9]
    read = read_coco(*coco(tmp_path, ["a.png"], [(0, 1, [share])]))
    assert len(read.problems) == 1 and "within 0 and 1: expected pixels" in read.problems[0]
    # A speck in the corner beside others is one.
    assert not read_coco(*coco(tmp_path, ["a.png"], [(0, 1, [share]), (0, 3, [SQUARE])])).problems
    drawn = [("car", [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]])]
    labelme(tmp_path / "drawn/f.json", drawn)
    assert "within 0 and 1: expected pixels" in read_labelme(tmp_path / "drawn").problems[0]


def test_coco_without_sizes(tmp_path, read_coco):
    images = [{"id": 0, "file_name": "a.png", "height": None, "width": None}]
    read = read_coco(*coco(tmp_path, ["a.png"], [(0, 1, [SQUARE])], images=images))
    assert not read.problems and len(read.images) == 1


@pytest.mark.parametrize("folder", ["C:\\Users\\me\\drive\\", "/home/me/drive/"])
def test_labelme_of_another_machine_beside_its_images(tmp_path, folder):
    labelme(tmp_path / "drive/f.json", [("car", BOX)], image="f.png", imagePath=f"{folder}f.png")
    data = converted(read_labelme(tmp_path / "drive"), tmp_path / "out")
    assert data.sequences[0].frame_names == ("f",)
    (tmp_path / "drive/f.png").unlink()
    assert "f.png is missing: the image of" in read_labelme(tmp_path / "drive").problems[0]
