from __future__ import annotations

import ctypes

import pytest
import torch

from lmanet.research.benchmarks.memory import (
    call_peak_bytes,
    can_measure,
    in_fresh_process,
    process_peak_bytes,
)

pytestmark = pytest.mark.skipif(not can_measure(), reason="this system does not tell the peak memory")

MIB = 2**20


def hold(mib: int) -> None:
    torch.ones(mib * MIB // 4)


def peak_after(mib: int) -> int:
    hold(mib)
    return process_peak_bytes()


def peaks_of_calls() -> list[int]:
    hold(400)  # neither a peak before nor memory freed before counts
    two = [call_peak_bytes(lambda: (hold(200), hold(100))) for _ in range(2)]
    return [*two, call_peak_bytes(lambda: None)]


def peak_of_the_heap() -> int:
    ctypes.CDLL(None).mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: everything below a GiB from the heap
    hold(64)
    return call_peak_bytes(lambda: hold(64))


# In processes of their own: what other tests left behind, a thread that still allocates, would count as well.


def test_the_peak_of_a_call_is_what_it_held_at_once() -> None:
    first, again, nothing = in_fresh_process(peaks_of_calls)
    assert [first, again] == pytest.approx([200 * MIB, 200 * MIB], abs=8 * MIB)
    assert nothing < 8 * MIB


def test_memory_of_the_heap_counts_as_well() -> None:
    assert in_fresh_process(peak_of_the_heap) == pytest.approx(64 * MIB, abs=8 * MIB)


def test_a_fresh_process_does_not_know_this_ones_memory() -> None:
    hold(1200)
    assert process_peak_bytes() > 1200 * MIB
    small, large = (in_fresh_process(peak_after, mib) for mib in (1, 301))
    assert small < 1200 * MIB
    assert large - small == pytest.approx(300 * MIB, abs=40 * MIB)
