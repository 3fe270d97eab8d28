from __future__ import annotations

from rich.table import Table

from lmanet.research.benchmarks.summaries import stream_table, training_table
from lmanet.research.benchmarks.timing import Timing


def timings(medians_s: dict[str, float]) -> dict[str, Timing]:
    # Lowest and highest are far off: no figure may come from them.
    return {name: Timing(median, median / 100, median * 100, 5) for name, median in medians_s.items()}


def rows(table: Table) -> list[tuple[object, ...]]:
    """The cells row by row, the headings first."""
    return list(zip(*([column.header, *column.cells] for column in table.columns), strict=True))


def test_stream_in_frames_per_second() -> None:
    # 60 frames in 2 s are 30 a second; in 2.5 s 24, which is 2 / 2.5 = 80 % of it.
    table = stream_table(
        timings(
            {
                "single-frame, in memory": 2.0,
                "single-frame, file to file": 2.5,
                "LMANet, in memory": 12.0,
                "LMANet, file to file": 15.0,
            }
        ),
        60,
    )
    assert table.title == "60 frames, 480×360"
    assert rows(table) == [
        ("", "in memory, frames/s", "file to file, frames/s", "share"),
        ("single-frame", "30.0", "24.0", "80 %"),
        ("LMANet", "5.0", "4.0", "80 %"),
    ]


def test_training_in_seconds_and_times_faster() -> None:
    table = training_table(
        timings(
            {
                "step 1, without cache": 6.0,
                "step 1, with cache": 1.5,
                "step 1, with cache, tiled attention": 3.0,
                "step 2, without cache": 7.0,
                "step 2, with cache": 2.0,
                "step 2, with cache, tiled attention": 2.5,
            }
        )
    )
    assert rows(table) == [
        (
            "",
            "without cache, s",
            "with cache, s",
            "times faster",
            "with cache, tiled attention, s",
            "times faster than tiled",
        ),
        ("step 1", "6.00", "1.50", "4.0", "3.00", "2.0"),
        ("step 2", "7.00", "2.00", "3.5", "2.50", "1.2"),
    ]
