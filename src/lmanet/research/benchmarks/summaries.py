"""Tables of the benchmarks."""

from __future__ import annotations

from rich.table import Table

from lmanet.research.benchmarks.timing import Timing


def stream_table(timings: dict[str, Timing], frames: int) -> Table:
    """Frames per second, and the share of the network's own that is left from file to file."""
    table = Table(title=f"{frames} frames, 480×360")
    for heading in ("", "in memory, frames/s", "file to file, frames/s", "share"):
        table.add_column(heading, justify="right" if heading else "left")
    for title in dict.fromkeys(name.split(", ")[0] for name in timings):
        memory, file = (timings[f"{title}, {kind}"].median_s for kind in ("in memory", "file to file"))
        table.add_row(title, f"{frames / memory:.1f}", f"{frames / file:.1f}", f"{100 * memory / file:.0f} %")
    return table


def training_table(timings: dict[str, Timing]) -> Table:
    """Seconds with and without the feature cache, with `tiled` attention in place of `auto`'s, and the ratios."""
    table = Table(title="the same batches of training")
    headings = (
        "",
        "without cache, s",
        "with cache, s",
        "times faster",
        "with cache, tiled attention, s",
        "times faster than tiled",
    )
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for step in (1, 2):
        without, cached, tiled = (
            timings[f"step {step}, {kind}"].median_s
            for kind in ("without cache", "with cache", "with cache, tiled attention")
        )
        ratios = f"{without / cached:.1f}", f"{tiled / cached:.1f}"
        table.add_row(f"step {step}", f"{without:.2f}", f"{cached:.2f}", ratios[0], f"{tiled:.2f}", ratios[1])
    return table
