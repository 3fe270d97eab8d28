"""The README says what is: its figures are those of the results files, its example runs."""

from __future__ import annotations

import importlib.util
import re
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lmanet.cli.main import main
from lmanet.video import VideoSink
from lmanet.zoo.architectures import BACKBONES
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


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a street.mp4, as the current one."""
    with VideoSink(tmp_path / "street.mp4", width=64, height=48, fps=Fraction(10)) as sink:
        for i in range(3):
            sink.write(np.full((48, 64, 3), 60 * i, np.uint8), i / 10)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def example(word: str) -> str:
    """The one Python example of the README with this word in it."""
    found = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in code]
    assert len(found) == 1
    return found[0]


@pytest.mark.skipif(
    "label-memory-erfnet-camvid" not in bundled(), reason="label-memory-erfnet-camvid is not bundled yet"
)
def test_streaming_example_runs(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(example("frame.time_s"), {})
    assert capsys.readouterr().out.splitlines() == [f"{i / 10} (48, 64)" for i in range(3)]


MY_MODULE = """
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

def build():
    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
"""


def test_your_own_network_runs(street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (street / "my_module.py").write_text(MY_MODULE)
    monkeypatch.syspath_prepend(street)
    names: dict[str, Any] = {}
    exec(example("from my_module import build"), names)
    assert names["labels"].shape == (48, 64) and names["labels"].max() < 5
    command = re.search(r"`lmanet (segment street.mp4 [^`]*--training-free)`", README)
    assert command is not None and main(command[1].split()) == 0
    assert (street / "street-labelled.mp4").is_file()
    del BACKBONES["my_module:build"], sys.modules["my_module"]
