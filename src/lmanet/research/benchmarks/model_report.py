"""The tables of `lmanet bench model`."""

from __future__ import annotations

from collections.abc import Sequence

from lmanet.research.benchmarks.model import Measured, Network, bare_peak, bare_s
from lmanet.research.benchmarks.tables import Table, change, mebibytes, milliseconds
from lmanet.session import Precision

NAMES: dict[Network, str] = {"erfnet": "ERFNet", "pspnet50": "PSPNet-50", "pspnet101": "PSPNet-101"}


def model_tables(results: Sequence[Measured], size: Sequence[int]) -> list[Table]:
    """One table for each precision.

    Args:
        results: of one network, with at least one bare in each precision.
        size: (H, W) of the frames.
    """
    precisions: dict[Precision, None] = dict.fromkeys(one.variant.precision for one in results)
    return [_table(results, size, precision) for precision in precisions]


def _table(results: Sequence[Measured], size: Sequence[int], precision: Precision) -> Table:
    seconds, peak = bare_s(results, precision), bare_peak(results, precision)
    rows = []
    for one in results:
        if one.variant.precision != precision:
            continue
        cells = [one.variant.name, milliseconds(one.timing.median_s), change(one.timing.median_s, seconds)]
        if peak is None or one.peak_bytes is None or one.imports_bytes is None:
            cells += ["n/a"] * 4
        else:
            own = one.peak_bytes - one.imports_bytes
            cells += [mebibytes(one.peak_bytes), change(one.peak_bytes, peak[0])]
            cells += [mebibytes(own), change(own, peak[1])]
        rows.append(tuple(cells))
    notes = (
        "Each frame of a stream of one; Δ against the best bare network. Peak memory is that of a fresh process; "
        "without imports, less what it held before the network was built.",
    )
    headings = ("", "ms", "ΔT", "peak MiB", "ΔM", "without imports, MiB", "ΔM")
    return Table(
        f"{NAMES[results[0].variant.network]} at {size[1]}×{size[0]}, {precision}",
        headings,
        tuple(rows),
        notes,
    )
