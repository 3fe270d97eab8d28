"""Mean and spread over seeds, the folds of each seed averaged first."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """One figure of several seeds.

    Attributes:
        mean: over the seeds; NaN where no seed has the figure.
        std: the sample standard deviation (n - 1); NaN of a single seed.
        n: seeds.
        per_seed: the figure of each, the mean over its folds.
    """

    mean: float
    std: float
    n: int
    per_seed: tuple[float, ...]

    def text(self, *, signed: bool = False) -> str:
        """In percent, `62.85 ± 0.12`; without the spread of a single seed, `n/a` where there is nothing."""
        if math.isnan(self.mean):
            return "n/a"
        mean = f"{100 * self.mean:{'+' if signed else ''}.2f}"
        return mean if math.isnan(self.std) else f"{mean} ± {100 * self.std:.2f}"


def summarise(values: Sequence[Sequence[float]]) -> Summary:
    """The summary of figures by seed and, within a seed, by fold; NaN (a class that is absent) is left out.

    Args:
        values: for each seed, the figure on each fold.
    """
    per_seed = tuple(_mean(folds) for folds in values)
    known = [value for value in per_seed if not math.isnan(value)]
    std = statistics.stdev(known) if len(known) > 1 else math.nan
    return Summary(_mean(known), std, len(known), per_seed)


def difference(one: Summary, base: Summary) -> Summary:
    """`one` less `base`, seed by seed; what has one seed only is taken from, or less, each of the other's."""
    length = max(len(one.per_seed), len(base.per_seed))
    both = [_repeated(summary.per_seed, length) for summary in (one, base)]
    return summarise([[a - b] for a, b in zip(*both, strict=True)])


def _repeated(values: tuple[float, ...], length: int) -> tuple[float, ...]:
    return values * length if len(values) == 1 else values


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
