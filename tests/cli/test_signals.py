"""Real signals to real processes: whatever the moment, what is labelled is kept and can be used."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from lmanet.video import VideoSink

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

Run = Callable[..., list[dict[str, Any]]]
FRAMES = 40
NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
NETWORK = """
import time
import lmanet.session
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

class Stuck(Network):
    # Labels ten frames, then one takes a minute.
    def forward(self, images):
        if FRAMES > 10:
            time.sleep(60)
        return super().forward(images)

def stuck():
    return Stuck(0.01)

class Broken(Network):
    def forward(self, images):
        if FRAMES > 10:
            raise ZeroDivisionError("a bug of mine")
        return super().forward(images)

def broken():
    return Broken(0.01)

FRAMES = 0
step = lmanet.session.Session.step

def counted(self, frame):
    global FRAMES
    FRAMES += 1
    return step(self, frame)

lmanet.session.Session.step = counted
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


@pytest.fixture(scope="module")
def driver() -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("signalled.py")
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def run(driver: subprocess.Popen[str], folder: Path) -> Run:
    """Runs jobs in the folder, one after another, and says how each ended."""

    def run(*jobs: dict[str, Any]) -> list[dict[str, Any]]:
        assert driver.stdin is not None and driver.stdout is not None
        print(json.dumps([{"folder": str(folder), **job} for job in jobs]), file=driver.stdin, flush=True)
        return json.loads(driver.stdout.readline())

    return run


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


def test_thirty_moments(folder: Path, run: Run) -> None:
    whole = [
        job(source, 0, outputs=(f"whole-{source[0]}.mp4", f"whole-{source[0]}"))
        for source in ("clip.mp4", "images")
    ]
    # The first pays for what is loaded late.
    results = run(*whole, *whole)[2:]
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
    counts = [check(folder, *pair) for pair in zip(jobs, run(*jobs), strict=True)]
    assert 0 in counts and FRAMES in counts and sum(0 < count < FRAMES for count in counts) > 5
    for asked in jobs[10:13]:
        asked["signals"] = []
    again = run(*jobs[10:13])
    assert [check(folder, *pair) for pair in zip(jobs[10:13], again, strict=True)] == [FRAMES] * 3


@pytest.mark.parametrize("number", NUMBERS)
def test_a_second_signal_does_without_the_frame_in_work(folder: Path, run: Run, number: int) -> None:
    asked = job("clip.mp4", number, 4, 0.5, network="stuck")
    (result,) = run(asked)
    assert check(folder, asked, result) == 10
    assert result["seconds"] < 20 and result["status"] == 128 + number


@pytest.mark.parametrize("number", NUMBERS)
def test_a_frame_that_takes_long_is_not_waited_for(folder: Path, run: Run, number: int) -> None:
    """`docker stop` sends one signal, and kills 10 s later."""
    asked = job("clip.mp4", number, 4, network="stuck")
    (result,) = run(asked)
    assert check(folder, asked, result) == 10
    assert result["status"] == 128 + number


def test_a_third_signal_ends_the_process(folder: Path, run: Run) -> None:
    # The writer hangs as well, as on a network disk that is gone, so that the second cannot end it.
    hang = "import time, lmanet.video.stills as s; s.LabelSink.write = lambda *a: time.sleep(60)"
    asked = job("clip.mp4", signal.SIGTERM, 4, 0.5, 0.5, network="stuck", prepare=hang)
    (result,) = run(asked)
    check(folder, asked, result)
    assert (result["sent"], result["status"]) == (3, 143) and result["seconds"] < 20


CAMERA = """
import threading, time, numpy as np, cv2
class Camera:
    frames = 0
    def __init__(self, number): pass
    def isOpened(self): return True
    def get(self, what): return {cv2.CAP_PROP_FRAME_WIDTH: 64, cv2.CAP_PROP_FRAME_HEIGHT: 48}.get(what, 25)
    def release(self): assert not self.reading, "closed while it is read"
    reading = False
    def read(self):
        self.frames += 1
        if self.frames > LAST:
            self.reading = True
            time.sleep(60)
        return True, np.full((48, 64, 3), self.frames % 256, np.uint8)
cv2.VideoCapture = Camera
"""


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("last", [7, 10**9])
def test_a_camera_ends_also_where_it_hangs(folder: Path, run: Run, number: int, last: int) -> None:
    asked = job("camera:0", number, 4, prepare=f"LAST = {last}{CAMERA}")
    asked["outputs"] = ()
    (result,) = run(asked)
    count = check(folder, asked, result)
    assert result["status"] == 128 + number and result["seconds"] < 20
    assert (
        count == frames_in(folder / f"{number}.mp4") == len(list((folder / f"{number}-labels").glob("*.png")))
    )
    assert count == 7 if last == 7 else count > 7


def test_a_camera_that_gives_nothing(folder: Path, run: Run) -> None:
    asked = job("camera:0", signal.SIGINT, 2.5, prepare=f"LAST = 0{CAMERA}")
    (result,) = run(asked)
    assert check(folder, asked, result) == 0
    assert "stopped by Ctrl-C before the first frame; nothing written" in result["stderr"]
    assert result["seconds"] < 20


def test_a_pipe_that_nobody_writes_to(folder: Path, run: Run) -> None:
    os.mkfifo(folder / "pipe.mkv")
    asked = job("pipe.mkv", signal.SIGTERM, 2)
    (result,) = run(asked)
    assert check(folder, asked, result) == 0
    assert result["status"] == 143 and "stopped by SIGTERM" in result["stderr"] and result["seconds"] < 20


def test_a_pipe_that_gives_no_more(folder: Path, run: Run) -> None:
    os.mkfifo(folder / "pipe.ts")
    with VideoSink(folder / "clip.mkv", width=64, height=48, fps=Fraction(25)) as sink:
        for index in range(400):
            sink.write(np.full((48, 64, 3), index % 256, np.uint8), index / 25)
    subprocess.run(["true"], check=True)
    # Writes most of a video, and then holds the pipe open.
    feed = (
        "import threading, time; data = open('clip.mkv', 'rb').read()\n"
        "def feed():\n"
        "    with open('pipe.ts', 'wb') as pipe:\n"
        "        pipe.write(data[:-1000]); pipe.flush(); time.sleep(60)\n"
        "threading.Thread(target=feed, daemon=True).start()"
    )
    asked = job("pipe.ts", signal.SIGHUP, 8, prepare=feed)
    (result,) = run(asked)
    assert check(folder, asked, result) > 10
    assert result["status"] == 129 and result["seconds"] < 20


def test_a_terminal_that_is_gone(folder: Path, run: Run) -> None:
    # Both ends of the terminal are closed: writing to it is an error.
    gone = (
        "import os, pty; a, b = pty.openpty(); os.dup2(b, 1); os.dup2(b, 2); os.close(b)\n"
        "import threading; threading.Timer(0.9, os.close, [a]).start()"
    )
    asked = job("clip.mp4", signal.SIGHUP, 4, network="stuck", prepare=gone)
    asked["signals"] += [[0.3, signal.SIGHUP]]
    (result,) = run(asked)
    assert result["status"] == 129, result
    assert frames_in(folder / "1.mp4") == len(list((folder / "1-labels").glob("*.png"))) == 10
    assert not list(folder.glob(".*"))


def test_closed_streams(folder: Path, run: Run) -> None:
    closed = "import os, sys; os.close(1); os.close(2)"
    asked = job("clip.mp4", signal.SIGTERM, prepare=closed)
    nobody = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.dup2(w, 2)"
    results = run(asked, job("clip.mp4", signal.SIGINT, prepare=nobody))
    assert [result["status"] for result in results] == [0, 0], results
    assert frames_in(folder / "15.mp4") == frames_in(folder / "2.mp4") == FRAMES


def test_hup_that_is_ignored_stays_so(folder: Path, run: Run) -> None:
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    asked = job("clip.mp4", signal.SIGHUP, 0.5, 0.5, prepare=ignored)
    (result,) = run(asked)
    assert check(folder, asked, result) == FRAMES and result["status"] == 0


def test_an_error_of_the_network_keeps_what_was_labelled(folder: Path, run: Run) -> None:
    (result,) = run(job("clip.mp4", 0, network="broken"))
    assert result["status"] == 2
    assert result["stderr"] == (
        "lmanet: frame 000010: the network or the method single-frame failed on a frame of 48×64: "
        "ZeroDivisionError: a bug of mine. "
        "Kept: 0.mp4 (10 frames), 0-labels (10 frames)\n"
    )
    assert frames_in(folder / "0.mp4") == len(list((folder / "0-labels").glob("*.png"))) == 10


def test_a_good_video_of_before_stays_until_there_is_a_frame(folder: Path, run: Run) -> None:
    (folder / "2.mp4").write_bytes(b"good")
    run(job("clip.mp4", signal.SIGINT, 0.1))
    assert (folder / "2.mp4").read_bytes() == b"good"


@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (signal.SIGTERM, ["demo", "-o", "out", "--frames", "60"]),
        (
            signal.SIGHUP,
            ["evaluate", "--data", "synthetic:", "--weights", "erfnet-synthetic", "--json", "a.json"],
        ),
        (signal.SIGTERM, ["train", "erfnet", "--data", "synthetic:", "-o", "trained"]),
        (signal.SIGHUP, ["bench", "op", "-o", "bench"]),
        (signal.SIGTERM, ["reproduce", "control", "--data", "synthetic:", "--out", "reproduced"]),
    ],
)
def test_other_verbs_end_and_leave_no_hidden_file(
    folder: Path, run: Run, arguments: list[str], number: int
) -> None:
    (result,) = run({"arguments": arguments, "signals": [[2.5, number]]})
    assert result["status"] == 128 + number, result
    assert "stopped by" in result["stderr"] and "Traceback" not in result["stderr"]
    assert result["seconds"] < 20
    # The lock files of `reproduce` stay after every run.
    assert not [path for path in folder.rglob(".*") if path.suffix != ".lock" and path.name != ".lock"]


@pytest.mark.slow
def test_thirty_moments_of_real_start_ups(folder: Path) -> None:
    """As above, imports included, in which Python itself ends the process."""
    command = [sys.executable, "-m", "lmanet.cli.main"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = job("clip.mp4", 0, outputs=("whole.mp4", "whole"))
    began_s = time.monotonic()
    subprocess.run([*command, *whole["arguments"]], cwd=folder, env=environment, check=True)
    longest_s = time.monotonic() - began_s
    rng = random.Random(1)
    for index in range(30):
        number = NUMBERS[index % 3]
        asked = job(
            "clip.mp4", number, *[0.05] * (index // 3 % 3 + 1), outputs=(f"{index}.mp4", f"{index}-labels")
        )
        with subprocess.Popen(
            [*command, *asked["arguments"]], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            time.sleep((index + rng.random()) / 30 * 1.05 * longest_s)
            sent = 0
            for delay_s, _ in asked["signals"]:
                if process.poll() is None:
                    process.send_signal(number)
                    sent += 1
                    time.sleep(delay_s)
            said = process.communicate(timeout=30)[1]
        importing = "KeyboardInterrupt" in said
        status = process.returncode if process.returncode >= 0 else 128 - process.returncode
        check(folder, asked, {"status": status, "sent": sent, "stderr": "" if importing else said})
