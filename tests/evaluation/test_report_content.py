"""What tables and plot show of a small report, worked out by hand; `test_report.py` has the files and the wording."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from lmanet.evaluation.report import _per_class_figure, per_class_table, score_table
from lmanet.evaluation.results import Conventions, EvaluationReport, Scores

# 4 classes; "fence" is absent in both, "car" only in the first.
SINGLE = Scores(
    miou=0.5,
    per_class_iou=(0.9, math.nan, 0.4, 0.2),
    pixel_accuracy=0.8,
    flicker=0.1,
    vc={8: 0.75, 16: math.nan},
    tc=0.6,
    median_ms=40.0,
    fps=25.0,
    frames=12,
    labelled_frames=10,
)
MEMORY = replace(
    SINGLE,
    miou=0.575,
    per_class_iou=(0.85, math.nan, 0.3, math.nan),
    pixel_accuracy=0.8,
    flicker=0.12,
    vc={8: 0.875, 16: math.nan},
    tc=0.55,
    median_ms=32.0,
    fps=31.25,
)
REPORT = EvaluationReport(
    data="tiny/val",
    class_names=("road", "fence", "pole", "car"),
    scores={"single-frame": SINGLE, "LMANet": MEMORY},
    conventions=Conventions(mode="default", flow="DIS"),
)


def cells(table: Table) -> list[list[str]]:
    """Row by row, the headings first."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def difference_styles(table: Table) -> dict[str, str]:
    """The colour of each row's difference, by the row's name."""
    names, differences = table.columns[0].cells, table.columns[-1].cells
    return {
        str(name): str(difference.style)
        for name, difference in zip(names, differences, strict=True)
        if isinstance(difference, Text)
    }


def test_score_table() -> None:
    table = score_table(REPORT)
    assert str(table.title) == "tiny/val: 12 frames, 10 labelled"
    assert cells(table) == [
        ["Metric", "single-frame", "LMANet", "Difference"],
        ["mIoU ↑ (%)", "50.00", "57.50", "+7.50"],
        ["pixel accuracy ↑ (%)", "80.00", "80.00", "+0.00"],
        ["flicker ↓ (%)", "10.00", "12.00", "+2.00"],
        ["VC8 ↑ (%)", "75.00", "87.50", "+12.50"],
        ["VC16 ↑ (%)", "n/a", "n/a", "n/a"],
        ["TC ↑ (%)", "60.00", "55.00", "-5.00"],
        ["time per frame ↓ (ms)", "40.0", "32.0", "-8.0"],
        ["frames per second ↑", "25.0", "31.2", "+6.2"],
    ]
    assert difference_styles(table) == {
        "mIoU ↑ (%)": "green",
        "pixel accuracy ↑ (%)": "",
        "flicker ↓ (%)": "red",
        "VC8 ↑ (%)": "green",
        "VC16 ↑ (%)": "",
        "TC ↑ (%)": "red",
        "time per frame ↓ (ms)": "green",
        "frames per second ↑": "green",
    }


def test_per_class_table() -> None:
    table = per_class_table(REPORT)
    assert cells(table) == [
        ["IoU ↑ (%)", "single-frame", "LMANet", "Difference"],
        ["road", "90.00", "85.00", "-5.00"],
        ["fence", "n/a", "n/a", "n/a"],
        ["pole", "40.00", "30.00", "-10.00"],
        ["car", "20.00", "n/a", "n/a"],
        ["mean", "50.00", "57.50", "+7.50"],
    ]
    styles = difference_styles(table)
    assert styles == {"road": "red", "fence": "", "pole": "red", "car": "", "mean": "green"}


def test_three_predictors_are_side_by_side_in_their_order() -> None:
    scores = {"single-frame": SINGLE, "control": replace(SINGLE, miou=0.51), "LMANet": MEMORY}
    table = cells(score_table(replace(REPORT, scores=scores)))
    assert table[0] == ["Metric", "single-frame", "control", "LMANet"]
    assert table[1] == ["mIoU ↑ (%)", "50.00", "51.00", "57.50"]


def test_a_window_length_that_one_lacks_is_not_a_number() -> None:
    scores = {"short": replace(SINGLE, vc={8: 0.75}), "long": replace(SINGLE, vc={16: 0.5})}
    table = cells(score_table(replace(REPORT, scores=scores)))
    assert [row for row in table if row[0].startswith("VC")] == [
        ["VC8 ↑ (%)", "75.00", "n/a", "n/a"],
        ["VC16 ↑ (%)", "n/a", "50.00", "n/a"],
    ]


class TestPlot:
    @pytest.fixture
    def figure(self) -> Figure:
        return _per_class_figure(REPORT)

    def test_bars_are_the_shares_in_percent(self, figure: Figure) -> None:
        (axes,) = figure.axes
        first, second = ([bar.get_width() for bar in bars] for bars in axes.containers)
        assert first == pytest.approx([90, 0, 40, 20, 50])
        assert second == pytest.approx([85, 0, 30, 0, 57.5])

    def test_every_bar_has_its_number(self, figure: Figure) -> None:
        (axes,) = figure.axes
        assert [text.get_text() for text in axes.texts] == [
            *("90.0", "n/a", "40.0", "20.0", "50.0"),
            *("85.0", "n/a", "30.0", "n/a", "57.5"),
        ]

    def test_classes_go_down_in_order_and_the_mean_stands_below(self, figure: Figure) -> None:
        (axes,) = figure.axes
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names == ["road", "fence", "pole", "car", "mean"]
        places = list(axes.get_yticks())
        assert places == pytest.approx([0, 1, 2, 3, 4.4])
        assert axes.yaxis_inverted()
        # A class's bars, the first predictor's above the second's, touch at its name.
        first, second = axes.containers
        for bar, below, place in zip(first, second, places, strict=True):
            assert bar.get_y() + bar.get_height() / 2 == pytest.approx(place - 0.2)
            assert below.get_y() + below.get_height() / 2 == pytest.approx(place + 0.2)

    def test_axis_title_and_legend(self, figure: Figure) -> None:
        (axes,) = figure.axes
        assert axes.get_title(loc="left") == "tiny/val"
        assert axes.get_xlabel() == "IoU (%)"
        assert list(axes.get_xticks()) == [0, 20, 40, 60, 80, 100]
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["single-frame", "LMANet"]
        shown = [to_hex(handle.get_facecolor()) for handle in legend.legend_handles]
        drawn = [to_hex(bars[0].get_facecolor()) for bars in axes.containers]
        assert shown == drawn == ["#9a9a9a", "#0072b2"]
