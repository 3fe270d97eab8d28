"""`--method` of the verbs that label video, and `--training-free`, which it was before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmanet import Session, TrainingFreeMemory
from lmanet.cli.main import main
from lmanet.data.protocols import VideoData
from lmanet.data.synthetic import SyntheticDrive
from lmanet.evaluation.models import ModelPredictor
from lmanet.evaluation.results import EvaluationReport
from lmanet.evaluation.run import evaluate
from lmanet.methods import METHODS
from lmanet.video import open_source
from lmanet.zoo import load


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def steadied(weights: Path, **options: int) -> TrainingFreeMemory:
    return TrainingFreeMemory(load(str(weights.with_name("single.safetensors"))).backbone, **options)


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> VideoData:
    """What `synthetic:` is: two short sequences of small frames."""
    data = SyntheticDrive(split="val", sequences=2, frames=3, size=(64, 80))
    monkeypatch.setattr("lmanet.data.spec.open_data", lambda spec, split: data)
    return data


@pytest.mark.parametrize("option", [["--method", "training-free"], ["--training-free"]])
@pytest.mark.parametrize("name", ["video", "single"])
def test_segment_labels_by_the_single_frame_network_and_a_memory(
    name: str,
    option: list[str],
    clip: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "labels"
    given = weights.with_name(f"{name}.safetensors")
    options = ["--weights", given, *option, "--window", 5]
    assert run("segment", clip, "-o", folder, *options) == 0
    session = Session(steadied(weights, window=5))
    with open_source(clip) as source:
        for frame, path in zip(source, sorted(folder.glob("*.png")), strict=True):
            with Image.open(path) as image:
                np.testing.assert_array_equal(np.array(image), session.step(frame.image).labels)
    shown = capsys.readouterr().err
    assert f"5 frames by {given}, method training-free, on " in shown
    warning = "warning: --training-free is --method training-free now: use that\n"
    assert shown.count("warning") == shown.count(warning) == (option == ["--training-free"])


def test_segment_takes_the_last_of_two_methods(
    clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--weights", weights, "--training-free", "--no-memory"]
    assert run("segment", clip, "-o", tmp_path / "labels", *options) == 0
    assert ", method single-frame, on " in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--method", "all"], ["--training-free"]])
def test_evaluate_shows_all_columns(
    option: list[str],
    drive: VideoData,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "report.json"
    command = ["evaluate", "--data", "synthetic:", "--weights", weights, "--control", weights]
    assert run(*command, *option, "--json", out) == 0
    report = EvaluationReport.from_json(out.read_text())
    untrained = [name for name, kind in METHODS.items() if not kind.trainable]
    assert list(report.scores) == [*untrained, "lmanet", "control"]
    assert untrained[0] == "single-frame" and "training-free" in untrained
    warning = "warning: --training-free is --method all now: use that\n"
    assert capsys.readouterr().err.count(warning) == (option == ["--training-free"])


def test_evaluate_shows_the_columns_asked_for(drive: VideoData, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = ["evaluate", "--data", "synthetic:", "--weights", weights, "--json", out]
    assert run(*command, "--method", "training-free", "--method", "lmanet") == 0
    report = EvaluationReport.from_json(out.read_text())
    assert list(report.scores) == ["training-free", "lmanet"]
    assert report.settings["precision"] == "fp32"


def test_evaluate_a_single_frame_network_with_its_own_memory_options(
    drive: VideoData, weights: Path, tmp_path: Path
) -> None:
    out, single = tmp_path / "report.json", weights.with_name("single.safetensors")
    methods = ["--method", "single-frame", "--method", "training-free"]
    command = ["evaluate", "--data", "synthetic:", "--weights", single, *methods]
    assert run(*command, "--window", 5, "--json", out) == 0
    report = EvaluationReport.from_json(out.read_text())
    assert list(report.scores) == ["single-frame", "training-free"]
    expected = evaluate(drive, {"x": ModelPredictor(steadied(weights, window=5))}, tc=False)
    assert report.scores["training-free"].flicker == expected.scores["x"].flicker
    assert report.scores["training-free"].miou == expected.scores["x"].miou


def test_evaluate_wants_the_single_frame_network(
    drive: VideoData, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights.with_name("single.safetensors").unlink()
    assert run("evaluate", "--data", "synthetic:", "--weights", weights, "--method", "training-free") == 2
    assert "single.safetensors" in capsys.readouterr().err
