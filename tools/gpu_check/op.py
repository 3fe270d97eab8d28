"""Local attention by itself on the device: every backend that runs there, and the global attention it replaces."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpu_check.common import Part, one_line, peak_bytes, run_part, time_calls
from lmanet.ops import global_attention, local_attention
from lmanet.research.benchmarks.op import Case
from lmanet.research.benchmarks.peers import compiled_flex

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

ERFNET = Case(peers=False)
CASES: dict[str, Case] = {
    "lmanet on ERFNet, R=21, S=4": ERFNET,
    "lmanet on ERFNet, R=11, S=4": replace(ERFNET, window=11),
    "lmanet on ERFNet, R=41, S=4": replace(ERFNET, window=41),
    "lmanet on ERFNet, R=21, S=8": replace(ERFNET, memory_size=8),
    "label-memory on ERFNet, R=21, S=2": replace(ERFNET, memory_size=2, key_channels=44, value_channels=67),
    "training-free on ERFNet, R=21, S=2": replace(ERFNET, memory_size=2, key_channels=76, value_channels=99),
    "lmanet on PSPNet, R=21, S=3": replace(ERFNET, memory_size=3, key_channels=128, value_channels=2048),
}
"""By what asks for them, on frames of 512×1024: maps of 64×128 cells."""

FLEX_CASES = (
    "lmanet on ERFNet, R=21, S=4",
    "label-memory on ERFNet, R=21, S=2",
    "lmanet on PSPNet, R=21, S=3",
)
"""Those for which FlexAttention is compiled, which takes long."""

BACKWARD = "lmanet on ERFNet, R=21, S=4"

BACKENDS = ("tiled", "reference")
FLEX, FLEX_KEPT, GLOBAL = "flex", "flex, its mask made once", "global attention (SDPA)"

COLD_BYTES = 128 * 2**20
"""Inputs are drawn in so many sets that together they are larger than the card's cache, and taken in turn."""


def main(part: Part) -> None:
    """All backends but FlexAttention in all cases first, then FlexAttention, as it may be slow to compile."""
    rows: list[dict[str, Any]] = []
    part.content |= {
        "cases": {name: asdict(_sized(case, part)) for name, case in CASES.items()},
        "rows": rows,
    }
    dtypes = ("float32", "bfloat16")
    plain = [
        (name, dtype, backend, False)
        for name, dtype, backend in itertools.product(CASES, dtypes, (*BACKENDS, GLOBAL))
    ]
    plain += [(BACKWARD, dtype, "tiled", True) for dtype in dtypes]
    slow = [(name, d, flex, False) for name in FLEX_CASES for d in dtypes for flex in (FLEX_KEPT, FLEX)]
    slow[4:4] = [(BACKWARD, dtype, FLEX, True) for dtype in dtypes]
    for name, dtype, backend, backward in plain + slow:
        case = replace(_sized(CASES[name], part), dtype=dtype, backward=backward)  # pyright: ignore
        row: dict[str, Any] = {"case": name, "dtype": dtype, "backend": backend, "backward": backward}
        if part.left_s < 0:
            row["left_out"] = "no time was left"
        elif part.dry and (backend == FLEX_KEPT or (backend == FLEX and (backward or name != BACKWARD))):
            row["left_out"] = "dry runs have FlexAttention once, uncompiled, as it is on a CPU"
        elif backend == "reference" and _gathered_bytes(case) > _free_bytes(part):
            row["left_out"] = f"it would gather {_gathered_bytes(case) / 2**30:.0f} GiB"
        else:
            try:
                row |= _measure(case, backend, part)
            except Exception as error:  # one backend that cannot run must not lose the others
                row["left_out"] = one_line(error)
        rows.append(row)
        gc.collect()
        part.save()


def _measure(case: Case, backend: str, part: Part) -> dict[str, Any]:
    sets = _inputs(case, part)
    attend = _attend(case, backend, sets[0])
    turn = itertools.cycle(sets)
    if case.backward:
        query, _, values = sets[0]
        gradient = torch.randn(query.shape[0], values.shape[2], *query.shape[-2:], device=part.device).to(
            query
        )

        def run() -> object:
            inputs = next(turn)
            return torch.autograd.grad(attend(*inputs), inputs, gradient)
    else:

        def run() -> object:
            return attend(*next(turn))

    how: dict[str, Any] = {"runs": 1, "least_s": 0.0, "warm_ups": 0} if part.dry else {"runs": 15}
    with nullcontext() if case.backward else torch.no_grad():
        timing = time_calls(run, part.device, **how)
        flops = case.useful_flops(everything=backend == GLOBAL)
        found = {
            **timing,
            "input_sets": len(sets),
            "useful_flops_per_s": 1000 * flops / timing["median_ms"],
            "peak_bytes": peak_bytes(run, part.device),
        }
    if not case.backward:
        found["error"] = _error(case, backend, attend, sets[0])
    return found


def _error(case: Case, backend: str, attend: Attend, inputs: tuple[Tensor, Tensor, Tensor]) -> float:
    """Relative error by norm against the tiled backend in float64."""
    with torch.no_grad():
        wide = tuple(x.double() for x in inputs)
        exact = (
            global_attention(*wide, scale=1.0)
            if backend == GLOBAL
            else local_attention(*wide, window=case.window, backend="tiled")
        )
        return float(((attend(*inputs).double() - exact).norm() / exact.norm()).nan_to_num(1e9, 1e9))


def _attend(case: Case, backend: str, inputs: tuple[Tensor, Tensor, Tensor]) -> Attend:
    if backend == GLOBAL:
        return partial(global_attention, scale=1.0)
    if backend == FLEX_KEPT:
        return compiled_flex(case.window, *inputs)
    return partial(local_attention, window=case.window, backend=backend)  # pyright: ignore


def _inputs(case: Case, part: Part) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Sets of query, keys and values, laid out as a stream has them: keys by channel, the rest by cell."""
    generator = torch.Generator(part.device).manual_seed(0)
    dtype = getattr(torch, case.dtype)

    def drawn(*shape: int) -> Tensor:
        made = torch.randn(*shape, generator=generator, device=part.device).to(dtype)
        return made.movedim(-1, -3) if shape[-2:] != (case.height, case.width) else made

    def one() -> tuple[Tensor, Tensor, Tensor]:
        sizes = (case.height, case.width)
        return tuple(  # pyright: ignore
            x.requires_grad_(case.backward)
            for x in (
                drawn(1, *sizes, case.key_channels),
                drawn(1, case.memory_size, case.key_channels, *sizes),
                drawn(1, case.memory_size, *sizes, case.value_channels),
            )
        )

    first = one()
    count = 1 if part.dry else max(1, min(32, COLD_BYTES // sum(x.nbytes for x in first)))
    return [first, *(one() for _ in range(count - 1))]


def _gathered_bytes(case: Case) -> int:
    """What the reference holds at once, roughly: the windows of keys and values, and copies of them."""
    cells = case.memory_size * case.window**2 * case.height * case.width
    return 3 * 4 * cells * max(case.key_channels, case.value_channels)


def _free_bytes(part: Part) -> int:
    return torch.cuda.mem_get_info()[0] if part.device.type == "cuda" else 2**28


def _sized(case: Case, part: Part) -> Case:
    if not part.dry:
        return case
    return replace(
        case, height=6, width=9, window=min(case.window, 5), value_channels=min(case.value_channels, 32)
    )


if __name__ == "__main__":
    sys.exit(run_part("op", main))
