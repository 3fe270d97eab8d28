"""Local attention by itself: every kernel and every peer on the same inputs, beside the machine's convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lmanet.ops import local_attention
from lmanet.ops.dispatch import KERNELS
from lmanet.research.benchmarks.memory import call_peak_bytes, can_measure
from lmanet.research.benchmarks.peers import PEERS, Attend
from lmanet.research.benchmarks.timing import Timing, time_in_turn

MOST_SCRATCH_BYTES = 4 * 2**30
"""Peers that would hold more than this at once are left out."""

LEAST_S = 0.1
"""Short runs are repeated within a turn until they fill this time."""

BUDGET_S = 2.0
"""What is so slow that its counted runs would take longer has fewer of them, at least one."""

_EVERYTHING = 255
"""A window that covers a map of 64×128 cells from any of them."""


@dataclass(frozen=True)
class Case:
    """What is computed, one batch of one sample.

    Attributes:
        window: R in cells.
        memory_size: S.
        height: h.
        width: w.
        key_channels: Ck.
        value_channels: Cv.
        dtype: of all tensors.
        backward: the gradients of all three inputs too.
        peers: beside the kernels of `lmanet.ops`, the peers.
    """

    window: int = 21
    memory_size: int = 4
    height: int = 64
    width: int = 128
    key_channels: int = 16
    value_channels: int = 64
    dtype: Literal["float32", "bfloat16"] = "float32"
    backward: bool = False
    peers: bool = True

    def useful_flops(self, *, everything: bool = False) -> int:
        """Floating-point operations of the products that the definition asks for.

        Two for each channel of key and value, query and place within both the map and its window; three times
        as many with the backward pass, whose products are those of the forward pass, each once per factor. What
        an implementation computes besides (places outside, or scores again), the softmax too, does not count.

        Args:
            everything: all places of the map count, as for global attention.
        """
        window = 2 * max(self.height, self.width) - 1 if everything else self.window
        pairs = math.prod(_pairs_on_axis(length, window // 2) for length in (self.height, self.width))
        per_pair = 2 * (self.key_channels + self.value_channels) * (3 if self.backward else 1)
        return per_pair * self.memory_size * pairs


MAIN = Case()
CASES: tuple[Case, ...] = (
    MAIN,
    replace(MAIN, backward=True),
    replace(MAIN, dtype="bfloat16"),
    *(replace(MAIN, window=window) for window in (1, 11, 41, _EVERYTHING)),
    *(replace(MAIN, memory_size=size) for size in (1, 2, 8, 19)),
    *(replace(MAIN, height=h, width=w, peers=False) for h, w in ((32, 64), (64, 64), (128, 128), (128, 256))),
)
"""The case of the paper's network on 1024×512, and one thing varied at a time."""


@dataclass(frozen=True)
class Measured:
    """One implementation in one case.

    Attributes:
        timing: of one call.
        useful_flops: of one call; see `Case.useful_flops`.
        memory_bytes: most memory that a call holds beyond its inputs; None where the system does not tell.
    """

    timing: Timing
    useful_flops: int
    memory_bytes: int | None


@dataclass(frozen=True)
class CaseResult:
    """All implementations in one case, timed in turn.

    Attributes:
        case: the inputs.
        measured: by name, the kernels first, in the order in which `auto` tries them.
        left_out: why not, by name.
        convolutions: the machine's measured peak: 3×3 convolutions of the case's dtype, by shape, in the same turns.
    """

    case: Case
    measured: dict[str, Measured]
    left_out: dict[str, str]
    convolutions: dict[str, Measured]

    @property
    def peak_flops_per_s(self) -> float:
        """The rate of the fastest convolution."""
        return max(c.useful_flops / c.timing.median_s for c in self.convolutions.values())

    @property
    def base(self) -> str:
        """The implementation that the others are compared with: the first kernel that ran."""
        return next(iter(self.measured))

    def ratio(self, name: str) -> float:
        """How many times as long as `base` an implementation takes."""
        return self.measured[name].timing.median_s / self.measured[self.base].timing.median_s

    def share_of_peak(self, name: str) -> float:
        """The rate of an implementation's useful work as a share of `peak_flops_per_s`."""
        one = self.measured[name]
        return one.useful_flops / one.timing.median_s / self.peak_flops_per_s

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> CaseResult:
        """The result that `dataclasses.asdict` and JSON made `content` of.

        Raises:
            TypeError: it has other fields.
        """
        fields = dict(content)
        for name in ("measured", "convolutions"):
            fields[name] = {
                key: Measured(**{**one, "timing": Timing(**one["timing"])})
                for key, one in fields[name].items()
            }
        return cls(**{**fields, "case": Case(**fields["case"])})


def bench_op(
    cases: Sequence[Case], *, repeats: int, on_case: Callable[[int, int], None] = lambda done, total: None
) -> list[CaseResult]:
    """Time the kernels and the peers in each case, all that can run here, in turn.

    Args:
        cases: what to compute; see `CASES`.
        repeats: counted runs of each; see `BUDGET_S`.
        on_case: told how many cases are done, and of how many.
    """
    results = []
    for done, case in enumerate(cases):
        on_case(done, len(cases))
        results.append(_bench_case(case, repeats))
    on_case(len(cases), len(cases))
    return results


def _bench_case(case: Case, repeats: int) -> CaseResult:
    query, keys, values = _inputs(case)
    attends, left_out = _implementations(case, query, keys, values)
    gradient = torch.randn(query.shape[0], case.value_channels, case.height, case.width).to(query.dtype)
    things = {name: partial(_call, attend, query, keys, values, gradient) for name, attend in attends.items()}
    convolutions, convolution_flops = _convolutions(query.dtype)
    timings = time_in_turn({**things, **convolutions}, repeats=repeats, least_s=LEAST_S, budget_s=BUDGET_S)

    def measured(name: str, run: Callable[[], object], flops: int) -> Measured:
        return Measured(timings[name], flops, call_peak_bytes(run) if can_measure() else None)

    return CaseResult(
        case,
        {
            name: measured(name, run, case.useful_flops(everything=name in PEERS and PEERS[name].sees_all))
            for name, run in things.items()
        },
        left_out,
        {name: measured(name, run, convolution_flops[name]) for name, run in convolutions.items()},
    )


def _inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (case.height, case.width)

    def planes(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, *sizes, generator=generator)
        return drawn.to(getattr(torch, case.dtype)).requires_grad_(case.backward)

    def cells(*shape: int, channels: int) -> Tensor:
        drawn = torch.randn(*shape, *sizes, channels, generator=generator).movedim(-1, -3)
        return drawn.to(getattr(torch, case.dtype)).requires_grad_(case.backward)

    # In memory as a stream has them: what convolutions give, and what `MemoryState` holds.
    return (
        cells(1, channels=case.key_channels),
        planes(1, case.memory_size, case.key_channels),
        cells(1, case.memory_size, channels=case.value_channels),
    )


def _implementations(
    case: Case, query: Tensor, keys: Tensor, values: Tensor
) -> tuple[dict[str, Attend], dict[str, str]]:
    """What runs in a case, by name, and why the rest does not."""
    attends: dict[str, Attend] = {}
    left_out: dict[str, str] = {}
    for name, kernel in KERNELS.items():
        if refusal := kernel.refusal(query):
            left_out[name] = refusal
        else:
            attends[name] = partial(local_attention, window=case.window, backend=name)  # pyright: ignore
    for name, peer in PEERS.items() if case.peers else ():
        scratch = query.itemsize * peer.scratch(query, keys, values, case.window, case.backward)
        if refusal := peer.refusal():
            left_out[name] = refusal
        elif case.backward and peer.no_gradients:
            left_out[name] = peer.no_gradients
        elif case.dtype != "float32" and not peer.every_dtype:
            left_out[name] = f"it does not take {case.dtype}"
        elif scratch > MOST_SCRATCH_BYTES:
            left_out[name] = (
                f"it would hold {scratch / 2**30:.1f} GiB at once, more than {MOST_SCRATCH_BYTES / 2**30:.0f}"
            )
        else:
            try:
                attends[name] = peer.build(case.window, query, keys, values)
            except RuntimeError as error:  # a compiler without what it needs, such as Python's headers
                left_out[name] = f"it cannot be built here: {str(error).strip().splitlines()[0]}"
    return attends, left_out


def _call(attend: Attend, query: Tensor, keys: Tensor, values: Tensor, gradient: Tensor) -> object:
    if not query.requires_grad:
        with torch.no_grad():
            return attend(query, keys, values)
    return torch.autograd.grad(attend(query, keys, values), (query, keys, values), gradient)


def _convolutions(dtype: torch.dtype) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """3×3 convolutions in the layout that runs fastest, by shape, and the operations of each, zeros around included."""
    runs: dict[str, Callable[[], object]] = {}
    flops: dict[str, int] = {}
    for channels, height, width in ((64, 64, 128), (128, 64, 128), (256, 64, 128), (256, 32, 64)):
        name = f"convolution {channels}→{channels}, {height}×{width}"
        image = torch.randn(1, channels, height, width).to(dtype, memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3).to(dtype, memory_format=torch.channels_last)
        runs[name] = partial(_convolve, image, weight)
        flops[name] = 2 * 9 * channels**2 * height * width
    return runs, flops


def _convolve(image: Tensor, weight: Tensor) -> Tensor:
    with torch.no_grad():
        return F.conv2d(image, weight, padding=1)


def _pairs_on_axis(length: int, radius: int) -> int:
    """Pairs of cells of a row, each with itself too, that are at most `radius` apart."""
    reach = min(radius, length - 1)
    return length * (2 * reach + 1) - reach * (reach + 1)
