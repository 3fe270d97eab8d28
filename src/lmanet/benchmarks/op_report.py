"""The tables of `lmanet bench op`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lmanet.benchmarks.op import Case, CaseResult
from lmanet.benchmarks.tables import Table, mebibytes, milliseconds, times

AXES: dict[str, tuple[str, ...]] = {
    "window": ("window",),
    "memory size": ("memory_size",),
    "map": ("height", "width"),
}
"""What is varied, and the fields of `Case` that say it."""


def op_tables(results: Sequence[CaseResult]) -> list[Table]:
    """The main case, which is the first; then each axis; then growth against useful work."""
    return [
        main_table(results),
        *(axis_table(results, axis) for axis in ("window", "memory size")),
        growth_table(results),
    ]


def main_table(results: Sequence[CaseResult]) -> Table:
    """Time, ratio to the first kernel, share of the convolutions' rate and memory, and the other passes and dtypes."""
    main = results[0]
    variants = [
        (title, result)
        for title, case in (
            ("forward", main.case),
            ("forward + backward", replace(main.case, backward=True)),
            ("bfloat16 forward", replace(main.case, dtype="bfloat16")),
        )
        for result in results
        if result.case == case
    ]
    headings = ["", "MiB"]
    for title, result in variants:
        headings += [f"{title}, ms", f"÷ {result.base}", "share of peak"]
    names = dict.fromkeys(name for _, result in variants for name in result.measured)
    rows = []
    for name in names:
        row = [name, mebibytes(main.measured[name].memory_bytes) if name in main.measured else "–"]
        for _, result in variants:
            row += _time_ratio_share(result, name)
        rows.append(tuple(row))
    peaks = ", ".join(f"{result.peak_flops_per_s / 1e9:.0f} Gflop/s ({title})" for title, result in variants)
    notes = [
        f"Peak: the best 3×3 convolution in the same turns, {peaks}. MiB: held by a forward call beyond its inputs."
    ]
    notes += [f"{title}, left out: {_reasons(result)}." for title, result in variants if result.left_out]
    case = main.case
    title = (
        f"Map of {case.height}×{case.width}, Ck={case.key_channels}, Cv={case.value_channels}, "
        f"S={case.memory_size}, R={case.window}, {case.dtype}"
    )
    return Table(title, tuple(headings), tuple(rows), tuple(notes))


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


def _time_ratio_share(result: CaseResult, name: str) -> list[str]:
    if name not in result.measured:
        return ["–", "–", "–"]
    seconds = result.measured[name].timing.median_s
    return [milliseconds(seconds), times(result.ratio(name)), f"{100 * result.share_of_peak(name):.1f} %"]


def _time_and_ratio(result: CaseResult, name: str) -> str:
    if name not in result.measured:
        return "–"
    ratio = "" if name == result.base else f" ({times(result.ratio(name))})"
    return milliseconds(result.measured[name].timing.median_s) + ratio


def _reasons(result: CaseResult) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in result.left_out.items())
