"""What `lmanet segment` shows while it labels and when it is done."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lmanet.video import Source

MOST_CLASSES_SHOWN = 12


@contextmanager
def labelling_progress(total: int | None, console: Console) -> Iterator[Callable[[], None]]:
    """A bar with frames per second and time left; nothing where there is no terminal.

    Yields:
        What is to be called after each frame.
    """
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
    task = bars.add_task("", total=total, fps=0.0)
    frames, began_s = 0, time.perf_counter()

    def advance() -> None:
        nonlocal frames
        frames += 1
        bars.update(task, completed=frames, fps=frames / (time.perf_counter() - began_s))

    with bars:
        yield advance


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
    *,
    frames: int,
    model: str,
    device: str,
    seconds: float,
    shares: dict[str, float],
    outputs: Sequence[Path],
) -> None:
    """Frames, frames per second, and the share of each class, the largest first.

    Args:
        console: where to.
        frames: how many were labelled and written.
        model: its name.
        device: that it ran on.
        seconds: from opening the input until the outputs were closed.
        shares: by class name, 0 to 1.
        outputs: what was written.
    """
    console.print(
        f"{frames} frames by {model} on {device} in {seconds:.1f} s: {frames / seconds:.1f} frames/s; wrote "
        f"{', '.join(map(str, outputs))}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    table = Table("class", "share", box=None)
    seen = [name for name in sorted(shares, key=lambda name: -shares[name]) if shares[name] > 0]
    for name in seen[:MOST_CLASSES_SHOWN]:
        table.add_row(name, f"{100 * shares[name]:5.1f} %")
    console.print(table)
    if len(seen) > MOST_CLASSES_SHOWN:
        console.print(f"and {len(seen) - MOST_CLASSES_SHOWN} more classes")
