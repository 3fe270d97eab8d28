"""The experiments by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lmanet.research.reproduce import beyond, paper
from lmanet.research.reproduce.data import KINDS
from lmanet.research.reproduce.plan import Plan, Setup


@dataclass(frozen=True)
class Experiment:
    """A named experiment.

    Attributes:
        plan: what it runs.
        kinds: of data that it can run on.
    """

    plan: Callable[[Setup], Plan]
    kinds: tuple[str, ...] = KINDS


EXPERIMENTS: dict[str, Experiment] = {
    "table-1": Experiment(paper.table_1),
    "table-2": Experiment(paper.table_2),
    "table-3": Experiment(paper.table_3),
    "table-4": Experiment(paper.table_4),
    "table-6": Experiment(paper.table_6),
    "table-s4": Experiment(paper.table_s4),
    "control": Experiment(beyond.controls),
    "border": Experiment(beyond.border),
    "presets": Experiment(beyond.presets),
    "window": Experiment(beyond.window),
    "training-free": Experiment(beyond.training_free),
    "robustness": Experiment(beyond.robustness, ("synthetic",)),
    "figure-1": Experiment(paper.figure_1),
    "figure-3": Experiment(paper.figure_3),
    "figure-5": Experiment(paper.figure_5),
}
"""By the name that `lmanet reproduce` takes."""
