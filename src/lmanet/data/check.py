"""Reads every frame and label of a data set once: what it holds, and what is wrong with it."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

import numpy as np

from lmanet.classes import VOID, Classes
from lmanet.data.labels import StrayLabels
from lmanet.data.protocols import Sequence as FrameSequence
from lmanet.data.protocols import VideoData
from lmanet.errors import DataError


@dataclass
class Found:
    """What was found in a data set or a part of it.

    Attributes:
        images: how many could be read.
        labels: how many could be read.
        sizes: images by (H, W).
        pixels: of the labels, by value.
        problems: one sentence each.
        strays: of these, the labels that hold values or colours that mean nothing, by their sentence.
    """

    images: int = 0
    labels: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    problems: list[str] = field(default_factory=list)
    strays: dict[str, StrayLabels] = field(default_factory=dict)

    def add(self, other: Found) -> None:
        """Take in another part."""
        self.images += other.images
        self.labels += other.labels
        self.sizes += other.sizes
        self.pixels += other.pixels
        self.problems += other.problems
        self.strays |= other.strays


@dataclass(frozen=True)
class DataCheck:
    """The outcome of a check.

    Attributes:
        name: of the data set.
        classes: of the data set.
        lengths: frames of each sequence.
        spacings_s: the different spacings of the sequences.
        found: what its files hold; `problems` are without repetition, those known before the reading first, and what
            is wrong with all labels together last.
        seconds: that the reading took.
        threads: that read.
    """

    name: str
    classes: Classes
    lengths: tuple[int, ...]
    spacings_s: tuple[float, ...]
    found: Found
    seconds: float
    threads: int

    @property
    def shares(self) -> np.ndarray:
        """Share of each class (K,) of the labelled pixels that are not void; NaN where there are none."""
        counts = self.found.pixels[: len(self.classes)]
        return counts / counts.sum() if counts.any() else np.full(len(counts), np.nan)

    @property
    def absent(self) -> frozenset[int]:
        """Classes that occur in no label; none where there are no labels."""
        if not self.found.labels:
            return frozenset()
        return frozenset(i for i in range(len(self.classes)) if not self.found.pixels[i])


def only_masks(pixels: np.ndarray) -> bool:
    """Whether labels hold both class 0 and void and nothing else: by the pixels (256,) of each value."""
    return bool(pixels[0] and pixels[VOID] and not pixels[1:VOID].any())


def check_data(
    data: VideoData,
    problems: Sequence[str] = (),
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DataCheck:
    """Read every frame and every label once.

    Args:
        data: the data set.
        problems: what is known to be wrong already.
        threads: sequences that are read at the same time; as many as there are processors if None.
        progress: called with (frames done, frames in all) after each sequence.
    """
    threads = threads or os.cpu_count() or 1
    lengths = tuple(len(sequence.frame_names) for sequence in data.sequences)
    found, done, began_s = Found(problems=list(problems)), 0, time.perf_counter()
    pool, stop = ThreadPoolExecutor(threads), threading.Event()
    try:
        parts = {pool.submit(_read, s, len(data.classes), stop): n for n, s in enumerate(data.sequences)}
        for part in as_completed(parts):
            done += lengths[parts[part]]
            progress(done, sum(lengths))
        seconds = time.perf_counter() - began_s
        for part in parts:
            found.add(part.result())
    finally:
        stop.set()  # an interrupt need not wait for the end of a long sequence
        pool.shutdown(cancel_futures=True)
    found.problems = list(dict.fromkeys(found.problems))
    if (doubt := getattr(data, "doubt", "")) and not found.strays and only_masks(found.pixels):
        found.problems.append(f"{data.name}: {doubt}")
    spacings = tuple(sorted({sequence.spacing_s for sequence in data.sequences}))
    return DataCheck(data.name, data.classes, lengths, spacings, found, seconds, threads)


def _read(sequence: FrameSequence, num_classes: int, stop: threading.Event) -> Found:
    found = Found()
    for i, name in enumerate(sequence.frame_names):
        if stop.is_set():
            break
        try:
            size = sequence.image(i).shape[:2]
            found.images += 1
            found.sizes[size] += 1
        except DataError as error:
            found.problems.append(str(error))
        try:
            label = sequence.label(i)
        except DataError as error:
            found.problems.append(str(error))
            if isinstance(error, StrayLabels):
                found.strays[str(error)] = error
            continue
        if label is not None:
            found.labels += 1
            counts = np.bincount(label.ravel(), minlength=256)
            found.pixels += counts
            wrong = [i for i in range(num_classes, VOID) if counts[i]]
            if wrong:
                each = ", ".join(f"{i} in {counts[i]} pixels" for i in wrong)
                found.problems.append(
                    f"{sequence.name}, frame {name}: label {each}, expected 0 to {num_classes - 1}, or {VOID} for void"
                )
    return found
