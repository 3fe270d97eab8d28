"""README and docs say what is: figures are those of the results files, links lead somewhere, what they show runs."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmanet.cli.main import VERBS, main
from lmanet.cli.network import OwnNetwork
from lmanet.video import VideoSink
from lmanet.zoo.architectures import BACKBONES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


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


def test_the_readme_is_read_to_the_end() -> None:
    assert len(README.split()) < 1000


def test_files_that_pages_name_exist() -> None:
    found = 0
    for page in PAGES:
        links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", page.read_text())
        missing = [link for link in links if not (page.parent / link).exists()]
        assert not missing, page
        found += len(links)
    assert found > 100


def test_the_picture_is_small_and_moves() -> None:
    path = ROOT / "docs/pictures/demo.webp"
    assert f"]({path.relative_to(ROOT)})" in README and path.stat().st_size < 3e6
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) > 20


def test_the_name_of_the_paper_is_the_papers_method_alone() -> None:
    for page in PAGES:
        text = page.read_text()
        for old in (
            "lmanet-erfnet-",
            "lmanet-features",
            "lmanet-camvid",
            "lmanet-synthetic",
            "VideoSegmenter",
        ):
            assert old not in text, f"{page}: {old}"


def test_commands_have_the_options_that_they_are_shown_with() -> None:
    """Every `lmanet …` line of a code block is one that the command line takes."""
    shown = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            shown += [line.partition(" #")[0] for line in block.splitlines() if line.startswith("lmanet ")]
    assert len(shown) > 30
    for verb in {line.split()[1] for line in shown}:
        parameters = {*inspect.signature(VERBS[verb]).parameters, *OwnNetwork.__dataclass_fields__}
        for line in (
            line for line in shown if line.split()[1] == verb and verb not in ("train", "data", "bench")
        ):
            options = [option.replace("-", "_") for option in re.findall(r" --([\w-]+)", line)]
            assert {option.removeprefix("no_") for option in options} <= {*parameters, "help"}, line


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


def test_the_first_command_runs(street: Path) -> None:
    assert "\nlmanet segment street.mp4\n" in README
    assert main(["segment", "street.mp4"]) == 0
    assert (street / "street-labelled.mp4").is_file()


MY_MODULE = """
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

def build():
    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
"""


def test_your_own_network_runs(street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (street / "my_module.py").write_text(MY_MODULE)
    monkeypatch.syspath_prepend(street)
    names: dict[str, Any] = {}
    code = example("from my_module import build")
    assert len([line for line in code.splitlines() if line]) <= 10
    exec(code, names)
    assert names["labels"].shape == (48, 64) and names["labels"].max() < 5
    assert names["done"].frames == 3 and (street / "view.mp4").is_file()
    assert len(list((street / "labels").glob("*.png"))) == 3
    command = re.search(r"\nlmanet (segment street.mp4 --model .*)\n", README)
    assert command is not None and main(command[1].split()) == 0
    assert (street / "street-labelled.mp4").is_file()
    del BACKBONES["my_module:build"], sys.modules["my_module"]
