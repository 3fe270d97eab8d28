"""`lmanet reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from lmanet.cli.said import say

if TYPE_CHECKING:
    from lmanet.research.reproduce.estimate import Estimate
    from lmanet.research.reproduce.schedule import Watcher


def reproduce(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    /,
    *,
    data: str,
    out: Path,
    weights: str | None = None,
    seeds: int = 3,
    processes: int = 1,
    dry_run: bool = False,
    folds: bool = False,
) -> None:
    """Run the paper's tables and figures beside controls that it lacks, and write them as JSON, Markdown and PNG.

    What is finished in the folder of results is not run again; a killed run goes on when the same command is given.

    Args:
        names: table-1, table-2, table-3, table-4, table-6, table-s4, control, border, presets, window,
            training-free, robustness, figure-1, figure-3 and figure-5; all that the data allow, if none is given.
        data: camvid:ROOT, synthetic: or cityscapes:ROOT.
        out: folder of the results: cells/ holds every training and evaluation, camvid/ and so on the tables.
        weights: the single-frame network that memories are put on, a bundled name or a .safetensors file; trained
            first, if not given.
        seeds: trainings that each figure is the mean of.
        processes: trainings and evaluations side by side, each with its share of the cores.
        dry_run: list every training and evaluation with an estimate of its time, and run nothing.
        folds: make the tables `control` and `training-free` on CamVid's folds too, with networks trained on each.
    """
    from rich.console import Console

    from lmanet.cli.progress import TrainingProgress
    from lmanet.errors import InputError
    from lmanet.research.reproduce.run import estimate_plans, make_plans, make_setup, run_plans

    if processes < 1:
        raise InputError(f"processes {processes}: expected at least 1")
    setup = make_setup(data, weights=weights, seeds=seeds, folds=folds)
    plans = make_plans(names, setup)
    console = Console()
    if dry_run:
        _print_estimates(estimate_plans(plans, out), processes, console)
        return
    with TrainingProgress(out) as progress:
        tables = run_plans(plans, setup, out, processes=processes, watcher=_shown(progress))
    for name, of_experiment in tables.items():
        for table in of_experiment:
            console.print(table.rich())
        say(console, f"{out / setup.kind / name}.md, .json")


def _shown(bars: Any) -> Watcher:
    """A line for each cell, bars for what runs in this process."""
    from lmanet.research.reproduce.cells import title
    from lmanet.research.reproduce.schedule import Watcher
    from lmanet.research.reproduce.spelling import cell_hash

    class Shown(Watcher):
        def begin(self, cell: Any, number: int, total: int) -> None:
            bars.say(f"{number}/{total} {title(cell)} ({cell_hash(cell)})")

        def report(self, name: str, progress: Any) -> None:
            # Under the same name for every cell, or there would be a bar for each.
            bars.report(name, progress)

        def end(self, cell: Any) -> None:
            bars.say(f"finished: {title(cell)}")

    return Shown()


def _print_estimates(estimates: list[Estimate], processes: int, console: Any) -> None:
    from lmanet.research.reproduce.estimate import readable
    from lmanet.research.reproduce.spelling import cell_hash

    for one in estimates:
        say(console, f"{cell_hash(one.cell)} {one.line}")
    left = [one for one in estimates if not one.cached]
    seconds = sum(one.seconds for one in left)
    shared = f", about {readable(seconds / processes)} in {processes} processes" if processes > 1 else ""
    say(
        console,
        f"{len(estimates)} cells, {len(estimates) - len(left)} cached, {len(left)} to do: about {readable(seconds)}"
        f"{shared}",
    )
