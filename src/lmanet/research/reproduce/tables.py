"""The tables of an experiment whose cells are finished."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lmanet.research.benchmarks.model import Measured, bare_s
from lmanet.research.benchmarks.tables import Table, change, mebibytes, milliseconds
from lmanet.research.reproduce.cells import Changes, Evaluation, Timings
from lmanet.research.reproduce.plan import Plan, Point, Row
from lmanet.research.reproduce.statistics import Summary, difference, summarise
from lmanet.research.reproduce.store import Store

Scores = dict[str, Any]


MEASURES: dict[str, tuple[str, Callable[[Scores], float | None]]] = {
    "miou": ("mIoU", lambda scores: scores["miou"]),
    "flicker": ("flicker", lambda scores: scores["flicker"]),
    "vc8": ("VC8", lambda scores: scores["vc"]["8"]),
    "vc16": ("VC16", lambda scores: scores["vc"]["16"]),
    "tc": ("TC", lambda scores: scores["tc"]),
}
"""What every table shows of a model, by its name in the JSON: heading, and where it is in an evaluation's scores."""


class Outcome:
    """The figures of an experiment's rows.

    Args:
        plan: the experiment.
        store: where all of its cells are finished.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self._scores: dict[Evaluation, Scores] = {}

    def summary(self, row: Row, measure: Callable[[Scores], float | None]) -> Summary:
        """Mean and spread of one measure of a row; a row that is the same for all seeds counts as one seed."""
        seeds = row.cells[:1] if len(set(row.cells)) == 1 else row.cells
        return summarise([[_number(measure(self.scores(cell))) for cell in folds] for folds in seeds])

    def base(self, row: Row) -> Row:
        """What the row is compared with: the first of its place."""
        return next(one for one in self.plan.rows if one.place == row.place)

    def gain(self, row: Row, base: Row, measure: Callable[[Scores], float | None]) -> Summary:
        """By how much a row's measure is above another's, seed by seed."""
        return difference(self.summary(row, measure), self.summary(base, measure))

    def scores(self, cell: Evaluation) -> Scores:
        """The scores of one evaluation, as its result has them."""
        if cell not in self._scores:
            self._scores[cell] = self.store.result(cell)["scores"]
        return self._scores[cell]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the data's classes."""
        return tuple(self.store.result(self.plan.rows[0].cells[0][0])["class_names"])


def tables_of(outcome: Outcome) -> list[Table]:
    """The tables of an experiment; its notes are below the first."""
    plan = outcome.plan
    tables = [_score_table(outcome)] if plan.rows else []
    if plan.points:
        tables.append(_gain_table(outcome))
    if plan.per_class:
        tables.append(_class_table(outcome))
    for cell in plan.others:
        result = outcome.store.result(cell)
        if isinstance(cell, Timings):
            tables.append(_timing_table(plan, cell, result))
        elif isinstance(cell, Changes):
            tables.append(_changes_table(plan, result))
        else:
            tables.append(_places_table(plan, result))
    return tables


def class_measure(index: int, count: int) -> Callable[[Scores], float | None]:
    """The IoU of a class; behind the last, the mean."""
    return MEASURES["miou"][1] if index == count else lambda scores: scores["per_class_iou"][index]


def _score_table(outcome: Outcome) -> Table:
    plan = outcome.plan
    several = len({row.place for row in plan.rows}) > 1
    headings = (
        "",
        *(["scored on"] if several else []),
        "mIoU",
        "Δ mIoU",
        *(h for h, _ in list(MEASURES.values())[1:]),
        "n",
    )
    lines = []
    for row in plan.rows:
        cells = [row.name, *([row.place] if several else [])]
        for key, (_, measure) in MEASURES.items():
            summary = outcome.summary(row, measure)
            cells.append(summary.text())
            if key == "miou":
                gain = outcome.gain(row, outcome.base(row), measure)
                cells.append("" if row is outcome.base(row) else gain.text(signed=True))
        lines.append((*cells, str(outcome.summary(row, MEASURES["miou"][1]).n)))
    place = "" if several else f", scored on {plan.rows[0].place}"
    flows = {
        outcome.store.result(cell)["conventions"]["flow"]
        for cell in plan.cells
        if isinstance(cell, Evaluation)
    }
    legend = (
        "mIoU, flicker (lower is better), VC8, VC16 and TC in percent; Δ mIoU against the first line (of the same "
        "place), paired by seed; mean ± sample standard deviation over n seeds. "
        f"Flow of TC: {'; '.join(sorted(flow or 'none, the frames are too small' for flow in flows))}."
    )
    return Table(f"{plan.title}{place}", headings, tuple(lines), (legend, *plan.notes))


def _class_table(outcome: Outcome) -> Table:
    rows = outcome.plan.rows
    headings = ("class", *(row.name for row in rows), *(f"Δ {row.name}" for row in rows[1:]))
    lines = []
    for i, name in enumerate([*outcome.class_names, "mean"]):
        measure = class_measure(i, len(outcome.class_names))
        values = [outcome.summary(row, measure).text() for row in rows]
        gains = [outcome.gain(row, rows[0], measure).text(signed=True) for row in rows[1:]]
        lines.append((name, *values, *gains))
    return Table("IoU per class, in percent, and differences", headings, tuple(lines))


def _gain_table(outcome: Outcome) -> Table:
    names = outcome.plan.points[0].rows
    headings = ("", "value", *(f"mIoU, {name}" for name in names), *(f"flicker, {name}" for name in names))
    lines = [
        (
            point.axis,
            f"{point.value:g}",
            *(
                gain.text(signed=True)
                for key in ("miou", "flicker")
                for gain in gains_at(outcome, point, key).values()
            ),
        )
        for point in outcome.plan.points
    ]
    return Table("Against the single-frame network, in points", headings, tuple(lines))


def gains_at(outcome: Outcome, point: Point, key: str) -> dict[str, Summary]:
    """By how much a measure of the rows of a point is above the single-frame network's."""
    rows = {row.name: row for row in outcome.plan.rows if row.place == point.place}
    return {name: outcome.gain(rows[name], outcome.base(rows[name]), MEASURES[key][1]) for name in point.rows}


def _timing_table(plan: Plan, cell: Timings, result: dict[str, Any]) -> Table:
    measured = [Measured.from_json(one) for one in result["measured"]]
    bare = bare_s(measured, measured[0].variant.precision)
    first = measured[0].peak_bytes
    lines = []
    for one in measured:
        peak = one.peak_bytes
        growth = "n/a" if peak is None or first is None else change(peak, first)
        lines.append(
            (
                one.variant.name,
                milliseconds(one.timing.median_s),
                change(one.timing.median_s, bare),
                mebibytes(peak),
                growth,
            )
        )
    title = f"{plan.title} at {cell.size[1]}×{cell.size[0]}, {result['environment']['threads']} threads"
    return Table(title, ("", "ms", "ΔT", "peak MiB", "ΔM"), tuple(lines), plan.notes)


def _changes_table(plan: Plan, result: dict[str, Any]) -> Table:
    shown = [(f"{one['sequence']} {one['frame']}", one) for one in result["shown"]]
    lines = []
    for name, one in [*shown, ("all labelled frames", result["all"])]:
        counts = [one[key] for key in ("changed", "made_right", "made_wrong")]
        lines.append((name, *(f"{count} ({100 * count / max(1, one['pixels']):.2f} %)" for count in counts)))
    headings = ("frame", "pixels changed", "made right", "made wrong")
    return Table(plan.title, headings, tuple(lines), (result["rule"], *plan.notes))


def _places_table(plan: Plan, result: dict[str, Any]) -> Table:
    lines = tuple(
        (
            one["class_name"],
            one["sequence"],
            one["frame"],
            str(one["row"]),
            str(one["column"]),
            str(one["region_px"]),
        )
        for one in result["cells"]
    )
    headings = ("class", "sequence", "frame", "row", "column", "region, pixels")
    return Table(plan.title, headings, lines, (result["rule"], *plan.notes))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
