"""`--training-free` of the verbs that label video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmanet import Backbone, Session, TrainingFreeSegmenter
from lmanet.cli.main import main
from lmanet.data.protocols import VideoData
from lmanet.data.synthetic import SyntheticDrive
from lmanet.evaluation.models import ModelPredictor
from lmanet.evaluation.results import EvaluationReport
from lmanet.evaluation.run import evaluate
from lmanet.video import open_source
from lmanet.zoo import load


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def steadied(weights: Path, **options: int) -> TrainingFreeSegmenter:
    single = load(str(weights.with_name("single.safetensors")))
    assert isinstance(single, Backbone)
    return TrainingFreeSegmenter(single, **options)


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> VideoData:
    """What `synthetic:` is: two short sequences of small frames."""
    data = SyntheticDrive(split="val", sequences=2, frames=3, size=(64, 80))
    monkeypatch.setattr("lmanet.data.spec.open_data", lambda spec, split: data)
    return data


@pytest.mark.parametrize("name", ["video", "single"])
def test_segment_labels_by_the_single_frame_network_and_a_memory(
    name: str, clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labels"
    given = weights.with_name(f"{name}.safetensors")
    options = ["--weights", given, "--training-free", "--memory-size", 3, "--window", 5]
    assert run("segment", clip, "-o", folder, *options) == 0
    session = Session(steadied(weights, memory_size=3, window=5))
    with open_source(clip) as source:
        for frame, path in zip(source, sorted(folder.glob("*.png")), strict=True):
            with Image.open(path) as image:
                np.testing.assert_array_equal(np.array(image), session.step(frame.image).labels)
    assert "single.safetensors" in (shown := capsys.readouterr().err) or name == "single"
    assert "training-free" in shown


def test_segment_refuses_no_memory_beside_it(
    clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--weights", weights, "--training-free", "--no-memory"]
    assert run("segment", clip, "-o", tmp_path / "out.mp4", *options) == 2
    assert "--no-memory" in capsys.readouterr().err and not (tmp_path / "out.mp4").exists()


def test_evaluate_shows_all_columns(drive: VideoData, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = ["evaluate", "--data", "synthetic:", "--weights", weights, "--control", weights]
    assert run(*command, "--training-free", "--json", out) == 0
    report = EvaluationReport.from_json(out.read_text())
    assert list(report.scores) == ["single-frame", "training-free", "control", "LMANet"]


def test_evaluate_a_single_frame_network_with_its_own_memory_options(
    drive: VideoData, weights: Path, tmp_path: Path
) -> None:
    out, single = tmp_path / "report.json", weights.with_name("single.safetensors")
    command = ["evaluate", "--data", "synthetic:", "--weights", single, "--training-free"]
    assert run(*command, "--memory-size", 3, "--window", 5, "--json", out) == 0
    report = EvaluationReport.from_json(out.read_text())
    assert list(report.scores) == ["single-frame", "training-free"]
    expected = evaluate(drive, {"x": ModelPredictor(steadied(weights, memory_size=3, window=5))}, tc=False)
    assert report.scores["training-free"].flicker == expected.scores["x"].flicker
    assert report.scores["training-free"].miou == expected.scores["x"].miou


def test_evaluate_wants_the_single_frame_network(
    drive: VideoData, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights.with_name("single.safetensors").unlink()
    assert run("evaluate", "--data", "synthetic:", "--weights", weights, "--training-free") == 2
    assert "single.safetensors" in capsys.readouterr().err
