"""Figures of the experiments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lmanet.research.benchmarks.plots import new_figure
from lmanet.research.reproduce.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
    "#9a9a9a",
    "#f0e442",
    "#44aa99",
)
"""Okabe and Ito's first, told apart by the colour-blind."""


def difference_bars(
    differences: Mapping[str, Sequence[Summary]], classes: Sequence[str], title: str
) -> Figure:
    """IoU per class less the single-frame network's, in points, with the spread over seeds (Figures S1 to S3).

    Args:
        differences: by row, a summary for each class and one for the mean behind them; shares, not percent.
        classes: their names.
        title: over the bars.
    """
    groups = [*classes, "mean"]
    figure = new_figure(max(7.0, 0.14 * len(groups) * (len(differences) + 1)), 3.6)
    axes = figure.subplots()
    width = 0.8 / max(1, len(differences))
    for i, (name, summaries) in enumerate(differences.items()):
        places = [n + (i - (len(differences) - 1) / 2) * width for n in range(len(groups))]
        axes.bar(
            places,
            [_points(one.mean) for one in summaries],
            width=width * 0.92,
            yerr=[_points(one.std) for one in summaries],
            error_kw={"elinewidth": 0.7, "ecolor": "0.35"},
            color=_COLOURS[i % len(_COLOURS)],
            label=name,
        )
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_xticks(range(len(groups)), groups, rotation=35, ha="right", fontsize="small")
    axes.set_ylabel("Δ IoU (points)")
    axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    return figure


def gain_lines(gains: Mapping[str, Mapping[float, Mapping[str, Summary]]]) -> Figure:
    """Gain in mIoU over the single-frame network along each axis, with the spread over seeds.

    Args:
        gains: by axis, value and name of what gains; shares, not percent.
    """
    figure = new_figure(3.0 * len(gains), 3.0)
    for axes, (axis, points) in zip(
        figure.subplots(1, len(gains), sharey=True, squeeze=False)[0], gains.items(), strict=True
    ):
        for i, name in enumerate(next(iter(points.values()))):
            both = [by_name[name] for by_name in points.values()]
            axes.errorbar(
                list(points),
                [_points(one.mean) for one in both],
                yerr=[_points(one.std) for one in both],
                marker="o",
                markersize=4,
                capsize=2,
                color=_COLOURS[i],
                label=name if axes.get_subplotspec().is_first_col() else None,
            )
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set_title(axis, fontsize="small")
        axes.grid(color="0.9", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("Δ mIoU (points)")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def _points(share: float) -> float:
    return 0.0 if math.isnan(share) else 100 * share
