"""The README says what is: its figures are those of the results files, its example runs."""

from __future__ import annotations

import importlib.util
import re
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lmanet.video import VideoSink
from lmanet.zoo.names import bundled

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "tools/figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_those_of_the_results(figures: ModuleType) -> None:
    assert ROOT / "README.md" in figures.PAGES
    for page in figures.PAGES:
        text = page.read_text()
        assert "<!-- figures: " in text
        assert figures.filled(text) == text, "run tools/figures.py"


def test_files_that_it_names_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links), links


@pytest.mark.skipif("lmanet-erfnet-camvid" not in bundled(), reason="lmanet-erfnet-camvid is not bundled yet")
def test_streaming_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with VideoSink(tmp_path / "street.mp4", width=64, height=48, fps=Fraction(10)) as sink:
        for i in range(3):
            sink.write(np.full((48, 64, 3), 60 * i, np.uint8), i / 10)
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    exec(example[1], {})
    assert capsys.readouterr().out.splitlines() == [f"{i / 10} (48, 64)" for i in range(3)]
