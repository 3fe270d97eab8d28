"""A frame through a network with a memory against the bare one: the paper's Table IV here, and time by memory size."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from lmanet.backbones import Backbone, ERFNet, PSPNet
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.methods.label_memory import LabelMemory
from lmanet.methods.lmanet import LMANet
from lmanet.methods.memory import MemoryState
from lmanet.methods.single_frame import SingleFrame
from lmanet.ops import global_attention
from lmanet.research.benchmarks.memory import (
    can_measure,
    in_fresh_process,
    process_peak_bytes,
    resident_bytes,
)
from lmanet.research.benchmarks.timing import Timing, time_in_turn
from lmanet.session import Precision

Network = Literal["erfnet", "pspnet50", "pspnet101"]

NETWORKS: dict[Network, Callable[[], Backbone]] = {
    "erfnet": partial(ERFNet, 20),
    "pspnet50": partial(PSPNet, 19, layers=50),
    "pspnet101": partial(PSPNet, 19, layers=101),
}
"""With their outputs for Cityscapes."""

Memory = Literal["paper", "fast", "labels"]
"""The paper's module, with 3×3 or with 1×1 convolutions, and the memory of labels."""

SIZES: dict[Network, tuple[int, int]] = {
    "erfnet": (512, 1024),
    "pspnet50": (1025, 2049),
    "pspnet101": (1025, 2049),
}
"""The paper's, (H, W)."""

BUDGET_S = 120.0
"""What is so slow that its counted runs would take longer has fewer of them, at least one."""

_STEPS = 3
"""Frames before the peak memory is read: the first fills the memory, the second is the first to replace it."""


@dataclass(frozen=True)
class Variant:
    """A network with random weights, in one precision.

    Attributes:
        network: the single-frame network; PSPNet's memory module has bottleneck fusion.
        precision: of the weights.
        memory: on the network; None is the bare network.
        window: R in cells; None, with the paper's module, is global attention.
        memory_size: S.
        optimized: BatchNorm folded, as `Session` has it.
    """

    network: Network = "erfnet"
    precision: Precision = "fp32"
    memory: Memory | None = None
    window: int | None = None
    memory_size: int = 4
    optimized: bool = True

    @property
    def name(self) -> str:
        """What a table calls it, without the precision."""
        if self.memory is None:
            return "bare network" if self.optimized else "bare network, BatchNorm not folded"
        search = "G" if self.window is None else f"R={self.window}"
        return f"{self.memory}, {search}, S={self.memory_size}"


PAPER = Variant(memory="paper", window=21)
LABELS = Variant(memory="labels", window=15, memory_size=2)
"""What `lmanet train label-memory` makes."""


TABLE: tuple[Variant, ...] = (
    Variant(optimized=False),
    Variant(),
    *(replace(PAPER, window=window) for window in (None, 41, 21, 11)),
    *(replace(PAPER, memory_size=size) for size in (1, 2, 8, 19)),
    *(replace(PAPER, memory="fast", window=window) for window in (41, 21, 11)),
    LABELS,
)
"""The paper's Table IV, then memory sizes at R=21, then the cheaper convolutions, then the memory of labels."""

VARIANTS: tuple[Variant, ...] = TABLE + tuple(
    replace(variant, precision="bf16") for variant in TABLE if variant.optimized
)


PSPNET_TABLE: tuple[Variant, ...] = tuple(
    replace(variant, precision=precision)
    for precision in ("fp32", "bf16")
    for variant in (Variant(), replace(PAPER, memory_size=3))
)


def variants_of(network: Network) -> tuple[Variant, ...]:
    """What `lmanet bench model` measures of a network; of PSPNet the paper's S=3, R=21."""
    if network == "erfnet":
        return VARIANTS
    return tuple(replace(variant, network=network) for variant in PSPNET_TABLE)


@dataclass(frozen=True)
class Measured:
    """One variant.

    Attributes:
        variant: what was measured.
        timing: of one frame in the middle of a stream.
        peak_bytes: most memory that a fresh process held with it; None where the system does not tell.
        imports_bytes: of that, what the process held before the network was built: Python and PyTorch.
    """

    variant: Variant
    timing: Timing
    peak_bytes: int | None
    imports_bytes: int | None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Measured:
        """The result that `dataclasses.asdict` and JSON made `content` of.

        Raises:
            TypeError: it has other fields.
        """
        variant, timing = Variant(**content["variant"]), Timing(**content["timing"])
        return cls(**{**content, "variant": variant, "timing": timing})


def bench_model(
    variants: Sequence[Variant],
    *,
    size: tuple[int, int],
    repeats: int,
    on_variant: Callable[[int, int], None] = lambda done, total: None,
) -> list[Measured]:
    """Time all variants in turn in this process, then read each one's peak memory in a process of its own.

    Args:
        variants: what to measure; see `variants_of`.
        size: (H, W) of the frames.
        repeats: counted frames of each; see `BUDGET_S`.
        on_variant: told for how many variants the memory is known, and of how many.
    """
    networks = {variant: _frames_through(variant, size) for variant in variants}
    timings = time_in_turn(
        {str(variant): run for variant, run in networks.items()}, repeats=repeats, budget_s=BUDGET_S
    )
    networks.clear()
    results = []
    for done, variant in enumerate(variants):
        on_variant(done, len(variants))
        peak = imports = None
        if can_measure():
            peak, imports = in_fresh_process(peak_of, variant, size, torch.get_num_threads())
        results.append(Measured(variant, timings[str(variant)], peak, imports))
    on_variant(len(variants), len(variants))
    return results


def peak_of(variant: Variant, size: tuple[int, int], threads: int) -> tuple[int, int]:
    """This process's peak memory after some frames, and what it held before; for a process of its own."""
    torch.set_num_threads(threads)
    gc.collect()
    imports = resident_bytes()
    run = _frames_through(variant, size)
    for _ in range(_STEPS):
        run()
    return process_peak_bytes(), imports


def bare_s(results: Sequence[Measured], precision: Precision) -> float:
    """Seconds of the bare network, the faster of those measured in this precision."""
    return min(
        one.timing.median_s
        for one in results
        if one.variant.memory is None and one.variant.precision == precision
    )


def bare_peak(results: Sequence[Measured], precision: Precision) -> tuple[int, int] | None:
    """Least peak of the bare networks of this precision, whole and without what was held before, if known."""
    peaks = [
        (one.peak_bytes, one.peak_bytes - one.imports_bytes)
        for one in results
        if one.variant.memory is None
        and one.variant.precision == precision
        and one.peak_bytes is not None
        and one.imports_bytes is not None
    ]
    return min(peaks) if peaks else None


def _frames_through(variant: Variant, size: tuple[int, int]) -> Callable[[], None]:
    """A stream of one random frame, over and over; each call is the next frame."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
        model = _model(NETWORKS[variant.network]().eval(), variant).eval()
    dtype = torch.bfloat16 if variant.precision == "bf16" else None
    if variant.optimized:
        model = model.optimize(dtype)
    elif dtype is not None:
        model = model.to(dtype)
    return _Stream(model, images).step


class _Everywhere(LMANet):
    """LMANet that searches whole frames, as the paper's global variant does."""

    def recall(self, key: Tensor, state: MemoryState) -> Tensor:
        """What the present frame, of query keys (B, Ck, h, w), reads from a memory: (B, Cv, h, w)."""
        return global_attention(key, state.keys, state.values)


def _model(backbone: Backbone, variant: Variant) -> VideoModel:
    if variant.memory is None:
        return SingleFrame(backbone)
    if variant.memory == "labels":
        if variant.window is None:
            raise InputError("a memory of labels has no global attention: give it a window")
        return LabelMemory(backbone, memory_size=variant.memory_size, window=variant.window)
    return (_Everywhere if variant.window is None else LMANet)(
        backbone,
        convolutions=variant.memory,
        memory_size=variant.memory_size,
        window=variant.window or 1,
        fusion="gated" if variant.network == "erfnet" else "bottleneck",
    )


class _Stream:
    def __init__(self, model: VideoModel, images: Tensor) -> None:
        self.model, self.images, self.state = model, images, None

    @torch.inference_mode()
    def step(self) -> None:
        _, self.state = self.model.step(self.images, self.state)
