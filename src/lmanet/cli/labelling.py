"""What `lmanet segment` shows while it labels and when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lmanet.api import LabelledVideo
from lmanet.cli.said import say
from lmanet.words import FEW, counted


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


def print_summary(console: Console, labelled: LabelledVideo, network: str, stopped_by: str = "") -> None:
    """Frames, frames per second, warnings, and the share of each class, the largest first.

    Args:
        console: where to.
        labelled: what was done.
        network: its name.
        stopped_by: the signal that ended the run before the source did.
    """
    say(console, *(f"warning: {warning}" for warning in labelled.warnings), style="yellow")
    fps, outputs = labelled.frames / labelled.seconds, ", ".join(map(str, labelled.outputs))
    if labelled.found:
        say(console, f"kept {counted(labelled.found, 'label map')} of an earlier run")
    if stopped_by:
        count = counted(labelled.frames, "frame")
        wrote = (
            f"after {count}; wrote {outputs} ({count})"
            if labelled.frames
            else "before the first frame; nothing written"
        )
        say(console, f"stopped by {stopped_by} {wrote}")
    if not labelled.frames:
        return
    say(
        console,
        f"{counted(labelled.frames, 'frame')} by {network}, method {labelled.method}, on {labelled.device} in "
        f"{labelled.seconds:.1f} s: {fps:.1f} frames/s; wrote {outputs}",
        f"normalisation: {labelled.normalisation}",
        *labelled.notes,
    )
    table, shares = Table("class", "share", box=None), labelled.shares
    seen = [name for name in sorted(shares, key=lambda name: -shares[name]) if shares[name] > 0]
    for name in seen[:FEW]:
        table.add_row(Text(name), f"{100 * shares[name]:5.1f} %")
    console.print(table)
    if len(seen) > FEW:
        console.print(f"and {len(seen) - FEW} more classes")
