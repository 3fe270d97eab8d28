"""How a training is run, and what it gives: the same for a network and for a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from lmanet.training.progress import Report, silent


@dataclass(frozen=True)
class RunOptions:
    """How a training is run: no matter of what is learned, but for the seed.

    Attributes:
        accelerator: device, precision and processes. It must not hold other prepared objects: what it has prepared is
            released at the end of each step.
        seed: of everything random: first weights, order of the samples, augmentation and dropout.
        workers: processes that prepare samples; 0 prepares them in this one.
        report: told of the progress.
    """

    accelerator: Accelerator
    seed: int = 0
    workers: int = 1
    report: Report = silent


@dataclass(frozen=True)
class TrainingTimings:
    """What a training's time went into.

    Attributes:
        steps_s: seconds of training, validation left out, by step (0, 1, 2); of one that was killed and gone on with,
            those of the epochs before too.
        encoded: frames that this call encoded; 0 where their features lay in the cache already, or none is kept.
        encoding_s: seconds of that.
    """

    steps_s: Mapping[int, float] = field(default_factory=dict)
    encoded: int = 0
    encoding_s: float = 0.0


@dataclass(frozen=True)
class TrainingResult:
    """What a training gives.

    Attributes:
        path: the weights file; its card says which step and epoch it is from.
        timings: what the time went into.
    """

    path: Path
    timings: TrainingTimings
