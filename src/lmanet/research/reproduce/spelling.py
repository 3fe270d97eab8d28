"""What a cell's configuration is written as, and its hash: names of its own, so that classes may be renamed.

A result is found again by the hash of its configuration. What is written there is therefore said here, once for each
class, and not taken from the code: a class or a field that gets another name keeps its spelling.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from lmanet.data.street.degrade import Degradation
from lmanet.research.benchmarks.model import Variant
from lmanet.research.reproduce.cells import (
    AttentionMaps,
    Cell,
    Changes,
    Evaluation,
    MemoryTraining,
    SingleTraining,
    Timings,
    Weights,
)
from lmanet.research.reproduce.data import DataConfig, Street
from lmanet.training.augment import Augmentation
from lmanet.training.clips import PseudoMemory
from lmanet.training.config import Stage
from lmanet.training.recipes import LabelMemoryRecipe, LMANetRecipe, SingleRecipe

CELL_VERSION = 1
"""Counts changes in what the same configuration gives: raised, every cell is run anew."""


@dataclass(frozen=True)
class Spelling:
    """How the values of one class are written.

    Attributes:
        kind: written beside the fields; None where what they belong to says enough.
        renamed: what a field is written as, where that is not its name.
        later: fields that came when there were results already, with the value that says what was so before: they are
            written where they have another.
    """

    kind: str | None
    renamed: Mapping[str, str] = field(default_factory=dict)
    later: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, value: Any) -> dict[str, Any]:
        """A dataclass's fields as JSON values."""
        names = [
            one.name
            for one in fields(value)
            if one.name not in self.later or getattr(value, one.name) != self.later[one.name]
        ]
        content = {self.renamed.get(name, name): spelled(getattr(value, name)) for name in names}
        return content if self.kind is None else {"kind": self.kind, **content}


def _weights(weights: Weights) -> dict[str, Any]:
    # Two files of the same contents are the same network, whatever they are called.
    return {"kind": "Weights", "sha256": weights.sha256}


def _data(data: DataConfig) -> dict[str, Any]:
    # Not where the frames lie, but which there are.
    return {
        "data": data.kind,
        "options": ",".join(data.options),
        "split": data.split,
        "fold": data.fold,
        "street": spelled(data.street),
        "frames": data.digest(),
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    content = Spelling("Evaluation", later={"weight": None})(evaluation)
    # Cells of the first memory without training, of other labels than today's, said so by this flag.
    method = content.pop("method")
    content["training_free"] = False
    # Of the memory's frames, once.
    content["spacing"] = 1
    return content if method is None else {**content, "method": method}


SPELLINGS: dict[type, Callable[[Any], dict[str, Any]]] = {
    SingleTraining: Spelling("SingleTraining"),
    MemoryTraining: Spelling("MemoryTraining"),
    Evaluation: _evaluation,
    Timings: Spelling("Timings"),
    Changes: Spelling("Changes"),
    AttentionMaps: Spelling("AttentionMaps"),
    Weights: _weights,
    DataConfig: _data,
    Street: Spelling(None),
    Degradation: Spelling(None),
    SingleRecipe: Spelling("SingleRecipe", later={"dropout": 1.0}),
    LMANetRecipe: Spelling("MemoryRecipe"),
    LabelMemoryRecipe: Spelling("LabelRecipe"),
    Stage: Spelling("Stage", later={"distillation": 0.0}),
    Augmentation: Spelling("Augmentation"),
    PseudoMemory: Spelling("PseudoMemory"),
    Variant: Spelling("Variant"),
}
"""Every class that a cell may hold."""


def configuration(cell: Cell) -> dict[str, Any]:
    """Everything that the cell's result depends on, as JSON values."""
    return {"cell version": CELL_VERSION, **spelled(cell)}


@lru_cache(maxsize=65536)
def cell_hash(cell: Cell) -> str:
    """16 hex digits of the SHA-256 of the cell's configuration."""
    text = json.dumps(configuration(cell), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def spelled(value: Any) -> Any:
    """A value of a cell as JSON values: by `SPELLINGS` if it is of one of those classes.

    Raises:
        TypeError: it is of a class that has no spelling.
    """
    if type(value) in SPELLINGS:
        return SPELLINGS[type(value)](value)
    if isinstance(value, tuple | list):
        return [spelled(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a {type(value).__name__} in a cell has no spelling: add one to SPELLINGS")
