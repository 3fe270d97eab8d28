from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lmanet.cli.main import main
from lmanet.research.benchmarks import model, op

TINY = op.Case(window=3, memory_size=2, height=4, width=6, key_channels=2, value_channels=3, peers=False)


def test_bench_op_writes_figures_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = (TINY, replace(TINY, backward=True), replace(TINY, window=11), replace(TINY, memory_size=1))
    monkeypatch.setattr(op, "CASES", cases)
    out, plot = tmp_path / "op.json", tmp_path / "op.png"
    assert main(["bench", "op", "--repeats", "1", "--json", str(out), "--plot", str(plot)]) == 0
    content = json.loads(out.read_text())
    assert content["command"] == "lmanet bench op" and content["settings"]["repeats"] == 1
    results = [op.CaseResult.from_json(case) for case in content["cases"]]
    assert tuple(result.case for result in results) == cases
    assert plot.read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "Forward + backward, float32, map of 4×6" in shown and "tiled" in shown and "whole map" in shown


def test_bench_model_writes_figures_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model, "VARIANTS", (model.Variant(), replace(model.PAPER, window=3)))
    monkeypatch.setattr(model, "can_measure", lambda: False)
    out, plot = tmp_path / "model.json", tmp_path / "model.svg"
    command = ["bench", "model", "--size", "32", "48", "--repeats", "1", "--json", out, "--plot", plot]
    assert main([str(a) for a in command]) == 0
    content = json.loads(out.read_text())
    assert content["settings"]["size"] == [32, 48]
    assert [network["peak_bytes"] for network in content["networks"]] == [None, None]
    assert "<svg" in plot.read_text()
    shown = capsys.readouterr().out
    assert "ERFNet at 48×32, fp32" in shown and "paper, R=3, S=4" in shown and "n/a" in shown


def test_bench_model_of_another_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model, "can_measure", lambda: False)
    out = tmp_path / "pspnet.json"
    command = ["bench", "model", "--network", "pspnet50", "--size", "17", "25", "--repeats", "1"]
    assert main([*command, "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["command"] == "lmanet bench model --network pspnet50"
    assert content["settings"]["size"] == [17, 25]
    networks = [network["variant"] for network in content["networks"]]
    assert [(n["precision"], n["window"], n["memory_size"]) for n in networks if n["memory"]] == [
        ("fp32", 21, 3),
        ("bf16", 21, 3),
    ]
    assert {n["network"] for n in networks} == {"pspnet50"} and len(networks) == 4
    shown = capsys.readouterr().out
    assert "PSPNet-50 at 25×17, fp32" in shown and "PSPNet-50 at 25×17, bf16" in shown


def test_bench_stream_writes_figures_and_plot(weights: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "stream.json", tmp_path / "stream.pdf"
    command = ["bench", "stream", "--weights", weights, "--frames", "2", "--device", "cpu", "--repeats", "1"]
    assert main([str(a) for a in [*command, "--json", out, "--plot", plot]]) == 0
    content = json.loads(out.read_text())
    assert content["command"] == "lmanet bench stream"
    assert (content["settings"]["device"], content["settings"]["frames"]) == ("cpu", 2)
    assert set(content["timings"]) == {
        f"{name}, {kind}" for name in ("single-frame", "lmanet") for kind in ("in memory", "file to file")
    }
    assert all(timing["median_s"] > 0 for timing in content["timings"].values())
    assert plot.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["stream", "--weights", "video.safetensors", "--frames", "0"], "frames is 0"),
        (["stream", "--device", "cuda:99"], "'cuda:99' is not there"),
        (["training", "--repeats", "0"], "repeats 0"),
        (["training", "--json", "."], "is a folder"),
        (["training", "--plot", "x.png"], "no plot of bench training"),
        (["op", "--plot", "x.jpg"], ".png, .pdf, .svg"),
        (["model", "--size", "0", "48"], "size (0, 48): expected"),
    ],
)
def test_bench_refuses_before_the_work(
    command: list[str],
    words: str,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(weights.parent)
    assert main(["bench", *command]) == 2
    assert words in capsys.readouterr().err


def test_bench_training_has_no_options_of_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "training", "--frames", "3"])
    assert "--frames" in capsys.readouterr().err
