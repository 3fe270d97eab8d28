from __future__ import annotations

from pathlib import Path

import pytest

import lmanet
from lmanet.cli.main import main
from lmanet.cli.renamed import PRESETS as RENAMED
from lmanet.data.synthetic import SyntheticDrive
from lmanet.methods import METHODS
from lmanet.training.recipes import PRESETS


def test_train_says_at_once_that_it_cannot_write(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for preset in (["erfnet"], ["label-memory", "--weights", str(weights.with_name("single.safetensors"))]):
        out = tmp_path / "file" / "out"
        assert main(["train", *preset, "--data", "synthetic:", "--tensorboard", "-o", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"lmanet: {out}: cannot be written") and len(error.splitlines()) == 1


def test_train_refuses_a_crop_for_a_memory(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "label-memory", "--data", "synthetic:", "-o", tmp_path / "x"]
    command += ["--weights", weights.with_name("single.safetensors"), "--augmentation.crop", "48", "64"]
    assert main([str(a) for a in command]) == 2
    assert "augmentation.crop (48, 64)" in capsys.readouterr().err


@pytest.mark.parametrize("before", RENAMED)
def test_presets_by_their_names_of_before_are_taken_with_a_warning(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The folder is called like the preset: it is none, and keeps its name.
    monkeypatch.chdir(tmp_path)
    (tmp_path / before).touch()
    command = ["train", before, "--data", "synthetic:", "--weights", "erfnet-synthetic", "-o", before]
    assert main(command) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning == f"warning: {before} is {RENAMED[before]} now: use that" and RENAMED[before] in PRESETS
    assert error.startswith(f"lmanet: {before}: cannot be written")


def test_lmanet_says_that_it_is_the_papers_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "lmanet", "--data", "nowhere:", "-o", str(tmp_path / "x")]) == 2
    note, error = capsys.readouterr().err.splitlines()
    assert note.startswith("note: lmanet trains the paper's memory of features") and "label-memory" in note
    assert error.startswith("lmanet: ")


OWN = """
import lmanet
from torch import nn


class Mine(lmanet.LMANet):
    method = "test-mine"
"""


@pytest.mark.filterwarnings("ignore:1 of 11 classes occur in no label")  # two frames
def test_a_method_of_the_users_own_is_trained(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_method.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    data = SyntheticDrive(split="val", sequences=1, frames=2, size=(48, 64))
    monkeypatch.setattr("lmanet.data.spec.open_data", lambda spec, split: data)
    command = [
        "train",
        "own",
        "--method",
        "own_method:Mine",
        "--arguments",
        "window",
        "3",
        "--memory-size",
        "1",
    ]
    command += ["--draws", "1", "--pseudo", "1", "--module.epochs", "1", "--joint.epochs", "0"]
    command += ["--data", "synthetic:", "-o", "out", "--workers", "0"]
    try:
        assert main([*command, "--weights", str(weights.with_name("single.safetensors"))]) == 0
        model = lmanet.load("out/test-mine.safetensors")
        assert type(model).__name__ == "Mine" and model.arguments["window"] == 3
    finally:
        METHODS.pop("test-mine", None)
    assert "weights in out/test-mine.safetensors: of step 1, epoch 1" in capsys.readouterr().err


def test_data_to_validate_on_without_a_split_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "erfnet", "--data", "synthetic:", "-o", str(tmp_path / "out")]
    assert main([*command, "--val-data", "camvid:/nowhere", "--val-split", "None"]) == 2
    assert "--val-data camvid:/nowhere with --val-split None" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
