"""An evaluation report as a table, a JSON file and a plot."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmanet.atomic import write_whole
from lmanet.errors import InputError
from lmanet.evaluation.results import EvaluationReport, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOT_SUFFIXES = (".png", ".pdf", ".svg")
"""The file types that `plot_per_class` writes."""

_COLOURS = ("#9a9a9a", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
"""Bars in order: grey for the first, the baseline, then Okabe and Ito's colours, told apart by the
colour-blind."""


@dataclass(frozen=True)
class _Row:
    """One line of a table: what it shows, of which scores, in which unit, and which way is better."""

    name: str
    value: Callable[[Scores], float]
    percent: bool = True
    higher_is_better: bool = True
    decimals: int = 2

    def number(self, value: float, *, sign: bool = False) -> str:
        if math.isnan(value):
            return "n/a"
        return f"{value * (100 if self.percent else 1):{'+' if sign else ''}.{self.decimals}f}"

    def difference(self, first: Scores, second: Scores) -> Text:
        """Second minus first, green where the second is better."""
        delta = self.value(second) - self.value(first)
        text = self.number(delta, sign=True)
        if math.isnan(delta) or delta == 0:
            return Text(text)
        return Text(text, style="green" if (delta > 0) == self.higher_is_better else "red")


def score_table(report: EvaluationReport) -> Table:
    """One row per metric and one column per predictor; with two predictors also their difference.

    Arrows say which way is better. Shares are in percent, their differences in percentage points.
    """
    return _table(report, "Metric", _metric_rows(report))


def per_class_table(report: EvaluationReport) -> Table:
    """IoU in percent, one row per class and one column per predictor; with two also their difference."""
    rows = [
        _Row(name, lambda scores, k=k: scores.per_class_iou[k]) for k, name in enumerate(report.class_names)
    ]
    return _table(report, "IoU ↑ (%)", [*rows, _Row("mean", lambda scores: scores.miou)])


def print_table(report: EvaluationReport, console: Console) -> None:
    """Print `score_table` and, below it, the conventions and the machine that the figures depend on."""
    console.print(score_table(report))
    if any(
        math.isnan(row.value(scores)) for row in _metric_rows(report) for scores in report.scores.values()
    ):
        console.print("n/a: flicker needs labelled frames next to each other, VC_n n of them in a row.")
    conventions, environment = report.conventions, report.environment
    flow = f"TC by {conventions.flow}" if conventions.flow else "TC not measured"
    settings = "".join(f"{name}: {value}, " for name, value in report.settings.items())
    console.print(
        f"Temporal metrics: {conventions.mode} mode, {flow}. {settings}lmanet {environment.lmanet}, "
        f"PyTorch {environment.torch}, threads: {environment.threads}, {environment.machine}.",
        style="dim",
        markup=False,
        highlight=False,
    )


def write_json(report: EvaluationReport, path: str | Path) -> None:
    """Write the report as JSON; nothing is left under `path` if that fails.

    Raises:
        OutputError: if the file cannot be written.
    """
    write_whole(Path(path), report.to_json().encode())


def plot_per_class(report: EvaluationReport, path: str | Path) -> None:
    """Draw the IoU per class, a bar for each predictor, and their means, into a file.

    Args:
        report: what to draw.
        path: the file, .png (200 dpi), .pdf or .svg; nothing is left under it if writing fails.

    Raises:
        InputError: on another file type.
        OutputError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise InputError(
            f"a plot cannot be written to {path.name}: give a name ending in {', '.join(PLOT_SUFFIXES)}"
        )
    buffer = io.BytesIO()
    _per_class_figure(report).savefig(buffer, format=path.suffix[1:].lower(), dpi=200)
    write_whole(path, buffer.getbuffer())


def _metric_rows(report: EvaluationReport) -> list[_Row]:
    lengths = sorted({n for scores in report.scores.values() for n in scores.vc})
    rows = [
        _Row("mIoU ↑ (%)", lambda scores: scores.miou),
        _Row("pixel accuracy ↑ (%)", lambda scores: scores.pixel_accuracy),
        _Row("flicker ↓ (%)", lambda scores: scores.flicker, higher_is_better=False),
        *(_Row(f"VC{n} ↑ (%)", lambda scores, n=n: scores.vc.get(n, math.nan)) for n in lengths),
    ]
    if report.conventions.flow:
        rows.append(_Row("TC ↑ (%)", lambda scores: scores.tc))
    return [
        *rows,
        _Row(
            "time per frame ↓ (ms)",
            lambda scores: scores.median_ms,
            percent=False,
            higher_is_better=False,
            decimals=1,
        ),
        _Row("frames per second ↑", lambda scores: scores.fps, percent=False, decimals=1),
    ]


def _table(report: EvaluationReport, heading: str, rows: list[_Row]) -> Table:
    # Names go in as Text: in a plain string, square brackets would be read as markup.
    scores = list(report.scores.values())
    title = f"{report.data}: {scores[0].frames} frames, {scores[0].labelled_frames} labelled"
    table = Table(title=Text(title), box=box.SIMPLE_HEAD)
    table.add_column(heading)
    for name in report.scores:
        table.add_column(Text(name), justify="right")
    if len(scores) == 2:
        table.add_column("Difference", justify="right")
    for row in rows:
        cells = [Text(row.number(row.value(one))) for one in scores]
        if len(scores) == 2:
            cells.append(row.difference(*scores))
        table.add_row(Text(row.name), *cells)
    return table


def _per_class_figure(report: EvaluationReport) -> Figure:
    # The figure is made without pyplot: no global state, no display, safe in any thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = [*report.class_names, "mean"]
    # The means stand a little apart, below the classes.
    centres = [*map(float, range(len(report.class_names))), len(report.class_names) + 0.4]
    bar = 0.8 / len(report.scores)
    height = 1.1 + len(groups) * max(0.3, 0.17 * len(report.scores))
    figure = Figure(figsize=(7.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (name, scores) in enumerate(report.scores.items()):
        places = [centre + (i - (len(report.scores) - 1) / 2) * bar for centre in centres]
        shares = [*scores.per_class_iou, scores.miou]
        _draw_bars(axes, places, shares, height=bar, colour=_COLOURS[i % len(_COLOURS)], name=name)
    axes.set_yticks(centres, groups)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.invert_yaxis()
    axes.margins(y=0.01)
    # Room beyond 100 for the number of a bar that reaches it.
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("IoU (%)")
    axes.set_title(report.data, loc="left", fontsize="medium")
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(
        loc="outside upper right", ncols=min(len(report.scores), 4), frameon=False, fontsize="small"
    )
    return figure


def _draw_bars(
    axes: Axes, places: list[float], shares: list[float], *, height: float, colour: str, name: str
) -> None:
    """One predictor's bars, each with its number in percent; `n/a` and no bar where the share is NaN."""
    widths = [0.0 if math.isnan(share) else 100 * share for share in shares]
    bars = axes.barh(places, widths, height=height * 0.92, color=colour, label=name)
    numbers = ["n/a" if math.isnan(share) else f"{100 * share:.1f}" for share in shares]
    axes.bar_label(bars, numbers, padding=2, fontsize=6.5, color="0.25")
