"""`lmanet demo`: the main job on a street that is rendered on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from rich.table import Table

    from lmanet.evaluation.results import EvaluationReport


def demo(
    *,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("demo"),
    frames: int = 75,
    seed: int = 0,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str | None = None,
) -> None:
    """Render a short drive, label it frame by frame, by the flow average and with memory, and show the difference.

    Writes `out.mp4` (frames and labels side by side) and `out.png`: the frames at which the network alone flickers
    most, and below them the column of pixels that flickers most, frame after frame from left to right.

    Args:
        out: folder for the two files.
        frames: length of the drive, 15 frames a second, at least 8.
        seed: of the street and the drive.
        precision: of the networks.
        device: cpu, cuda or cuda:1 and so on; a GPU where PyTorch has one, if not given.
    """
    from rich.console import Console
    from rich.progress import Progress

    from lmanet.atomic import check_folder
    from lmanet.demo import compare, write_sheet, write_video
    from lmanet.devices import find_device

    chosen = find_device(device)
    check_folder(out)
    console, errors = Console(), Console(stderr=True)
    errors.print(f"rendering {frames} frames and labelling them three times, on {chosen}", highlight=False)
    with Progress(console=errors, transient=True) as bars:
        task = bars.add_task("rendering and labelling", total=frames)
        comparison = compare(
            frames,
            seed,
            precision=precision,
            device=chosen,
            progress=lambda done, total: bars.update(task, completed=done),
        )
    console.print(_table(comparison.report, f"{frames} rendered frames, 480×360, on {chosen}"))
    for write, path in ((write_video, out / "out.mp4"), (write_sheet, out / "out.png")):
        write(comparison, path)
        console.print(f"wrote {path}", highlight=False, markup=False)


def _table(report: EvaluationReport, title: str) -> Table:
    from rich.table import Table

    from lmanet.demo import VC_FRAMES

    table = Table(title=title)
    for heading in ("", "mIoU ↑", "flicker ↓", f"VC{VC_FRAMES} ↑", "frames/s ↑"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, scores in report.scores.items():
        table.add_row(
            name,
            f"{100 * scores.miou:.1f} %",
            f"{100 * scores.flicker:.2f} %",
            f"{100 * scores.vc[VC_FRAMES]:.1f} %",
            f"{scores.fps:.1f}",
        )
    return table
