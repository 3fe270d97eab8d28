"""`lmanet segment` on the device: what decoding, the network and encoding take, alone and at the same time."""

from __future__ import annotations

import gc
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import lmanet
from gpu_check.common import Part, one_line, run_part, wait
from lmanet.data.synthetic import StreetConfig, StreetSequence
from lmanet.methods import METHODS
from lmanet.methods.base import VideoModel
from lmanet.video import VideoSink, open_sinks, open_source, run_pipeline
from lmanet.video.view import overlay

Image = NDArray[np.uint8]

FPS = 15
SIZES = {"480x360": (360, 480), "1280x720": (720, 1280)}
UNIQUE = 30
"""Frames that are rendered; a clip goes through them to and fro."""

COMPARED = 8
"""Frames whose labels are compared with those of the CPU in float32."""

CLI = "import sys; from lmanet.cli.main import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Clip:
    """A video file and its frames.

    Attributes:
        path: of the file.
        images: its frames, decoded.
        read_ms: of decoding a frame, by itself.
        write_ms: of drawing and encoding a frame, by itself.
    """

    path: Path
    images: list[Image]
    read_ms: float
    write_ms: float


def main(part: Part) -> None:
    """Two sizes of one drive; every method at the smaller, the default and the bare network at the larger."""
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    part.content |= {"clips": {}, "rows": rows, "cli": [], "left_out": left_out}
    rendered = _rendered(part)
    part.content["render_ms"] = rendered[1]
    repeats = 1 if part.dry else 2
    for name, size in SIZES.items():
        small = name == "480x360"
        clip = _clip(part, name, rendered[0], (size[0] // 4, size[1] // 4) if part.dry else size, repeats)
        if small:
            _run_cli(part, clip)
        for title, find in _models(small, part):
            if part.left_s < 0:
                left_out[f"{title}, {name}"] = "no time was left"
                continue
            try:
                model = find()
            except Exception as error:
                left_out[f"{title}, {name}"] = one_line(error)
                continue
            expected = _labels(model, clip.images[:COMPARED]) if small else None
            for precision in ("fp32", "bf16") if small or not part.dry else ("fp32",):
                row: dict[str, Any] = {"clip": name, "model": title, "precision": precision}
                rows.append(row)
                try:
                    row |= _measure(model, precision, clip, expected, repeats, part)
                except Exception as error:
                    row["left_out"] = one_line(error)
                gc.collect()
                part.save()


def _models(every: bool, part: Part) -> Iterator[tuple[str, Callable[[], VideoModel]]]:
    weights = "label-memory-erfnet-camvid"
    yield weights, lambda: lmanet.load(weights)
    methods = [name for name, method in METHODS.items() if not method.trainable]
    for method in methods if every and not part.dry else ["single-frame"]:
        yield f"erfnet-camvid, {method}", lambda m=method: lmanet.find_model("erfnet-camvid", method=m)
    if every:
        yield "unet-camvid, single-frame", lambda: lmanet.load("unet-camvid")


def _measure(
    model: VideoModel, precision: str, clip: Clip, expected: list[Image] | None, repeats: int, part: Part
) -> dict[str, Any]:
    session = lmanet.Session(model.optimize().to(part.device), precision=precision)  # pyright: ignore
    found: dict[str, Any] = {"frames": len(clip.images)}
    got = [session.step(image).labels for image in clip.images[:COMPARED]]  # warms up too
    if expected is not None:
        same = [float((a == b).mean()) for a, b in zip(got, expected, strict=True)]
        found["labels_as_on_cpu_in_fp32"] = {"mean": statistics.mean(same), "least": min(same)}

    def network() -> None:
        session.reset()
        for image in clip.images:
            _ = session.step(image).labels
        wait(part.device)

    alone = {
        "decoding": clip.read_ms,
        "network": _per_frame(network, clip, repeats),
        "encoding": clip.write_ms,
    }
    runs = [_file_to_file(session, clip, part) for _ in range(repeats)]
    whole, busy = min(runs, key=lambda run: run[0])
    total = sum(alone.values())
    return {
        **found,
        "alone_ms": alone,
        "alone_share": {stage: ms / total for stage, ms in alone.items()},
        "busy_ms": busy,
        "file_to_file_ms": whole,
        "frames_per_s": 1000 / whole,
        "network_share_of_wall": busy["network"] / whole,
    }


def _file_to_file(session: lmanet.Session, clip: Clip, part: Part) -> tuple[float, dict[str, float]]:
    """As `lmanet segment` does it, with the time that each of the three threads is at work; ms per frame."""
    busy = dict.fromkeys(("decoding", "network", "encoding"), 0.0)

    def timed(stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            began_s = time.perf_counter()
            try:
                return work(*arguments)
            finally:
                busy[stage] += time.perf_counter() - began_s

        return run

    def read(source: Iterable[Any]) -> Iterator[Any]:
        frames = iter(source)
        following = timed("decoding", lambda: next(frames, None))
        while (frame := following()) is not None:
            yield frame

    session.reset()
    palette = session.model.classes.colours()
    began_s = time.perf_counter()
    with (
        open_source(clip.path) as source,
        open_sinks(
            [part.work / "out.mp4"],
            source.info,
            draw=lambda i, label: overlay(i, label, palette),
            palette=palette,
        ) as outputs,
    ):
        count = run_pipeline(
            read(source),
            timed("network", lambda frame: session.step(frame.image).labels),
            [timed("encoding", outputs.write)],
        )
    seconds = time.perf_counter() - began_s
    return 1000 * seconds / count, {stage: 1000 * s / count for stage, s in busy.items()}


def _rendered(part: Part) -> tuple[list[Image], float]:
    size = (90, 120) if part.dry else (360, 480)
    count = 3 if part.dry else UNIQUE
    street = StreetSequence(StreetConfig(frames=count, fps=FPS, size=size))
    began_s = time.perf_counter()
    images = [street.image(i) for i in range(count)]
    return images, 1000 * (time.perf_counter() - began_s) / count


def _clip(part: Part, name: str, rendered: list[Image], size: tuple[int, int], repeats: int) -> Clip:
    length = 4 if part.dry else (120 if name == "480x360" else 60)
    drawn = [cv2.resize(i, size[::-1], interpolation=cv2.INTER_CUBIC) for i in rendered]
    to_and_fro = itertools.islice(itertools.cycle([*drawn, *drawn[-2:0:-1]]), length)
    path = part.work / f"{name}.mp4"
    _write(path, list(to_and_fro))
    with open_source(path) as source:
        images = [frame.image for frame in source]

    def read() -> None:
        with open_source(path) as source:
            for _ in source:
                pass

    classes = lmanet.load("erfnet-camvid").classes
    labels = [(image[..., 0] // 32).astype(np.uint8) for image in images]  # as many regions as a street has
    view = [(image, label, classes.colours()) for image, label in zip(images, labels, strict=True)]

    def write() -> None:
        _write(part.work / "alone.mp4", (overlay(*of) for of in view))

    unread = Clip(path, images, 0.0, 0.0)
    clip = Clip(path, images, _per_frame(read, unread, repeats), _per_frame(write, unread, repeats))
    part.content["clips"][name] = {
        "height": size[0],
        "width": size[1],
        "frames": length,
        "bytes": path.stat().st_size,
        "decoding_ms": clip.read_ms,
        "drawing_and_encoding_ms": clip.write_ms,
    }
    part.save()
    return clip


def _write(path: Path, images: Iterable[Image]) -> None:
    images = iter(images)
    first = next(images)
    height, width = first.shape[:2]
    with VideoSink(path, width=width, height=height, fps=FPS, time_base=Fraction(1, FPS)) as sink:
        for i, image in enumerate(itertools.chain([first], images)):
            sink.write(image, i / FPS)


def _per_frame(run: Callable[[], None], clip: Clip, repeats: int) -> float:
    """The least of some repeats, in milliseconds per frame."""
    times = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        run()
        times.append(time.perf_counter() - began_s)
    return 1000 * min(times) / len(clip.images)


def _labels(model: VideoModel, images: list[Image]) -> list[Image]:
    session = lmanet.Session(model.cpu())
    return [session.step(image).labels for image in images]


def _run_cli(part: Part, clip: Clip) -> None:
    """The command itself, in a process of its own: does it work, and how long does it take with its start?"""
    for precision in ("fp32",) if part.dry else ("fp32", "bf16"):
        out = part.work / f"cli-{precision}.mp4"
        command = [
            "segment",
            str(clip.path),
            "-o",
            str(out),
            "--device",
            part.device.type,
            "--precision",
            precision,
        ]
        began_s = time.perf_counter()
        try:
            ended = subprocess.run(
                [sys.executable, "-c", CLI, *command], capture_output=True, text=True, timeout=60, check=False
            )
            said, code = ended.stderr.strip().splitlines(), ended.returncode
        except subprocess.TimeoutExpired:
            said, code = ["no end within 60 s"], None
        part.content["cli"].append(
            {
                "command": " ".join(["lmanet", *command[:2], *command[4:]]),
                "exit_code": code,
                "seconds": time.perf_counter() - began_s,
                "written_bytes": out.stat().st_size if out.exists() else None,
                "said": said[:3] if code == 0 else said[-5:],
            }
        )
        part.save()


if __name__ == "__main__":
    sys.exit(run_part("segment", main))
