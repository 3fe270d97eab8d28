from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmanet.cli.main import main
from lmanet.data.protocols import VideoData
from lmanet.data.synthetic import SyntheticDrive
from lmanet.devices import devices
from lmanet.evaluation.results import EvaluationReport
from lmanet.methods import METHODS
from lmanet.video import open_source
from lmanet.zoo import load, save_model
from lmanet.zoo.names import single_frame_of


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
    options = ["--json", out, "--plot", plot, "--resize", 48, 64]
    assert main([str(a) for a in [*command, *options]]) == 0
    report = EvaluationReport.from_json(out.read_text())
    assert report.settings["resize"] == [48, 64]
    assert list(report.scores) == ["single-frame", "lmanet", "control"]
    assert report.scores["lmanet"].frames == 6
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.parametrize("named", [True, False])
def test_evaluate_warns_where_the_single_frame_weights_are_not(
    named: bool, small_drive: None, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = weights.with_name("single.safetensors")
    single.unlink()
    if not named:
        model = load(str(weights))
        save_model(model, weights, classes=model.classes)
    assert main(["evaluate", "--data", "synthetic:", "--weights", str(weights), "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    assert "single-frame" not in shown.out and "lmanet" in shown.out
    assert shown.err.startswith("warning: no column for the single-frame network: ")
    assert (f"there is no file {single}: put it there" if named else "does not say which") in shown.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--plot", "plot.jpg"], ["plot.jpg", ".png, .pdf, .svg"]),
        (["--plot", "plot"], ["plot", ".png, .pdf, .svg"]),
        (["--json", "taken/report.json"], ["taken"]),
        (["--plot", "taken/plot.png"], ["taken"]),
        (["--json", "folder"], ["folder is a folder"]),
        (["--device", "gpu"], ["device 'gpu' is not there", "cpu"]),
    ],
)
def test_evaluate_refuses_before_the_work(
    options: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    # The data and the weights would be errors too, if they were looked at first.
    assert main(["evaluate", "--data", "nonsense:", "--weights", "nonsense", *options]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error


@pytest.mark.parametrize("option", [["--memory-size", "2"], ["--window", "3"]])
def test_evaluate_refuses_memory_options_without_a_memory(
    option: list[str], small_drive: None, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = str(weights.with_name("single.safetensors"))
    alone = ["--method", "single-frame"]
    assert main(["evaluate", "--data", "synthetic:", "--weights", single, *alone, *option]) == 2
    name = option[0].removeprefix("--").replace("-", " ")
    assert f"single-frame has no {name} to be changed" in capsys.readouterr().err


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
    encoder = load(str(weights)).backbone.encoder.state_dict()
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


def test_info_lists_devices_and_bundled_weights(
    bundled_demo: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert "lmanet" in shown and f"devices: {devices()[0]} (default)" in shown
    assert "erfnet-synthetic" in shown and "label-memory-erfnet-synthetic" in shown
    for name, kind in METHODS.items():
        (row,) = [line for line in shown.splitlines() if line.startswith(f"│ {name} ")]
        assert ("lmanet train" in row) == kind.trainable


def test_demo_writes_video_and_sheet(
    bundled_demo: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), "--frames", "8"]) == 0
    with open_source(tmp_path / "demo" / "out.mp4") as video:
        assert len(list(video)) == 8
    assert (tmp_path / "demo" / "out.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "mIoU" in shown and "VC8" in shown and "nan" not in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frames", "7"], ["7 frames", "at least 8", "VC8"]),
        (["--seed", "-1"], ["seed -1", "0 or more"]),
        (["--out", "taken"], ["taken"]),
        (["--device", "cuda:99"], ["'cuda:99' is not there"]),
    ],
)
def test_demo_refuses_before_the_work(
    options: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *options]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
