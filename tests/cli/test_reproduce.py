from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lmanet.cli.main import main
from lmanet.research.reproduce.budget import BUDGETS
from lmanet.research.reproduce.data import Street
from lmanet.research.reproduce.experiments import EXPERIMENTS
from lmanet.training.augment import Augmentation
from lmanet.training.config import Stage
from lmanet.training.recipes import LabelMemoryRecipe, LMANetRecipe


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of two steps for synthetic data, on small drives."""
    stage = Stage(epochs=1, batch_size=2, lr=1e-3, samples=2)
    recipe = LMANetRecipe(
        memory_size=2,
        memories="real",
        draws=1,
        pseudo=0,
        augmentation=Augmentation(),
        module=stage,
        joint=stage,
    )
    drive = Street(sequences=1, frames=3, size=(48, 64))
    labels = LabelMemoryRecipe(window=3, memories="real", draws=1, pseudo=0, module=stage, joint=stage)
    budget = replace(BUDGETS["synthetic"], paper=recipe, labels=labels, street=drive, scored_street=drive)
    monkeypatch.setitem(BUDGETS, "synthetic", budget)


def reproduce(*arguments: object) -> int:
    return main(["reproduce", *map(str, arguments)])


def test_a_table_is_listed_made_and_kept(
    small: None, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["border", "--data", "synthetic:", "--out", out, "--seeds", 1]
    command += ["--weights", weights.with_name("single.safetensors")]
    assert reproduce(*command, "--dry-run", "--processes", 2) == 0
    shown = capsys.readouterr().out
    assert "4 cells, 0 cached, 4 to do: about" in shown and "in 2 processes" in shown
    assert shown.count("memory training, lmanet S=2 gated paper, synthetic/train, seed 0: to do") == 1
    assert not out.exists()

    assert reproduce(*command) == 0
    captured = capsys.readouterr()
    assert "Border of the attention, scored on test" in captured.out
    assert "1/4 " in captured.err and "4/4 " in captured.err and captured.err.count("finished: ") == 4
    assert {path.name for path in (out / "synthetic").iterdir()} == {"border.json", "border.md"}

    assert reproduce(*command) == 0
    captured = capsys.readouterr()
    assert "finished" not in captured.err and "border.md" in captured.out
    assert reproduce(*command, "--dry-run") == 0
    assert "4 cells, 4 cached, 0 to do: about 0 s" in capsys.readouterr().out


def test_the_help_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        reproduce("--help")
    shown = set(re.findall(r"[a-z0-9-]+", capsys.readouterr().out))
    assert set(EXPERIMENTS) <= shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table-7", "--data", "synthetic:"], "no experiment named 'table-7'"),
        (["--data", "vspw:/x"], "expected camvid:ROOT, synthetic: or cityscapes:ROOT"),
        (["--data", "synthetic:", "--processes", "0"], "processes 0: expected at least 1"),
        (["--data", "camvid:/nowhere/at/all"], "/nowhere/at/all is not a folder"),
        (["--data", "synthetic:", "--weights", "label-memory-erfnet-synthetic"], "is a model of the method"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce(*arguments, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
