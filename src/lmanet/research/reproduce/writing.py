"""JSON, Markdown and figures of an experiment whose cells are finished."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmanet.atomic import write_whole
from lmanet.evaluation.results import nan_to_none
from lmanet.research.benchmarks.plots import save_figure
from lmanet.research.benchmarks.tables import Table
from lmanet.research.reproduce.plan import Plan, Row
from lmanet.research.reproduce.plots import difference_bars, gain_lines
from lmanet.research.reproduce.spelling import cell_hash, configuration
from lmanet.research.reproduce.statistics import Summary
from lmanet.research.reproduce.store import Store
from lmanet.research.reproduce.tables import MEASURES, Outcome, class_measure, gains_at, tables_of

SCHEMA_VERSION = 2
"""The version of the JSON; raised whenever a field is renamed, removed or changes its meaning."""


def write_report(name: str, plan: Plan, store: Store, folder: Path, settings: dict[str, Any]) -> list[Table]:
    """Write `NAME.json`, `NAME.md` and `NAME*.png` into a folder.

    Args:
        name: the experiment's.
        plan: the experiment.
        store: where all of its cells are finished.
        folder: where to.
        settings: what the experiment was called with, kept in the JSON.

    Returns:
        The tables, for the terminal.

    Raises:
        OutputError: a file cannot be written.
    """
    outcome = Outcome(plan, store)
    tables = tables_of(outcome)
    pictures = _draw(name, outcome, folder)
    content = {
        "schema_version": SCHEMA_VERSION,
        "experiment": name,
        "title": plan.title,
        "notes": plan.notes,
        "settings": settings,
        "environments": _environments(store, plan),
        "rows": [_row_json(outcome, row) for row in plan.rows],
        "class_names": outcome.class_names if plan.rows else (),
        "cells": {
            cell_hash(cell): {"config": configuration(cell), "result": store.result(cell)}
            for cell in plan.cells
        },
        "figures": pictures,
    }
    write_whole(
        folder / f"{name}.json",
        (json.dumps(nan_to_none(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode(),
    )
    text = "\n\n".join([f"# {plan.title}", *(table.markdown() for table in tables)])
    shown = "\n\n".join(f"![{plan.title}]({picture})" for picture in pictures)
    write_whole(folder / f"{name}.md", f"{text}\n{f'{chr(10)}{shown}{chr(10)}' if shown else ''}".encode())
    return tables


def _environments(store: Store, plan: Plan) -> list[dict[str, Any]]:
    """The machines and versions that the cells ran with, each once."""
    places: list[dict[str, Any]] = []
    for cell in plan.cells:
        if (place := store.result(cell)["environment"]) not in places:
            places.append(place)
    return places


def _draw(name: str, outcome: Outcome, folder: Path) -> list[str]:
    """Draw or copy an experiment's pictures into a folder, and return their names."""
    plan, pictures = outcome.plan, []
    if plan.per_class:
        count = len(outcome.class_names)
        gains = {
            row.name: [outcome.gain(row, plan.rows[0], class_measure(i, count)) for i in range(count + 1)]
            for row in plan.rows[1:]
        }
        title = f"IoU per class less that of: {plan.rows[0].name}"
        pictures.append(f"{name}-classes.png")
        save_figure(difference_bars(gains, outcome.class_names, title), folder / pictures[-1])
    if plan.points:
        lines: dict[str, dict[float, dict[str, Summary]]] = {}
        for point in plan.points:
            lines.setdefault(point.axis, {})[point.value] = gains_at(outcome, point, "miou")
        pictures.append(f"{name}-gains.png")
        save_figure(gain_lines(lines), folder / pictures[-1])
    for cell in plan.others:
        drawn = outcome.store.result(cell).get("pictures", [])
        for picture in drawn:
            if not plan.pictures or picture in plan.pictures:
                pictures.append(f"{name}.png" if len(plan.pictures or drawn) == 1 else f"{name}-{picture}")
                write_whole(folder / pictures[-1], (outcome.store.folder(cell) / picture).read_bytes())
    return pictures


def _row_json(outcome: Outcome, row: Row) -> dict[str, Any]:
    count = len(outcome.class_names)
    measures = {key: asdict(outcome.summary(row, measure)) for key, (_, measure) in MEASURES.items()}
    base = outcome.base(row)
    return {
        "name": row.name,
        "scored_on": row.place,
        "cells": [[cell_hash(cell) for cell in folds] for folds in row.cells],
        **measures,
        "miou_difference": asdict(outcome.gain(row, base, MEASURES["miou"][1])),
        "per_class_iou": [asdict(outcome.summary(row, class_measure(i, count))) for i in range(count)],
    }
