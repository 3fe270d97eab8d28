"""What the parts share: their arguments, a JSON file that is whole at any time, and timing on either device."""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

SCHEMA_VERSION = 1

BUDGET_S = 3.0
"""What is so slow that its counted runs would take longer has fewer of them, at least one."""


@dataclass
class Part:
    """One part of the check, as its process sees it.

    Attributes:
        name: of the part and its JSON file.
        out: the folder of the JSON files.
        work: a folder for files that nobody keeps.
        dry: tiny sizes on the CPU.
        limit_s: seconds that the part may take; what has not begun by then is left out.
        data: for the evaluation, such as `camvid:PATH`.
        content: of the JSON file.
    """

    name: str
    out: Path
    work: Path
    dry: bool
    limit_s: float
    data: str | None = None
    content: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began_s = time.monotonic()

    @property
    def device(self) -> torch.device:
        """The GPU; dry, the CPU."""
        return torch.device("cpu" if self.dry else "cuda")

    @property
    def left_s(self) -> float:
        """Seconds left; below 0 nothing is to be begun any more."""
        return self.limit_s - (time.monotonic() - self._began_s)

    def save(self, *, complete: bool = False) -> None:
        """Write what there is so far: a part that is killed later leaves it."""
        seconds = round(time.monotonic() - self._began_s, 1)
        head = {"schema_version": SCHEMA_VERSION, "part": self.name, "dry": self.dry, "complete": complete}
        path = self.out / f"{self.name}.json"
        text = json.dumps(
            {**head, "seconds": seconds, **self.content}, indent=1, ensure_ascii=False, allow_nan=False
        )
        part = path.with_suffix(".part")
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)


def run_part(name: str, work: Callable[[Part], None]) -> int:
    """Read the arguments, do a part's work and write its file, whatever happens; the process's exit code."""
    parser = argparse.ArgumentParser(prog=f"gpu_check.{name}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--data")
    given = parser.parse_args()
    part = Part(name, given.out, given.work, given.dry, given.limit, given.data)
    part.save()
    # As an exception, so that what was begun is cleared away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        work(part)
    except BaseException as error:
        part.content["error"] = one_line(error)
        part.save()
        traceback.print_exc()
        return 1
    part.save(complete=True)
    return 0


def one_line(error: BaseException, width: int = 300) -> str:
    """An exception as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:width]


def wait(device: torch.device) -> None:
    """Wait for all that was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def time_calls(
    run: Callable[[], object], device: torch.device, *, runs: int, least_s: float = 0.02, warm_ups: int = 3
) -> dict[str, Any]:
    """Milliseconds of one call: the first, and median, least and most of runs of as many calls as fill `least_s`.

    On a GPU events around the calls measure them, so what the CPU does ahead of the GPU does not count.
    """
    began_s = time.perf_counter()
    run()
    wait(device)
    first_s = time.perf_counter() - began_s
    for _ in range(warm_ups):
        run()
    wait(device)
    began_s = time.perf_counter()
    run()
    wait(device)
    once_s = max(time.perf_counter() - began_s, 1e-6)
    calls = math.ceil(max(1.0, least_s / once_s))
    runs = max(1, min(runs, int(BUDGET_S / (calls * once_s))))
    times = [_milliseconds(run, calls, device) / calls for _ in range(runs)]
    return {
        "median_ms": statistics.median(times),
        "lowest_ms": min(times),
        "highest_ms": max(times),
        "runs": runs,
        "calls": calls,
        "first_ms": 1000 * first_s,
    }


def _milliseconds(run: Callable[[], object], calls: int, device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    began_s = time.perf_counter()
    for _ in range(calls):
        run()
    return 1000 * (time.perf_counter() - began_s)


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """Most GPU memory that one call holds beyond what was held before; None on a CPU."""
    if device.type != "cuda":
        return None
    wait(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    wait(device)
    return torch.cuda.max_memory_allocated() - before
