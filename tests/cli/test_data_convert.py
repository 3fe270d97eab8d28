from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.imagefiles import SIZE, picture, write_image
from lmanet.cli.main import main

BOX = [[2, 2], [9, 2], [9, 7], [2, 7]]


def drive(root: Path, **more: object) -> Path:
    """Two frames as labelme has them."""
    for i in range(2):
        write_image(root / f"f{i}.png", picture(i))
        content = {
            "shapes": [{"label": "car", "points": BOX, "shape_type": "polygon"}],
            "imagePath": f"f{i}.png",
            "imageHeight": SIZE[0],
            "imageWidth": SIZE[1],
        }
        (root / f"f{i}.json").write_text(json.dumps(content | more))
    return root


def test_what_labelme_drew_is_converted_checked_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["data", "convert", "labelme", str(drive(tmp_path / "drive")), "-o", str(out)]
    assert main([*command, "--fps", "10", "--split", "train"]) == 0
    shown = capsys.readouterr().err
    assert f"{out}: 2 frames, 2 of them labelled, in 1 sequence" in shown
    assert "10 frames a second" in shown and "2 classes: background, car" in shown
    assert main(["data", "check", f"folder:{out}", "--split", "train"]) == 0
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err


def test_what_coco_has_is_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools, the extra coco, is not installed")
    write_image(tmp_path / "images/a/f.png", picture())
    content = {
        "images": [{"id": 4, "file_name": "a/f.png", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 9, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 9, "segmentation": [[2, 2, 9, 2, 9, 7, 2, 7]]}
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    command = ["data", "convert", "coco", str(tmp_path / "c.json"), "--images", str(tmp_path / "images")]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert "look at it by: lmanet data check" in capsys.readouterr().err
    assert main(["data", "check", f"folder:{tmp_path / 'out'}", "--split", "all"]) == 0


def test_every_problem_is_told_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = drive(tmp_path / "drive", imageHeight=99)
    assert main(["data", "convert", "labelme", str(root), "-o", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert shown.count("problem: ") == 2 and "2 problems, listed above: nothing is written" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cvat", "x"], "format 'cvat': expected coco or labelme; export the task as COCO 1.0"),
        (["masks", "x"], "format 'masks': expected coco or labelme"),
        (["coco", "x.json"], "coco needs --images"),
        (["coco", "x.json", "--images", ".", "--names", "a"], "--names is for labelme"),
        (["labelme", "x", "--images", "."], "--images is for coco"),
        (["labelme", "x"], "x is not a folder"),
        (["labelme", ".", "--split", "a/b"], "split 'a/b'"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "convert", *arguments, "-o", "out"]) == 2
    assert words in capsys.readouterr().err


def test_without_pycocotools_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.mask", None)
    assert main(["data", "convert", "coco", "c.json", "--images", ".", "-o", str(tmp_path / "out")]) == 2
    assert "pip install 'lmanet[coco]'" in capsys.readouterr().err
