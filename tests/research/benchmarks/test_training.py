from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from lmanet.backbones import ERFNet
from lmanet.cli.main import main
from lmanet.data.synthetic import SyntheticDrive
from lmanet.research.benchmarks.training import training_runs

KINDS = ("without cache", "with cache, tiled attention", "with cache")
NAMES = [f"step {step}, {kind}" for step in (1, 2) for kind in KINDS]
SIZE = (32, 48)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the encoder got, in the order of the calls."""
    counts: list[int] = []
    encode = ERFNet.encode

    def counting(self: ERFNet, images):
        counts.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(ERFNet, "encode", counting)
    return counts


def test_only_the_runs_without_cache_encode(tmp_path: Path, encoded: list[int]) -> None:
    drive = SyntheticDrive(split="train", sequences=1, frames=5, size=SIZE)
    runs = training_runs(drive, tmp_path, batches=2)
    assert list(runs) == NAMES
    assert sum(encoded) == 5 * 2  # the cache: every frame under two views

    for name, run in runs.items():
        encoded.clear()
        run()
        # Two batches of four samples: a frame and its four memories each.
        assert sum(encoded) == (0 if "with cache" in name else 2 * 4 * (1 + 4)), name


def test_bench_training_writes_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = functools.partial(SyntheticDrive, size=SIZE)
    monkeypatch.setattr("lmanet.research.benchmarks.training.SyntheticDrive", small)
    out = tmp_path / "training.json"
    assert main(["bench", "training", "--repeats", "2", "--json", str(out)]) == 0

    content = json.loads(out.read_text())
    assert content["command"] == "lmanet bench training"
    assert content["settings"]["batches"] == 2 and content["settings"]["batch_size"] == 4
    assert list(content["timings"]) == NAMES
    for timing in content["timings"].values():
        assert timing["runs"] == 2
        assert 0 < timing["lowest_s"] <= timing["median_s"] <= timing["highest_s"]
    shown = capsys.readouterr().out
    assert all(f"{content['timings'][name]['median_s']:.2f}" in shown for name in NAMES)
