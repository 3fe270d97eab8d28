"""Plots of the benchmarks: PNG, PDF or SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmanet.atomic import write_whole
from lmanet.research.benchmarks.model import Measured, bare_s
from lmanet.research.benchmarks.op import CaseResult
from lmanet.research.benchmarks.op_report import cases_along, label
from lmanet.research.benchmarks.timing import Timing
from lmanet.session import Precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#9a9a9a")
"""Okabe and Ito's, told apart by the colour-blind."""


def op_figure(results: Sequence[CaseResult]) -> Figure:
    """Milliseconds by window, memory size and map, a line for each implementation, on logarithmic axes."""
    figure = new_figure(11.0, 4.2)
    names = dict.fromkeys(name for result in results for name in result.measured)
    colours = {name: _COLOURS[n % len(_COLOURS)] for n, name in enumerate(names)}
    panels = figure.subplots(1, 3, sharey=True)
    for axes, axis in zip(panels, ("window", "memory size", "map"), strict=True):
        along = cases_along(results, axis)
        for name in names:
            _draw_line(axes, along, name, colours[name])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([_useful_gflop(r) for r in along], [label(r.case, axis) for r in along])
        axes.tick_params(axis="x", labelrotation=35, labelsize="small")
        axes.minorticks_off()
        axes.set_xlabel(f"{axis}, by useful work")
        axes.grid(color="0.9", linewidth=0.8)
    panels[0].set_ylabel("ms")
    handles, titles = panels[0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside upper center", ncols=4, frameon=False, fontsize="small")
    return figure


def model_figure(results: Sequence[Measured]) -> Figure:
    """How much longer than the bare network each variant takes, in percent; a panel for each precision."""
    precisions: list[Precision] = list(dict.fromkeys(one.variant.precision for one in results))
    figure = new_figure(5.5 * len(precisions), 4.2)
    for axes, precision in zip(
        figure.subplots(1, len(precisions), squeeze=False)[0], precisions, strict=True
    ):
        base = bare_s(results, precision)
        chosen = [one for one in results if one.variant.precision == precision and one.variant.memory]
        _draw_bars(
            axes,
            [one.variant.name for one in chosen],
            [100 * (one.timing.median_s / base - 1) for one in chosen],
            "{:+.1f}",
        )
        axes.set_xlabel("ΔT against the bare network (%)")
        axes.set_title(precision, loc="left", fontsize="medium")
    return figure


def stream_figure(timings: dict[str, Timing], frames: int) -> Figure:
    """Frames per second of each stream."""
    figure = new_figure(6.0, 2.4)
    axes = figure.subplots()
    _draw_bars(axes, list(timings), [frames / timing.median_s for timing in timings.values()], "{:.1f}")
    axes.set_xlabel("frames per second")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure into a file, .png (150 dpi), .pdf or .svg; nothing is left under its name if that fails.

    Raises:
        OutputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=150)
    write_whole(path, buffer.getbuffer())


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, without pyplot: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_line(axes: Axes, along: Sequence[CaseResult], name: str, colour: str) -> None:
    measured = [result for result in along if name in result.measured]
    if len(measured) < 2:  # a peer that was not measured along this axis
        return
    axes.plot(
        [_useful_gflop(result) for result in measured],
        [1000 * result.measured[name].timing.median_s for result in measured],
        marker="o",
        markersize=4,
        linestyle="--" if name.startswith("global") else "-",
        color=colour,
        label=name,
    )


def _useful_gflop(result: CaseResult) -> float:
    return result.case.useful_flops() / 1e9


def _draw_bars(axes: Axes, names: list[str], values: list[float], number: str) -> None:
    bars = axes.barh(range(len(names)), values, color=_COLOURS[1])
    axes.bar_label(bars, [number.format(value) for value in values], padding=2, fontsize="small")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
