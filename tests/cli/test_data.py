from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.imagefiles import SIZE, picture, write_image
from contracts.trees import segnet, sequence, snippet, write_classes
from lmanet import ERFNet, LMANet, Session, SingleFrame
from lmanet.cli.main import main
from lmanet.data.cityscapes import CITYSCAPES_CLASSES, LABEL_IDS
from lmanet.evaluation.results import EvaluationReport
from lmanet.zoo import load, save_model


@pytest.fixture
def cityscapes_weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    backbone = ERFNet(19)
    save_model(SingleFrame(backbone), tmp_path / "single.safetensors", classes=CITYSCAPES_CLASSES)
    model = LMANet(backbone, memory_size=2, window=5)
    path = tmp_path / "cityscapes.safetensors"
    save_model(model, path, classes=CITYSCAPES_CLASSES, single_frame="single.safetensors")
    return path


def test_check_shows_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segnet(tmp_path, [f"0016E5_{n:05d}" for n in (390, 420, 900)], label=np.full(SIZE, 3, np.uint8))
    assert main(["data", "check", f"camvid:{tmp_path}", "--split", "train"]) == 0
    shown = capsys.readouterr().out
    assert "camvid/train: 3 frames in 2 sequences of 1 to 2, 1 s apart" in shown
    assert "heights and widths: 12×16 (3)" in shown
    assert "read 3 images and 3 labels in" in shown and "images a second" in shown
    assert "100.00 %" in shown and "void: 0.00 %" in shown


def test_check_lists_every_problem_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segnet(tmp_path, [f"0016E5_{n:05d}" for n in (390, 420, 450)])
    (tmp_path / "trainannot/0016E5_00390.png").unlink()
    write_image(tmp_path / "trainannot/0016E5_00450.png", picture())
    assert main(["data", "check", f"camvid:{tmp_path}", "--split", "train", "--all"]) == 2
    shown = capsys.readouterr()
    problems = [line for line in shown.out.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2
    assert "0016E5_00390.png is missing" in problems[0] and "0016E5_00450.png: colour (" in problems[1]
    assert shown.err.strip().splitlines()[-1] == "lmanet: camvid/train: 2 problems, listed above"


def test_check_reads_what_a_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segnet(tmp_path, ["0016E5_00390"])
    assert main(["data", "check", f"camvid:{tmp_path}"]) == 2
    shown = capsys.readouterr()
    assert "camvid/train: 1 frame in 1 sequence of 1" in shown.out and "val" in shown.err
    segnet(tmp_path, ["0016E5_07959"], split="val")
    assert main(["data", "check", f"camvid:{tmp_path}"]) == 0
    assert "camvid/val: 1 frame in" in capsys.readouterr().out
    for split in ("train", "val"):
        (next((tmp_path / f"{split}annot").iterdir())).unlink()
    assert main(["data", "check", f"camvid:{tmp_path}"]) == 2
    assert "camvid/train: 1 problem; camvid/val: 1 problem, listed above" in capsys.readouterr().err


def test_check_of_frames_alone_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snippet(tmp_path, split="test")
    assert main(["data", "check", f"cityscapes:{tmp_path}", "--split", "test"]) == 0
    assert "no frame is labelled" in capsys.readouterr().out


def folder(root: Path, *labels: np.ndarray, **classes: object) -> Path:
    """A folder of one sequence in train and one in val, labelled alike."""
    write_classes(root, **classes)
    for split in ("train", "val"):
        for i, label in enumerate(labels):
            sequence(root, split, [f"f{i}"], [f"f{i}"], label=label)
        (root / f"{split}.txt").write_text(split)
    return root


def test_masks_of_0_and_255_are_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[3] = 255
    root = folder(tmp_path, mask, names=["background", "car"])
    assert main(["data", "check", f"folder:{root}"]) == 2
    shown = capsys.readouterr()
    assert shown.out.count('write "values": [0, 255] into it') == 2
    assert "train: 1 problem" in shown.err
    # ... and nothing is trained or scored.
    for command in (
        ["train", "erfnet", "-o", str(tmp_path / "out")],
        ["evaluate", "--weights", "erfnet-synthetic"],
    ):
        assert main([*command, "--data", f"folder:{root}"]) == 2
        assert 'write "values": [0, 255] into it' in capsys.readouterr().err
    folder(tmp_path, mask, names=["background", "car"], values=[0, 255])
    assert main(["data", "check", f"folder:{root}"]) == 0
    assert "none" not in capsys.readouterr().out


def test_a_class_that_never_occurs_is_a_problem_also_where_255_is_said_to_be_void(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[3] = 255
    root = folder(tmp_path, mask, names=["background", "car"], void=255)
    assert main(["data", "check", f"folder:{root}"]) == 2
    assert "holds the class 'car': see whether" in capsys.readouterr().out


def test_names_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = np.zeros(SIZE, np.uint8)
    label[3] = 1
    root = folder(tmp_path / "[bold]", label, names=["[red]road", "[/]car"])
    assert main(["data", "check", f"folder:{root}"]) == 0
    shown = capsys.readouterr().out
    assert "[red]road" in shown and "[/]car" in shown


def test_classes_that_never_occur_are_a_problem_of_ones_own_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.ones(SIZE, np.uint8)
    label[0] = 2
    root = folder(tmp_path / "mine", label)
    assert main(["data", "check", f"folder:{root}"]) == 2
    shown = capsys.readouterr()
    assert "problem: no label of mine/train, mine/val holds the class 'road': if the label" in shown.out
    assert '"first_id": 1' in shown.out
    assert "classes that never occur, listed above" in shown.err
    # Of validation data alone, and of others' data sets, it is no more than worth knowing.
    assert main(["data", "check", f"folder:{root}", "--split", "val"]) == 0
    assert "note: no label of mine/val holds the class 'road'" in capsys.readouterr().out
    segnet(tmp_path, ["0016E5_00390"], label=np.zeros(SIZE, np.uint8))
    assert main(["data", "check", f"camvid:{tmp_path}", "--split", "train"]) == 0
    assert "note: no label of camvid/train holds 10 of 11 classes: building, pole" in capsys.readouterr().out


def test_a_class_that_is_in_another_split_is_worth_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE) % 3
    root = folder(tmp_path / "mine", label)
    sequence(root, "val", ["f0"], ["f0"], label=label // 2)
    assert main(["data", "check", f"folder:{root}"]) == 0
    assert "note: no label of mine/val holds the class 'tree'" in capsys.readouterr().out


def test_problems_of_one_kind_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path, *[np.full(SIZE, 7, np.uint8)] * 9)
    assert main(["data", "check", f"folder:{root}", "--split", "train"]) == 2
    shown = capsys.readouterr().out
    assert "problem: 9 of 9 labels hold 7, in 1728 pixels: " in shown and "--all lists each" in shown
    assert shown.count("problem: ") == 2
    assert main(["data", "check", f"folder:{root}", "--split", "train", "--all"]) == 2
    assert capsys.readouterr().out.count("problem: ") == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "kitti:x"], ["cityscapes:PATH", "vspw:PATH"]),
        (["check", "synthetic:", "--threads", "0"], ["threads 0"]),
        (["cityscapes", "."], ["--list-needed or --submit"]),
        (["cityscapes", ".", "--list-needed", "--submit", "x"], ["--list-needed or --submit"]),
        (["cityscapes", ".", "--submit", "x"], ["--weights"]),
        (["cityscapes", ".", "--list-needed"], ["holds no Cityscapes train"]),
    ],
)
def test_what_cannot_be_done_is_refused(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error


def test_needed_files_are_listed_one_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snippet(tmp_path, before=0)
    snippet(tmp_path, "frankfurt", split="val", frame=294, before=0)
    assert main(["data", "cityscapes", str(tmp_path), "--list-needed"]) == 0
    lines = capsys.readouterr().out.splitlines()
    val = [
        f"leftImg8bit_sequence/val/frankfurt/frankfurt_000000_{i:06d}_leftImg8bit.png"
        for i in range(290, 294)
    ]
    assert len(lines) == 8 and lines[4:] == val
    command = ["data", "cityscapes", str(tmp_path), "--list-needed", "--split", "val", "--memory-size", "2"]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == val[2:]


def test_needed_files_may_be_piped_into_head(tmp_path: Path) -> None:
    folder = tmp_path / "gtFine/train/aachen"
    folder.mkdir(parents=True)
    for number in range(100):
        (folder / f"aachen_{number:06d}_000019_gtFine_labelIds.png").touch()
    command = [sys.executable, "-m", "lmanet.cli.main", "data", "cityscapes", str(tmp_path), "--list-needed"]
    with subprocess.Popen(
        [*command, "--memory-size", "19"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "aachen_000000_000000" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize("resize", [(), ("--resize", "8", "8")])
def test_submission_holds_the_servers_ids_of_every_labelled_frame(
    resize: tuple[str, ...], cityscapes_weights: Path, tmp_path: Path
) -> None:
    root, out = tmp_path / "data", tmp_path / "submission"
    for number in range(2):
        snippet(root, "berlin", number, split="test", before=4)
    command = [
        "data",
        "cityscapes",
        root,
        "--submit",
        out,
        "--weights",
        cityscapes_weights,
        "--device",
        "cpu",
        *resize,
    ]
    assert main([str(a) for a in command]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"berlin_00000{i}_000019_labelIds.png" for i in range(2)]
    session = Session(load(str(cityscapes_weights)), resize=(8, 8) if resize else None)
    for number, name in enumerate(names):
        session.reset()
        for age in (2, 1, 0):
            labels = session.step(picture(100 * number + age)).labels
        with Image.open(out / name) as file:
            assert (file.mode, file.size) == ("L", SIZE[::-1])
            np.testing.assert_array_equal(np.array(file), np.array(LABEL_IDS)[labels])


def test_submission_needs_the_memorys_frames_and_the_classes(
    cityscapes_weights: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = snippet(tmp_path / "data", "berlin", split="test", before=1)
    command = [
        "data",
        "cityscapes",
        str(root),
        "--submit",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--weights",
    ]
    assert main([*command, str(cityscapes_weights)]) == 2
    assert "berlin_000000_000017_leftImg8bit.png is missing" in capsys.readouterr().err
    assert main([*command, str(weights), "--memory-size", "1"]) == 2
    assert "the model has 11 classes, cityscapes/test 19" in capsys.readouterr().err


def test_cityscapes_is_scored_on_its_labelled_frames(
    cityscapes_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "data", tmp_path / "report.json"
    for number in range(2):
        snippet(root, "frankfurt", number, split="val", before=3)
    data = f"cityscapes:{root},size=24x32"
    assert main(["evaluate", "--data", data, "--weights", str(cityscapes_weights), "--json", str(out)]) == 0
    report = EvaluationReport.from_json(out.read_text())
    assert report.data == "cityscapes/val,size=24x32"
    for scores in report.scores.values():
        assert (scores.frames, scores.labelled_frames) == (8, 2)
        assert 0 <= scores.miou <= 1 and 0 <= scores.tc <= 1
        assert np.isnan([scores.flicker, *scores.vc.values()]).all()
    assert "nan" not in capsys.readouterr().out.lower()


def test_training_from_cityscapes(tmp_path: Path) -> None:
    root, single, memory = tmp_path / "data", tmp_path / "single", tmp_path / "memory"
    for split in ("train", "val"):
        for number in range(2):
            snippet(root, "aachen", number, split=split, before=2)
    common = ["--data", f"cityscapes:{root},size=24x32", "--precision", "fp32", "--workers", "0", "-o"]
    stage = ["--stage.epochs", "1", "--stage.batch-size", "2", "--augmentation.crop", "16", "16"]
    assert main(["train", "erfnet", *common, str(single), *stage]) == 0
    weights = ["--weights", str(single / "single-frame.safetensors")]
    steps = ["--memory-size", "2", "--draws", "1", "--pseudo", "1", "--memories", "real"]
    steps += [
        "--module.epochs",
        "1",
        "--joint.epochs",
        "1",
        "--module.batch-size",
        "2",
        "--joint.batch-size",
        "2",
    ]
    assert main(["train", "lmanet", *common, str(memory), *weights, *steps]) == 0
    assert load(str(memory / "lmanet.safetensors")).classes == CITYSCAPES_CLASSES
    # Only labelled frames have a label on disk.
    assert (memory / "frames/train/labels.bin").stat().st_size == 2 * 24 * 32
