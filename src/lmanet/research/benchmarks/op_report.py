"""The tables of `lmanet bench op`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lmanet.research.benchmarks.op import Case, CaseResult
from lmanet.research.benchmarks.tables import Table, mebibytes, milliseconds, times

AXES: dict[str, tuple[str, ...]] = {
    "window": ("window",),
    "memory size": ("memory_size",),
    "map": ("height", "width"),
}
"""What is varied, and the fields of `Case` that say it."""


def op_tables(results: Sequence[CaseResult]) -> list[Table]:
    """The main case, which is the first, and its backward pass and other dtypes; each axis; growth with work."""
    main = results[0].case
    same = [r for r in results if replace(r.case, backward=main.backward, dtype=main.dtype) == main]
    return [
        *map(case_table, same),
        *(axis_table(results, axis) for axis in ("window", "memory size")),
        growth_table(results),
    ]


def case_table(result: CaseResult) -> Table:
    """Time and its spread, ratio to the first kernel, share of the convolutions' rate, and memory."""
    rows = []
    for name, one in result.measured.items():
        timing = one.timing
        rows.append(
            (
                name,
                milliseconds(timing.median_s),
                f"{milliseconds(timing.lowest_s)} to {milliseconds(timing.highest_s)}, {timing.runs}",
                times(result.ratio(name)),
                f"{100 * result.share_of_peak(name):.1f} %",
                mebibytes(one.memory_bytes),
            )
        )
    case = result.case
    title = (
        f"{'Forward + backward' if case.backward else 'Forward'}, {case.dtype}, map of {case.height}×{case.width}, "
        f"Ck={case.key_channels}, Cv={case.value_channels}, S={case.memory_size}, R={case.window}"
    )
    notes = [
        f"Peak: {result.peak_flops_per_s / 1e9:.0f} Gflop/s, the best 3×3 convolution in the same turns. "
        "MiB: held by a call beyond its inputs."
    ]
    if result.left_out:
        reasons = (f"{name} ({reason})" for name, reason in result.left_out.items())
        notes.append(f"Left out: {'; '.join(reasons)}.")
    headings = ("", "ms", "lowest to highest, runs", f"÷ {result.base}", "share of peak", "MiB")
    return Table(title, headings, tuple(rows), tuple(notes))


def axis_table(results: Sequence[CaseResult], axis: str) -> Table:
    """Milliseconds of every implementation along one axis, and their ratios to the first kernel."""
    along = cases_along(results, axis)
    names = dict.fromkeys(name for result in along for name in result.measured)
    rows = [(name, *(_time_and_ratio(result, name) for result in along)) for name in names]
    return Table(
        f"Forward by {axis}, ms (÷ {along[0].base})", ("", *(label(r.case, axis) for r in along)), tuple(rows)
    )


def growth_table(results: Sequence[CaseResult]) -> Table:
    """The kernels' time along each axis, whole and per useful work: the latter is level where growth is linear."""
    along = [(axis, result) for axis in AXES for result in cases_along(results, axis)]
    kernels = [name for name in results[0].measured if all(name in result.measured for _, result in along)]
    headings = ["", "useful Gflop"]
    for name in kernels:
        headings += [f"{name}, ms", "ms / Gflop"]
    rows = []
    for axis, result in along:
        flops = result.case.useful_flops()
        row = [label(result.case, axis), f"{flops / 1e9:.3f}"]
        for name in kernels:
            seconds = result.measured[name].timing.median_s
            row += [milliseconds(seconds), f"{1e12 * seconds / flops:.2f}"]
        rows.append(tuple(row))
    return Table("Growth of time with useful work", tuple(headings), tuple(rows))


def cases_along(results: Sequence[CaseResult], axis: str) -> list[CaseResult]:
    """The results that differ from the first in this axis alone, and the first itself, in its order."""
    main = results[0].case
    fixed = {field: getattr(main, field) for field in AXES[axis]}
    found = [r for r in results if replace(r.case, **fixed, peers=main.peers) == main]
    return sorted(found, key=lambda result: [getattr(result.case, field) for field in AXES[axis]])


def label(case: Case, axis: str) -> str:
    """A case's place on an axis."""
    if axis == "map":
        return f"{case.height}×{case.width}"
    if axis == "memory size":
        return f"S={case.memory_size}"
    whole = case.window >= 2 * max(case.height, case.width) - 1
    return "whole map" if whole else f"R={case.window}"


def _time_and_ratio(result: CaseResult, name: str) -> str:
    if name not in result.measured:
        return "–"
    ratio = "" if name == result.base else f" ({times(result.ratio(name))})"
    return milliseconds(result.measured[name].timing.median_s) + ratio
