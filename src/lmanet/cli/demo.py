"""`lmanet demo`: the main job on a street that is rendered on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def demo(
    *,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("demo"),
    frames: int = 75,
    seed: int = 0,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> None:
    """Render a short drive, label it with and without memory, and show the difference.

    Writes `out.mp4` (frame, labels without memory, labels with memory, legend) and `out.png` (some of its frames).

    Args:
        out: folder for the two files.
        frames: length of the drive, 15 frames a second.
        seed: of the street and the drive.
        precision: of the networks.
    """
    from rich.console import Console
    from rich.progress import Progress

    from lmanet.cli.showcase import compare, write_showcase

    console = Console()
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("rendering and labelling", total=frames)
        drive, labels, table = compare(
            frames, seed, precision, on_frame=lambda done: bars.update(task, completed=done)
        )
    console.print(table)
    for path in write_showcase(drive, labels, out):
        console.print(f"wrote {path}", highlight=False, markup=False)
