from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lmanet.cli.main import main
from lmanet.data.base import VideoData
from lmanet.data.synthetic import SyntheticDrive
from lmanet.evaluation.results import EvaluationReport
from lmanet.zoo import load
from lmanet.zoo.names import bundled, single_frame_of


@pytest.fixture
def small_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `synthetic:` be two short sequences of small frames."""

    def open_small(spec: str, split: str) -> VideoData:
        return SyntheticDrive(split=split, sequences=2, frames=3, size=(64, 80))  # pyright: ignore

    monkeypatch.setattr("lmanet.data.spec.open_data", open_small)


def test_evaluate_writes_report_and_plot(
    small_drive: None, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "report.json", tmp_path / "plot.png"
    command = ["evaluate", "--data", "synthetic:", "--weights", weights, "--control", weights]
    assert main([str(a) for a in [*command, "--json", out, "--plot", plot]]) == 0
    report = EvaluationReport.from_json(out.read_text())
    assert list(report.scores) == ["single-frame", "control", "LMANet"]
    assert report.scores["LMANet"].frames == 6
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--memory-size", "2"], ["--window", "3"]])
def test_evaluate_refuses_memory_options_without_a_memory(
    option: list[str], small_drive: None, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = str(weights.with_name("single.safetensors"))
    assert main(["evaluate", "--data", "synthetic:", "--weights", single, *option]) == 2
    assert "single-frame network" in capsys.readouterr().err


def test_train_from_nothing_to_a_video_model(small_drive: None, tmp_path: Path) -> None:
    single, memory = tmp_path / "single", tmp_path / "memory"
    common = ["--data", "synthetic:", "--precision", "fp32", "--workers", "0"]
    assert (
        main(
            [
                "train",
                "erfnet",
                *common,
                "-o",
                str(single),
                "--augmentation.crop",
                "48",
                "64",
                *["--stage.epochs", "1", "--stage.batch-size", "2"],
            ]
        )
        == 0
    )
    weights = single / "single-frame.safetensors"
    assert (
        main(
            [
                "train",
                "lmanet",
                *common,
                "-o",
                str(memory),
                "--weights",
                str(weights),
                *[
                    "--memory-size",
                    "2",
                    "--draws",
                    "1",
                    "--pseudo",
                    "2",
                    "--module.epochs",
                    "1",
                    "--joint.epochs",
                    "1",
                ],
            ]
        )
        == 0
    )
    model = load(str(memory / "lmanet.safetensors"))
    assert model.memory_size == 2
    # The result can be scored beside what it was made from.
    assert single_frame_of(str(memory / "lmanet.safetensors")) == str(memory / "single-frame.safetensors")
    encoder = load(str(weights)).encoder.state_dict()
    for key, value in model.backbone.encoder.state_dict().items():
        np.testing.assert_array_equal(value, encoder[key], err_msg=key)


def test_train_memory_needs_weights(
    small_drive: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "lmanet", "--data", "synthetic:", "-o", str(tmp_path / "x")]) == 2
    assert "--weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preset", "option", "file"),
    [
        ("erfnet", "--weights", "video"),
        ("lmanet", "--weights", "video"),
        ("lmanet", "--start-from", "single"),
    ],
)
def test_train_refuses_weights_of_the_wrong_kind(
    preset: str, option: str, file: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = weights.with_name("single.safetensors")
    command = ["train", preset, "--data", "synthetic:", "-o", tmp_path / "x"]
    if option != "--weights":
        command += ["--weights", single]
    assert main([str(a) for a in [*command, option, weights.with_name(f"{file}.safetensors")]]) == 2
    assert f"{file}.safetensors is a" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("spec", ["nonsense:", "camvid:", "camvid:/nowhere", "synthetic:path"])
def test_unknown_data_is_an_error(spec: str, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--data", spec, "--weights", str(weights)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_info_lists_the_bundled_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert "lmanet" in shown and all(name in shown for name in bundled())


@pytest.mark.skipif("lmanet-erfnet-synthetic" not in bundled(), reason="no bundled weights yet")
def test_demo_writes_video_and_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path), "--frames", "9"]) == 0
    assert (tmp_path / "out.mp4").stat().st_size > 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.skipif("lmanet-erfnet-synthetic" not in bundled(), reason="no bundled weights yet")
def test_bench_stream_writes_figures(tmp_path: Path) -> None:
    out = tmp_path / "stream.json"
    assert main(["bench", "stream", "--frames", "3", "--repeats", "1", "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["command"] == "lmanet bench stream"
    assert set(content["timings"]) == {
        f"{name}, {kind}" for name in ("single-frame", "LMANet") for kind in ("in memory", "file to file")
    }
    assert all(timing["median_s"] > 0 for timing in content["timings"].values())
