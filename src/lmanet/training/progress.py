"""What a training tells of itself while it runs: its phases, and how far each is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

PhaseKind = Literal["reading", "encoding", "training"]
"""Decoding frames to disk; observing them once by the frozen network; steps of an optimiser."""


@dataclass(frozen=True)
class Phase:
    """A part of a training, one after the other.

    Attributes:
        kind: what is done.
        name: for people: `reading train`, `encoding`, `step 1`.
    """

    kind: PhaseKind
    name: str


@dataclass(frozen=True)
class Progress:
    """How far a phase of kind `training` is.

    Attributes:
        epoch: epochs done.
        epochs: epochs in all.
        step: steps done in this epoch.
        steps: steps per epoch.
        loss: mean training loss of this epoch so far.
        miou: of the last validation, 0 to 1; NaN before the first.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    miou: float


Report = Callable[[Phase, Progress | tuple[int, int]], None]
"""Called with the phase and how far it is: a `Progress`, or for other kinds frames done and frames in all."""


def silent(phase: Phase, progress: Progress | tuple[int, int]) -> None:
    """A `Report` that tells nobody."""


def reading(split: str) -> Phase:
    """The phase that decodes the frames of `train` or `val`."""
    return Phase("reading", f"reading {split}")


ENCODING = Phase("encoding", "encoding")
"""The phase that observes every frame once."""


def training(step: int) -> Phase:
    """The phase of step 0, 1 or 2."""
    return Phase("training", f"step {step}")
