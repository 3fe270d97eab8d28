"""The examples run as they are, each a process of its own in an empty folder, and do what they say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lmanet
from lmanet.methods import METHODS
from lmanet.video import VideoSink, open_source

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(*arguments: str | Path, folder: Path) -> list[str]:
    """The lines that a Python process in this folder prints; it must end well, without a warning."""
    command = [sys.executable, "-W", "error::UserWarning", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "arning" not in done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three frames of 64×48 at 10 frames a second."""
    rng = np.random.default_rng(0)
    with VideoSink(tmp_path / "clip.mp4", width=64, height=48, fps=Fraction(10)) as sink:
        for i in range(3):
            sink.write(rng.integers(0, 256, (48, 64, 3), np.uint8), i / 10)
    return tmp_path / "clip.mp4"


def frames_of(path: Path) -> int:
    with open_source(path) as source:
        return sum(1 for _ in source)


def test_every_example_is_listed_in_the_guide_and_tested_here() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == set(re.findall(r"examples/(\w+\.py)\)", (ROOT / "docs/guide/index.md").read_text()))
    assert scripts == set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text()))


@pytest.mark.parametrize("given", [False, True], ids=["rendered", "given"])
def test_a_stream_is_labelled_frame_by_frame(tmp_path: Path, clip: Path, given: bool) -> None:
    lines = run(EXAMPLES / "stream.py", *([clip] if given else []), folder=tmp_path)
    spacing_s = 1 / 10 if given else 1 / 15
    times = [f"{i * spacing_s:.2f} s: " for i in range(3 if given else 6)]
    assert [line[: len(times[0])] for line in lines] == times
    assert all(re.fullmatch(r"\d\.\d\d s: \d+ % \w+, \d+ ms", line) for line in lines)


def test_a_folder_of_videos_becomes_videos_and_label_maps(tmp_path: Path, clip: Path) -> None:
    lines = run(EXAMPLES / "label_videos.py", clip.parent, tmp_path / "out", folder=tmp_path)
    assert len(lines) == 1 and lines[0].startswith("clip.mp4: 3 frames by flow-average, ")
    assert frames_of(tmp_path / "out/clip.mp4") == 3
    maps = sorted((tmp_path / "out/clip").glob("*.png"))
    assert len(maps) == 3 and np.array(Image.open(maps[0])).shape == (48, 64)


@pytest.mark.parametrize(
    "library",
    [
        "torchvision",
        pytest.param("smp", marks=pytest.mark.slow),
        pytest.param("transformers", marks=pytest.mark.slow),
    ],
)
def test_a_network_of_ones_own_is_run_by_three_methods(tmp_path: Path, clip: Path, library: str) -> None:
    lines = run(EXAMPLES / "own_network.py", library, clip, folder=tmp_path)
    methods = ("single-frame", "flow-average", "training-free")
    assert lines[1:] == [f"{name}: 3 frames to {library}-{name}.mp4" for name in methods]
    assert all(frames_of(tmp_path / f"{library}-{name}.mp4") == 3 for name in methods)


def test_a_folder_of_ones_own_is_scored_by_every_method(tmp_path: Path) -> None:
    lines = run(EXAMPLES / "evaluate_folder.py", folder=tmp_path)
    untrained = [name for name, method in METHODS.items() if not method.trainable]
    assert [line.partition(":")[0] for line in lines[1:-1]] == [*untrained, "label-memory"]
    assert all(re.search(r"mIoU [\d.]+ %, flicker [\d.]+ %, TC [\d.]+ %", line) for line in lines[1:-1])


def test_a_folder_that_is_given_gets_a_report(tmp_path: Path) -> None:
    sequence = [np.full((32, 48, 3), 40 * i, np.uint8) for i in range(3)]
    for kind in ("images", "labels"):
        (tmp_path / "mine" / kind / "a").mkdir(parents=True)
    names = lmanet.load("erfnet-synthetic").classes.names
    (tmp_path / "mine/classes.json").write_text(json.dumps({"names": names, "fps": 15}))
    (tmp_path / "mine/val.txt").write_text("a\n")
    for i, image in enumerate(sequence):
        Image.fromarray(image).save(tmp_path / f"mine/images/a/{i}.png")
        Image.fromarray(np.full(image.shape[:2], 3, np.uint8)).save(tmp_path / f"mine/labels/a/{i}.png")
    lines = run(EXAMPLES / "evaluate_folder.py", tmp_path / "mine", folder=tmp_path)
    assert lines[0] == "mine/val, 11 classes"
    report = json.loads((tmp_path / "mine/report.json").read_text())
    assert report["scores"]["flow-average"]["frames"] == 3


def test_a_method_of_ones_own_is_evaluated_saved_loaded_run_and_resumed(tmp_path: Path, clip: Path) -> None:
    lines = run(EXAMPLES / "my_method.py", clip, folder=tmp_path)
    flicker = dict(re.findall(r"^([\w-]+): mIoU .* flicker ([\d.]+) %", "\n".join(lines), re.MULTILINE))
    assert float(flicker["exponential-average"]) < float(flicker["single-frame"])
    assert lines[2:] == [
        "loaded exponential-average with {'weight': 0.6}",
        "labelled 3 frames by exponential-average",
        "resumed after 4 frames, the same labels: True",
    ]


def test_the_command_line_runs_a_method_of_ones_own(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "my_method.py").write_text((EXAMPLES / "my_method.py").read_text())
    cli = ("-m", "lmanet.cli.main", "segment", clip, "--method", "my_method:MyMethod")
    run(*cli, "--weights", "erfnet-synthetic", "-o", "labels", folder=tmp_path)
    assert len(list((tmp_path / "labels").glob("*.png"))) == 3


def test_the_page_about_methods_shows_the_example_itself() -> None:
    page = (ROOT / "docs/methods/your-own.md").read_text()
    shown = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def step" in code)
    example = (EXAMPLES / "my_method.py").read_text()
    assert shown in example
    assert len([line for line in shown.splitlines() if line.strip()]) <= 40
