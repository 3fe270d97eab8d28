"""How long cells will take: from what cells of the same kind took here, or from what they took on two cores."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lmanet.data.protocols import labelled_frames
from lmanet.research.reproduce.cells import (
    AttentionMaps,
    Cell,
    Changes,
    Evaluation,
    MemoryTraining,
    Timings,
    title,
)
from lmanet.research.reproduce.data import DataConfig
from lmanet.research.reproduce.schedule import in_order, to_run
from lmanet.research.reproduce.store import Store
from lmanet.research.reproduce.work import samples_of, stages_of, views_of

PIXELS = 480 * 360
DEFAULT_S = {
    "memory": 0.14 / PIXELS,
    "encoding": 0.045 / PIXELS,
    "single": 0.075 / 256**2,
    "evaluation": (0.12 + 0.05) / PIXELS,
}
"""Seconds per sample and pixel with ERFNet on two cores (480×360, S=4, R=21): a training sample of steps 1 and 2, a
view encoded, a training sample of step 0 (256×256), a frame evaluated, its optical flow included."""

TIMING_S = 10.0
"""Seconds to time one network of a `Timings` cell, with the process that its memory is read in."""


@dataclass(frozen=True)
class Estimate:
    """A cell of a dry run.

    Attributes:
        cell: the cell.
        cached: whether it is finished.
        seconds: that it will take; 0 if it is finished.
    """

    cell: Cell
    cached: bool
    seconds: float

    @property
    def line(self) -> str:
        """The cell and its state, for a list of what will be run."""
        state = "cached" if self.cached else f"to do, about {readable(self.seconds)}"
        return f"{title(self.cell)}: {state}"


def readable(seconds: float) -> str:
    """Seconds in words: `12 s`, `3 min`, `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(cells: Iterable[Cell], store: Store) -> list[Estimate]:
    """Every cell with what it needs, in the order of `run_cells`; features that cells share are counted once."""
    wanted = list(cells)
    missing = set(to_run(wanted, store))
    rates = measured_rates(store)
    encoded: set[tuple[Any, ...]] = set()
    estimates = []
    for cell in in_order(wanted):
        # A training that is finished, or whose evaluations all are, is not run.
        seconds = sum(rates[part] * size for part, size in _sizes(cell, encoded)) if cell in missing else 0.0
        if cell in missing and isinstance(cell, Timings):
            seconds = TIMING_S * len(cell.variants)
        estimates.append(Estimate(cell, cell not in missing, seconds))
    return estimates


def measured_rates(store: Store) -> dict[str, float]:
    """Seconds per sample and pixel of each part, of the cells finished in a store, else `DEFAULT_S`."""
    seconds: dict[str, float] = defaultdict(float)
    pixels: dict[str, float] = defaultdict(float)
    for path in (store.root / "cells").glob("*/result.json"):
        for part, content in json.loads(path.read_text()).get("parts", {}).items():
            seconds[part] += content["seconds"]
            pixels[part] += content["samples"] * content["pixels"]
    return {**DEFAULT_S, **{part: seconds[part] / pixels[part] for part in seconds if pixels[part]}}


def _sizes(cell: Cell, encoded: set[tuple[Any, ...]]) -> Sequence[tuple[str, float]]:
    """(part, samples times pixels) of what a cell does; `encoded` notes whose features there will be."""
    if isinstance(cell, Timings):
        return ()
    height, width = cell.data.size()
    frame = height * width
    match cell:
        case Evaluation():
            return (("evaluation", _frames(cell.data) * frame),)
        case Changes():
            return (("evaluation", 2 * _frames(cell.data) * frame),)
        case AttentionMaps():
            return (("evaluation", 20 * frame),)
        case _:
            pass
    kind = "memory" if isinstance(cell, MemoryTraining) else "single"
    crop = cell.recipe.augmentation.crop or (height, width)
    frames = len(labelled_frames(cell.data.open()))
    samples = sum(samples_of(stage, frames) for stage in stages_of(cell))
    sizes = [(kind, float(samples * crop[0] * crop[1]))]
    if isinstance(cell, MemoryTraining):
        recipe = cell.recipe
        group = (
            recipe.method,
            cell.network,
            cell.data,
            recipe.augmentation,
            recipe.draws,
            recipe.pseudo,
            recipe.pseudo_memory,
        )
        if group not in encoded:
            sizes.append(("encoding", float(_frames(cell.data) * views_of(cell) * frame)))
        encoded.add(group)
    return sizes


def _frames(data: DataConfig) -> int:
    return sum(len(sequence.frame_names) for sequence in data.open().sequences)
