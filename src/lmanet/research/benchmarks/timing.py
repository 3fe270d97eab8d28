"""Timing several things in turn, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmanet.atomic import write_whole
from lmanet.evaluation.results import Environment
from lmanet.ops.native import describe


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs of one thing.

    Attributes:
        median_s: the median.
        lowest_s: the shortest.
        highest_s: the longest.
        runs: how many were counted, the warm-up left out.
    """

    median_s: float
    lowest_s: float
    highest_s: float
    runs: int


def time_in_turn(
    things: dict[str, Callable[[], object]],
    *,
    repeats: int = 5,
    least_s: float = 0.0,
    budget_s: float = math.inf,
) -> dict[str, Timing]:
    """Run everything once to warm up, then all of it in turn `repeats` times.

    Args:
        things: what to time, by name.
        repeats: counted runs of each.
        least_s: a run is as many calls as fill this time, going by the warm-up, and counts as their mean: for
            things so short that the clock and what ran before them would show.
        budget_s: what is so slow that its counted runs would take longer has fewer of them, at least one.
    """
    calls, runs = {}, {}
    for name, run in things.items():
        # The least positive number, where the clock did not move.
        once = max(_seconds_per_call(run, 1), math.ulp(0.0))
        calls[name] = math.ceil(max(1.0, least_s / once))
        affordable = budget_s / (once * calls[name])
        runs[name] = int(max(1.0, min(repeats, affordable)))
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(repeats):
        for name, run in things.items():
            if turn < runs[name]:
                seconds[name].append(_seconds_per_call(run, calls[name]))
    return {
        name: Timing(statistics.median(times), min(times), max(times), len(times))
        for name, times in seconds.items()
    }


def write_results(path: Path, command: str, settings: dict[str, Any], figures: dict[str, Any]) -> None:
    """Write a benchmark's figures with the command, its settings, the machine and lmanet's kernel on it, as JSON.

    Args:
        path: the file.
        command: what made the figures.
        settings: what it ran with.
        figures: what it gave, by names of its own; dataclasses as `asdict` makes them.

    Raises:
        OutputError: the file cannot be written.
    """
    content = {
        "schema_version": 1,
        "command": command,
        "settings": settings,
        "environment": asdict(Environment.here()),
        "kernel": describe(),
        **figures,
    }
    write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _seconds_per_call(run: Callable[[], object], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - began) / calls
