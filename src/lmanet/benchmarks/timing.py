"""Timing several things in turn, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmanet.atomic import write_whole
from lmanet.evaluation.results import Environment


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


def time_in_turn(things: dict[str, Callable[[], object]], *, repeats: int = 5) -> dict[str, Timing]:
    """Run everything once to warm up, then all of it in turn `repeats` times.

    Args:
        things: what to time, by name.
        repeats: counted runs of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(repeats + 1):
        for name, run in things.items():
            began = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {
        name: Timing(statistics.median(times), min(times), max(times), repeats)
        for name, times in seconds.items()
    }


def write_results(path: Path, command: str, settings: dict[str, Any], timings: dict[str, Timing]) -> None:
    """Write a benchmark's figures with the command, its settings and the machine, as JSON.

    Raises:
        OutputError: the file cannot be written.
    """
    content = {
        "schema_version": 1,
        "command": command,
        "settings": settings,
        "environment": asdict(Environment.here()),
        "timings": {name: asdict(timing) for name, timing in timings.items()},
    }
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())
