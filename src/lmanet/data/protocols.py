"""What every labelled video data set gives: classes, and gap-free sequences of frames."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmanet.classes import Classes


class Sequence(Protocol):
    """A gap-free run of frames at a constant spacing: a memory may reach across all of it."""

    @property
    def name(self) -> str:
        """The sequence's name, unique in its data set."""
        ...

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The frames' names in time order; its length is the sequence's."""
        ...

    @property
    def spacing_s(self) -> float:
        """Seconds between neighbouring frames."""
        ...

    @property
    def labelled(self) -> tuple[bool, ...]:
        """Whether each frame has a label, without reading it."""
        ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` as (H, W, 3) uint8 RGB."""
        ...

    def label(self, index: int) -> NDArray[np.uint8] | None:
        """Class ids of frame `index` as (H, W) uint8, void 255; None where the frame has no label."""
        ...


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """For sorting by name: runs of digits compare as numbers, the rest as text; the whole name settles ties."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


@dataclass(frozen=True)
class DerivedSequence:
    """A sequence that is its source in all that a child does not change; keeps the `Sequence` protocol.

    Attributes:
        source: the sequence that it is made of.
    """

    source: Sequence

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The source's."""
        return self.source.frame_names

    @property
    def spacing_s(self) -> float:
        """The source's."""
        return self.source.spacing_s

    @property
    def labelled(self) -> tuple[bool, ...]:
        """The source's."""
        return self.source.labelled

    def image(self, index: int) -> NDArray[np.uint8]:
        """The source's frame `index`, (H, W, 3) uint8 RGB."""
        return self.source.image(index)

    def label(self, index: int) -> NDArray[np.uint8] | None:
        """The source's class ids of frame `index`, (H, W) uint8, void 255; None where it has none."""
        return self.source.label(index)


class VideoData(Protocol):
    """A labelled video data set: one split of it, as gap-free sequences."""

    @property
    def name(self) -> str:
        """Name for reports, such as `camvid/val`."""
        ...

    @property
    def classes(self) -> Classes:
        """The class names and colours of the labels."""
        ...

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        """The sequences, in a fixed order."""
        ...


def labelled_frames(data: VideoData) -> list[tuple[int, int]]:
    """(sequence, frame) positions of every frame that has a label, in order."""
    return [
        (n, i)
        for n, sequence in enumerate(data.sequences)
        for i, labelled in enumerate(sequence.labelled)
        if labelled
    ]
