"""Real signals to real processes: whatever the moment, what is labelled is kept and can be used."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from lmanet.video import VideoSink

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

FRAMES = 40
NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
NETWORK = """
import time
from torch import nn

class Network(nn.Module):
    def __init__(self, pause_s):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.pause_s = pause_s

    def forward(self, images):
        time.sleep(self.pause_s)
        return self.head(self.body(images))

def quick():
    return Network(0.01)

class Slow(Network):
    # The first passes are tried out; then one frame takes a minute.
    passes = 0

    def forward(self, images):
        Slow.passes += 1
        if images.shape[-1] == 64 and images.max() != images.min() and Slow.passes > SLOW_FROM:
            time.sleep(60)
        return super().forward(images)

SLOW_FROM = 10**9

def slow():
    return Slow(0.01)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands run: a network, a clip of 40 frames, the same as images."""
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    with VideoSink(tmp_path / "clip.mp4", width=64, height=48, fps=Fraction(25)) as sink:
        for index in range(FRAMES):
            image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            sink.write(image, index / 25)
            Image.fromarray(image).save(tmp_path / "images" / f"f{index}.png")
    return tmp_path


def run(folder: Path, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("signalled.py")
    made = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(jobs),
        stdout=subprocess.PIPE,
        cwd=folder,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(made.stdout)


def job(
    source: str, number: int, *moments_s: float, outputs: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    names = outputs or (f"{number}.mp4", f"{number}-labels")
    named = [part for name in names for part in ("-o", name)]
    arguments = ["segment", source, *named, "--method", "single-frame", "--device", "cpu"]
    return {
        "arguments": [*arguments, "--model", f"network:{more.pop('network', 'quick')}"],
        "signals": [[moment_s, number] for moment_s in moments_s],
        "outputs": names,
        **more,
    }


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def check(folder: Path, asked: dict[str, Any], result: dict[str, Any]) -> int:
    """See that what the job says it wrote is there and whole, and nothing else; how many frames."""
    said, status = result["stderr"], result["status"]
    assert "Traceback" not in said and "Exception" not in said, said
    assert status in {0, *(128 + number for _, number in asked["signals"])}, (status, said)
    told = re.search(r"([0-9]+) frames? by ", said)
    count = int(told[1]) if told else 0
    # Only a process that was ended by a third signal does not say what there is.
    silent = result["sent"] == 3 and told is None
    if status == 0:  # it had ended already
        assert count == FRAMES, said
    elif told is not None and count < FRAMES:
        assert re.search(rf"stopped by .* after {count} frames?; wrote .* \({count} frames?\)", said), said
    for name in asked["outputs"]:
        path = folder / name
        if not path.exists():
            assert not count, said
        elif path.is_file():
            assert frames_in(path) == count or silent, said
        else:
            maps = list(path.glob("*.png"))
            assert len(maps) == count or silent, said
            assert all(readable(file) for file in maps)
            assert maps == [] or (path / "lmanet.json").is_file()
    assert [path for path in folder.rglob(".*") if "pycache" not in str(path)] == [], said
    return count


def readable(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        return image.size == (64, 48) and image.mode == "P"


def test_thirty_moments(folder: Path) -> None:
    whole = [
        job(source, 0, outputs=(f"whole-{source[0]}.mp4", f"whole-{source[0]}"))
        for source in ("clip.mp4", "images")
    ]
    # The first pays for what is loaded late.
    results = run(folder, [*whole, *whole])[2:]
    assert [check(folder, *pair) for pair in zip(whole, results, strict=True)] == [FRAMES, FRAMES]
    longest_s = max(result["seconds"] for result in results)
    rng = random.Random(0)
    jobs = []
    for index in range(30):
        # One, two or three signals, 50 ms apart; the moments lie evenly from the start to just after the end.
        begins_s = (index + rng.random()) / 30 * 1.1 * longest_s
        moments_s = (begins_s, *[0.05] * (index // 3 % 3))
        names = (f"{index}.mp4", f"{index}-labels", f"{index}.mkv")
        jobs.append(job(("clip.mp4", "images")[index % 2], NUMBERS[index % 3], *moments_s, outputs=names))
    counts = [check(folder, *pair) for pair in zip(jobs, run(folder, jobs), strict=True)]
    print(counts)
    assert 0 in counts and FRAMES in counts and sum(0 < count < FRAMES for count in counts) > 5
    for asked in jobs[10:13]:
        asked["signals"] = []
    again = run(folder, jobs[10:13])
    assert [check(folder, *pair) for pair in zip(jobs[10:13], again, strict=True)] == [FRAMES] * 3
