"""What labelling a stream shows: the view, the progress, the summary."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lmanet.data.base import Classes
from lmanet.video import Source
from lmanet.video import view as views

Image = NDArray[np.uint8]
MOST_CLASSES_SHOWN = 12


def viewer(view: str, classes: Classes, opacity: float) -> Callable[[Image, Image], Image]:
    """What draws an image and its labels as `overlay`, `labels` or `side-by-side`."""
    palette = classes.colours()
    drawers: dict[str, Callable[[Image, Image], Image]] = {
        "overlay": lambda image, label: views.overlay(image, label, palette, opacity),
        "labels": lambda image, label: views.labels(label, palette),
        "side-by-side": lambda image, label: views.side_by_side(
            [image, views.overlay(image, label, palette, opacity)], ["Frame", "Labels"], classes
        ),
    }
    return drawers[view]


class ClassShares:
    """Counts pixels per class over a stream."""

    def __init__(self, num_classes: int) -> None:
        self._counts = np.zeros(num_classes, np.int64)

    def count(self, label: Image) -> Image:
        """Count a label map (H, W) and hand it through."""
        self._counts += np.bincount(label.ravel(), minlength=len(self._counts))
        return label

    def compute(self) -> NDArray[np.float64]:
        """Share of each class, summing to 1; NaN before the first frame."""
        with np.errstate(invalid="ignore"):
            return self._counts / self._counts.sum()


class Advance:
    """Called after each frame; knows the time since the first call began."""

    def __init__(self, step: Callable[[float], None]) -> None:
        self._step, self._frames, self._began = step, 0, time.perf_counter()
        self.seconds = 0.0

    def __call__(self) -> None:
        """Count one frame."""
        self._frames += 1
        self.seconds = time.perf_counter() - self._began
        self._step(self._frames / self.seconds)


@contextmanager
def labelling_progress(total: int | None, console: Console) -> Iterator[Advance]:
    """A bar with frames per second and time left; nothing where there is no terminal."""
    bars = Progress(
        TextColumn("labelling"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]:.1f} frames/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bars:
        task = bars.add_task("", total=total, fps=0.0)
        yield Advance(lambda fps: bars.update(task, advance=1, fps=fps))


@contextmanager
def stopping_camera(source: Source) -> Iterator[None]:
    """Make Ctrl-C end a camera's stream, which has no end of its own, and keep what was labelled."""
    if source.info.kind != "camera":
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: source.stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def print_summary(
    console: Console,
    model: str,
    frames: int,
    seconds: float,
    shares: ClassShares,
    classes: Classes,
    outputs: Sequence[Path],
) -> None:
    """Frames, frames per second, and the share of each class."""
    console.print(
        f"{frames} frames by {model} in {seconds:.1f} s: {frames / max(seconds, 1e-9):.1f} frames/s; wrote "
        f"{', '.join(map(str, outputs))}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    table = Table("class", "share", box=None)
    share = shares.compute()
    for k in np.argsort(-share)[:MOST_CLASSES_SHOWN]:
        table.add_row(classes.names[k], f"{100 * share[k]:5.1f} %")
    console.print(table)
