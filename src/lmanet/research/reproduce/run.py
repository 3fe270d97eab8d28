"""`reproduce`: named experiments from plan to tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmanet.atomic import check_folder
from lmanet.errors import InputError
from lmanet.research.benchmarks.tables import Table
from lmanet.research.reproduce.budget import BUDGETS, Budget
from lmanet.research.reproduce.cells import Cell, weights_of
from lmanet.research.reproduce.data import checked_spec
from lmanet.research.reproduce.estimate import Estimate, estimate
from lmanet.research.reproduce.experiments import EXPERIMENTS
from lmanet.research.reproduce.plan import Plan, Setup
from lmanet.research.reproduce.schedule import Watcher, run_cells
from lmanet.research.reproduce.store import Store
from lmanet.research.reproduce.writing import write_report


def make_setup(
    data: str,
    *,
    weights: str | None = None,
    seeds: int = 3,
    folds: bool = False,
    budget: Budget | None = None,
) -> Setup:
    """What the experiments of one call share.

    Args:
        data: `camvid:ROOT`, `synthetic:` or `cityscapes:ROOT`.
        weights: the single-frame network; without, it is trained first.
        seeds: how many trainings each figure is the mean of.
        folds: whether `control` and `training-free` are made on CamVid's folds too.
        budget: of trainings, if not that of `BUDGETS`.

    Raises:
        InputError: other data, or no seed.
        WeightsError: there are no such weights, or they are of a video model.
    """
    if seeds < 1:
        raise InputError(f"seeds {seeds}: expected at least 1")
    spec = checked_spec(data)
    kind = spec.partition(":")[0]
    return Setup(spec, budget or BUDGETS[kind], weights_of(weights) if weights else None, seeds, folds)


def make_plans(names: Sequence[str], setup: Setup) -> dict[str, Plan]:
    """The experiments of these names; of none, all that the data allow.

    Raises:
        InputError: there is no such experiment, or it is not for this data.
    """
    for name in names:
        if name not in EXPERIMENTS:
            raise InputError(f"no experiment named {name!r}: there are {', '.join(EXPERIMENTS)}")
        if setup.kind not in EXPERIMENTS[name].kinds:
            raise InputError(f"{name} runs on {', '.join(EXPERIMENTS[name].kinds)} data, not on {setup.kind}")
    chosen = names or [name for name, one in EXPERIMENTS.items() if setup.kind in one.kinds]
    if setup.folds and not {"control", "training-free"}.intersection(chosen):
        raise InputError(
            f"--folds with {', '.join(chosen)}: `control` and `training-free` are made on folds, name one of them"
        )
    return {name: EXPERIMENTS[name].plan(setup) for name in dict.fromkeys(chosen)}


def estimate_plans(plans: dict[str, Plan], out: Path) -> list[Estimate]:
    """Every cell of some experiments, each once, and how long it will take; runs nothing."""
    return estimate(_cells(plans.values()), Store(out))


def run_plans(
    plans: dict[str, Plan],
    setup: Setup,
    out: Path,
    *,
    processes: int = 1,
    workers: int | None = None,
    watcher: Watcher | None = None,
) -> dict[str, list[Table]]:
    """Run the cells of some experiments that are not finished, then write `OUT/DATA/NAME.json`, `.md` and `.png`.

    Args:
        plans: the experiments, by name.
        setup: what they were made with.
        out: the folder of results; finished cells in it are not run again.
        processes: cells side by side.
        workers: see `run_cells`.
        watcher: told of the progress.

    Returns:
        The tables of each experiment.

    Raises:
        OutputError: the folder cannot be written to.
        InputError: the folder has one of these tables for other weights.
        LmanetError: what a cell raises; tables whose cells are finished are written all the same.
    """
    folder = out / setup.kind
    check_folder(folder)
    store = Store(out)
    settings = {
        "data": setup.kind,
        "weights": None if setup.weights is None else Path(setup.weights.name).name,
        "weights_sha256": None if setup.weights is None else setup.weights.sha256,
        "seeds": setup.seeds,
        "folds": setup.folds,
    }
    for name in plans:
        _check_same_weights(folder / f"{name}.json", settings)
    try:
        run_cells(_cells(plans.values()), store, processes=processes, workers=workers, watcher=watcher)
    finally:
        # Whatever stops the run, the tables whose cells are finished are written.
        whole = {name: plan for name, plan in plans.items() if all(map(store.is_finished, plan.cells))}
        tables = {name: write_report(name, plan, store, folder, settings) for name, plan in whole.items()}
    return tables


def _check_same_weights(report: Path, settings: Mapping[str, Any]) -> None:
    if not report.is_file():
        return
    before = json.loads(report.read_text())["settings"]
    named = "weights", "weights_sha256"
    if any(before.get(name, settings[name]) != settings[name] for name in named):
        was, now = (
            f"{s['weights']} ({(s.get('weights_sha256') or 'unknown')[:16]})" for s in (before, settings)
        )
        raise InputError(
            f"{report} is of {was if before['weights'] else 'a network trained for it'}, not of "
            f"{now if settings['weights'] else 'a network to be trained'}: give another --out for this one"
        )


def _cells(plans: Iterable[Plan]) -> list[Cell]:
    return list(dict.fromkeys(cell for plan in plans for cell in plan.cells))
