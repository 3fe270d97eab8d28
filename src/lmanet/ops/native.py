"""The project's own CPU kernels: C++ for several instruction sets, one of which fits the machine.

Source and build are in `csrc/`. An installation without a compiler lacks the kernel; `why_not_built` says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lmanet.ops.kernel import Inputs
from lmanet.ops.layout import empty_cells, to_maps

DTYPES = (torch.float32, torch.bfloat16, torch.float64)

MOST_CHANNELS = 512
"""Values of more channels are read this many at a time, so that what neighbouring windows share stays in the cache.

The scores are computed anew each time: at Ck = 128 and Cv = 2048 it is about 1.2 times as fast all the same, and where
values are widened, takes less memory.
"""


def _load() -> tuple[ModuleType | None, str]:
    # torch comes first: it brings the OpenMP runtime whose threads the kernel shares.
    try:
        return importlib.import_module("lmanet.ops._native"), ""
    except ModuleNotFoundError:
        return None, (
            "the kernel was not built when lmanet was installed, which takes g++ or clang++ with C++17 and OpenMP "
            "(Debian: apt install g++); with one, install again by pip with --no-cache-dir --force-reinstall --no-deps"
        )
    except ImportError as error:
        return None, f"the kernel cannot be loaded: {error}"


_native, why_not_built = _load()


def variants() -> list[str]:
    """Instruction sets, of `amx`, `avx512`, `avx2` and `portable`, that this machine can run and this build has.

    The fastest comes first. The list is empty if the kernel was not built.
    """
    return [] if _native is None else _native.variants()


def describe() -> str:
    """One line on the kernel of this installation: what it uses on this machine, or why it is not there."""
    if _native is None:
        return f"native: not available: {why_not_built}"
    chosen, *_ = names = variants()
    return f"native: {chosen} (of {', '.join(names)})"


class Native:
    """The kernel for one instruction set: a `lmanet.ops.kernel.Kernel`.

    Float32 and float64 are computed as such. Bfloat16 is widened to float32, except forward on CPUs with AMX, whose
    tiles multiply bfloat16 itself and add in float32; there a NaN or infinity also spoils readings of cells up to 31
    columns or a row beside those whose windows it lies in.

    Args:
        variant: instruction set, one of `variants()`; the fastest if not given. Of an unknown one `forward` and
            `backward` say so by a ValueError.
    """

    def __init__(self, variant: str | None = None) -> None:
        self._variant = variant or next(iter(variants()), "none")

    def forward(self, inputs: Inputs, border: str) -> tuple[Tensor, Tensor]:
        """Output (B, Cv, h, w), in memory (B, h, w, Cv), and log-sum-exp (B, h, w), as `Kernel.forward` says."""
        query, keys, values = inputs.query.detach(), inputs.keys.detach(), inputs.values.detach()
        batch, _, channels, height, width = values.shape
        output = query.new_empty(batch, height, width, channels)
        log_sum = query.new_empty(batch, height, width, dtype=torch.promote_types(query.dtype, torch.float32))
        parts = values.split(MOST_CHANNELS, 2)
        for number, part in enumerate(parts):
            cells = output if len(parts) == 1 else query.new_empty(batch, height, width, part.shape[2])
            tensors = query, keys, part, cells, log_sum
            options = inputs.window, border == "zero", inputs.scale
            self._module().forward(*tensors, *options, torch.get_num_threads(), self._variant)
            if cells is not output:
                output[..., number * MOST_CHANNELS :][..., : part.shape[2]] = cells
        return to_maps(output), log_sum

    def backward(
        self, inputs: Inputs, output: Tensor, log_sum: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, keys and values, in memory with their channels last, as `Kernel.backward` says."""
        taken = inputs.query, inputs.keys, inputs.values
        gradients = [empty_cells(x) for x in taken]
        tensors = [x.detach() for x in (gradient, *taken, output, log_sum)]
        options = inputs.window, inputs.scale
        self._module().backward(*tensors, *gradients, *options, torch.get_num_threads(), self._variant)
        query_gradient, key_gradient, value_gradient = map(to_maps, gradients)
        return query_gradient, key_gradient, value_gradient

    def refusal(self, query: Tensor) -> str | None:
        """Why it cannot run on tensors of this query's dtype and device; None if it can."""
        if _native is None:
            return why_not_built
        if query.device.type != "cpu":
            return f"it runs on the CPU, the tensors are on {query.device}"
        if query.dtype not in DTYPES:
            return f"it takes {', '.join(map(str, DTYPES))}, the tensors are {query.dtype}"
        return None

    def _module(self) -> ModuleType:
        assert _native is not None, "refusal() comes first"
        return _native


class NativePatches:
    """The passes over pixels of `lmanet.ops.patches`, which says what they compute, for one instruction set.

    Maps are float32 on the CPU, of any strides; labels uint8. Nothing is differentiated.

    Args:
        variant: as of `Native`.
    """

    def __init__(self, variant: str | None = None) -> None:
        self._variant = variant or next(iter(variants()), "none")

    def patch_probabilities(self, logits: Tensor) -> Tensor:
        """Of logits (B, K, H, W), (B, K, ⌈H/4⌉, ⌈W/4⌉)."""
        means = _of_patches(logits)
        self._run("patch_probabilities", logits, means)
        return means

    def patch_means(self, maps: Tensor) -> Tensor:
        """Of maps (B, C, H, W), uint8 too, C of at most 255, (B, C, ⌈H/4⌉, ⌈W/4⌉) float32."""
        means = _of_patches(maps)
        self._run("patch_means", maps, means)
        return means

    def steadied(self, logits: Tensor, change: Tensor, before: Tensor, flow: Tensor) -> Tensor:
        """Write over logits (B, K, H, W); labels (B, H, W) of the new ones."""
        batch, _, height, width = logits.shape
        labels = logits.new_empty(batch, height, width, dtype=torch.uint8)
        self._run("steadied", logits, change, before, flow, labels)
        return labels

    def gated(
        self, answers: Sequence[Tensor], cues: Tensor, weights: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What `lmanet.methods.gate.Gate` makes of three answers and cues, by its weights, contiguous."""
        batch, _, height, width = cues.shape
        mixture = torch.empty_like(answers[0], memory_format=torch.contiguous_format)
        past = cues.new_empty(batch, 1, height, width)
        self._run("gated", answers, cues, weights, mixture, past)
        return mixture, past

    def followed(
        self,
        flow: Tensor,
        inside: Tensor,
        colours: Tensor,
        read: Tensor,
        sides: tuple[int, int],
        area: float,
        round_trip: float,
    ) -> Tensor:
        """What `lmanet.ops.followed` gives, (B, 6, h, w), by its squares' sides and two areas in squared pixels."""
        maps = [x.contiguous() for x in (flow, inside, colours, read)]
        batch, _, height, width = flow.shape
        cues = flow.new_empty(batch, 6, height, width)
        self._run("followed", *maps, sides, area, round_trip, cues)
        return cues

    def _run(self, name: str, *inputs: Any) -> None:
        assert _native is not None, "there is a variant"
        getattr(_native, name)(*map(_detached, inputs), torch.get_num_threads(), self._variant)


def _of_patches(logits: Tensor) -> Tensor:
    batch, classes, height, width = logits.shape
    return logits.new_empty(batch, classes, -(-height // 4), -(-width // 4), dtype=torch.float32)


def _detached(given: Any) -> Any:
    if isinstance(given, (list, tuple)):
        return [_detached(x) for x in given]
    return given.detach() if isinstance(given, Tensor) else given
