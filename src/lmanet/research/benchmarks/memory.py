"""Peak memory: of one call within this process, and of a whole fresh process. Linux only, where /proc tells it."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def can_measure() -> bool:
    """Whether this system tells a process its peak memory and lets it begin anew (Linux with glibc)."""
    return _CLEAR.exists() and hasattr(ctypes.CDLL(None), "malloc_trim")


def call_peak_bytes(run: Callable[[], object]) -> int:
    """The most memory that one call holds beyond what the process held before it, its result included.

    Freed memory that the allocator keeps would be used again unseen: it is given back to the system first.
    Linux counts pages on each processor and sums them up now and then: less than a MiB is noise.

    Args:
        run: called once; call it before, so that what is allocated only once is not counted.
    """
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text("5")  # the peak so far is forgotten
    before = resident_bytes()
    run()
    return max(0, process_peak_bytes() - before)


def process_peak_bytes() -> int:
    """The most memory that this process has held at once so far, libraries included."""
    return _status("VmHWM")


def resident_bytes() -> int:
    """The memory that this process holds now."""
    return _status("VmRSS")


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function returns in a Python process of its own, started from nothing, not forked.

    Args:
        function: of a module, so that it can be pickled by its name.
        *args: its arguments, pickled.
        **kwargs: its arguments, pickled.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(f"{_STATUS} has no {field}")
