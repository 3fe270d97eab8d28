"""Many problems of a data set in few lines: those of one kind together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lmanet.data.labels import StrayLabels
from lmanet.words import counted, listed

SHOWN = 3
"""Of each kind."""


def sum_up(problems: Sequence[str], strays: dict[str, StrayLabels], labels: int) -> list[str]:
    """The problems of a data set by kind, at most a few lines each.

    Args:
        problems: one sentence each.
        strays: of these, the labels that hold values or colours that mean nothing, by their sentence.
        labels: how many labels there are, those that could not be used included.
    """
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        if problem not in strays:
            kinds.setdefault(_kind(problem), []).append(problem)
    lines = _strays(list(strays.values()), labels) if strays else []
    for alike in kinds.values():
        lines += alike[:SHOWN]
        if len(alike) > SHOWN:
            lines.append(f"… and {len(alike) - SHOWN} more like these")
    return lines


def _kind(problem: str) -> str:
    """A sentence without what differs from file to file: paths, names with a suffix, numbers."""
    without_paths = re.sub(r"\S*[/\\]\S*|\S+\.\w+\b", "_", problem)
    return re.sub(r"(_ )+", "_ ", re.sub(r"\d+", "0", without_paths))


def _strays(errors: list[StrayLabels], labels: int) -> list[str]:
    """What labels hold that means nothing: a line for each of the commonest values, and what to do."""
    pixels: Counter = Counter()
    files: dict[object, list[Path]] = {}
    for error in errors:
        pixels.update(error.stray)
        for value in error.stray:
            files.setdefault(value, []).append(error.path)
    lines = []
    commonest = sorted(pixels, key=lambda value: (-len(files[value]), -pixels[value]))
    for value in commonest[:SHOWN]:
        paths = files[value]
        lines.append(
            f"{len(paths)} of {labels} labels hold {value}, in {pixels[value]} pixels: {listed(paths, SHOWN)}"
        )
    if rest := commonest[SHOWN:]:
        lines.append(f"and {counted(len(rest), 'other value')}: {listed(rest, 8)}")
    seen = set().union(*(error.seen for error in errors))
    lines.append(f"expected {errors[0].expected}{errors[0].advise(set(pixels), seen)}")
    return lines
