"""Parts of a data set as a data set of their own: some sequences, fewer frames a second, CamVid's folds.

CamVid's val is one clip, so a claim that rests on it alone rests on one street. Its train sequences are therefore left
out in turn: a network trained on the others is scored on the one left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmanet.classes import Classes
from lmanet.data.camvid import FRAME_RATE, load_camvid
from lmanet.data.protocols import DerivedSequence, Sequence, VideoData
from lmanet.errors import DataError


@dataclass(frozen=True)
class Subset:
    """Some sequences of a data set; keeps the `VideoData` protocol.

    Attributes:
        name: for reports.
        classes: of the labels.
        sequences: those taken, in the order of the data set they come from.
    """

    name: str
    classes: Classes
    sequences: tuple[Sequence, ...]


def subset(data: VideoData, sequences: Iterable[str], *, name: str) -> Subset:
    """The sequences of these names.

    Args:
        data: where they come from.
        sequences: their names, in any order.
        name: of the subset, for reports.

    Raises:
        DataError: `data` has no sequence of such a name, or no name is given.
    """
    wanted = set(sequences)
    known = [sequence.name for sequence in data.sequences]
    unknown = sorted(wanted.difference(known))
    if unknown or not wanted:
        raise DataError(
            f"{data.name} has no sequence {unknown[0] if unknown else 'asked for'}: it has {', '.join(known)}"
        )
    taken = tuple(sequence for sequence in data.sequences if sequence.name in wanted)
    return Subset(name, data.classes, taken)


@dataclass(frozen=True)
class ThinnedSequence(DerivedSequence):
    """Every k-th frame of a sequence; keeps the `Sequence` protocol.

    Attributes:
        first: the frame that it begins with.
        every: k.
    """

    first: int
    every: int

    @property
    def name(self) -> str:
        """The source's, and which frames."""
        return f"{self.source.name}[{self.first}::{self.every}]"

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Those of the frames that are left."""
        return self.source.frame_names[self.first :: self.every]

    @property
    def spacing_s(self) -> float:
        """K times the source's."""
        return self.source.spacing_s * self.every

    @property
    def labelled(self) -> tuple[bool, ...]:
        """Of the frames that are left."""
        return self.source.labelled[self.first :: self.every]

    def image(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` of those that are left, (H, W, 3) uint8 RGB."""
        return self.source.image(self.first + index * self.every)

    def label(self, index: int) -> NDArray[np.uint8] | None:
        """Class ids of frame `index` of those that are left, (H, W) uint8, void 255; None where it has none."""
        return self.source.label(self.first + index * self.every)


def thinned(data: VideoData, every: int) -> Subset:
    """A data set at a fraction of its frame rate. No frame is lost: of a sequence come `every` ones.

    Args:
        data: the frames.
        every: k: the first sequence has frames 0, k, 2k and so on, the next 1, k+1 and so on; at least 1.
    """
    sequences = tuple(
        ThinnedSequence(sequence, first, every)
        for sequence in data.sequences
        for first in range(min(every, len(sequence.frame_names)))
    )
    return Subset(f"{data.name}, every {every}. frame", data.classes, sequences)


@dataclass(frozen=True)
class Fold:
    """One way to split CamVid's train frames.

    Attributes:
        name: of the part left out.
        train: every other frame.
        held_out: the part left out, to be scored on.
    """

    name: str
    train: Subset
    held_out: Subset


CAMVID_FOLDS: dict[str, tuple[str, int, int]] = {
    "0001TP": ("0001TP", 0, 10**6),
    "0006R0": ("0006R0", 0, 10**6),
    "0016E5-a": ("0016E5", 390, 2400),
    "0016E5-b": ("0016E5", 4350, 7920),
}
"""The part that each fold leaves out: recording, first and last frame number."""

LEAST_APART_S = 9.0
"""Between a frame that is scored and any that is trained on, where both are of one recording."""


def camvid_folds(root: Path) -> tuple[Fold, ...]:
    """CamVid's train frames, each part left out in turn; in the SegNet and the Cambridge layout.

    The end of 0016E5 (frames 08190 to 08640) is trained on in every fold: it lies a second from the val clip.

    Args:
        root: see `load_camvid`.

    Raises:
        DataError: see `load_camvid`; or a part has no frames, or comes closer than `LEAST_APART_S` to frames that
            are trained on.
    """
    train = load_camvid(root, "train")
    folds = []
    for name, (recording, first, last) in CAMVID_FOLDS.items():
        left_out = [
            sequence.name
            for sequence in train.sequences
            if _place(sequence, 0)[0] == recording and first <= _place(sequence, 0)[1] <= last
        ]
        if not left_out:
            raise DataError(
                f"{root} has no frames {first:05d} to {last:05d} of {recording}, which the fold {name} leaves out: "
                f"the folds need all of CamVid's train split"
            )
        others = [sequence.name for sequence in train.sequences if sequence.name not in left_out]
        fold = Fold(
            name,
            subset(train, others, name=f"{train.name} without {name}"),
            subset(train, left_out, name=f"{train.name}, {name}"),
        )
        apart_s = seconds_apart(fold.train, fold.held_out)
        if apart_s < LEAST_APART_S:
            raise DataError(
                f"fold {name}: frames to train on and to score on are {apart_s:g} s apart, expected at least "
                f"{LEAST_APART_S:g} s: {root} splits its sequences in another way than CamVid does"
            )
        folds.append(fold)
    return tuple(folds)


def seconds_apart(one: VideoData, other: VideoData) -> float:
    """Seconds between the nearest two CamVid frames of one recording, one of each data set; infinite if none is."""
    places = [
        {_place(s, i) for s in data.sequences for i in range(len(s.frame_names))} for data in (one, other)
    ]
    frames = [abs(a - b) for recording, a in places[0] for same, b in places[1] if same == recording]
    return min(frames, default=float("inf")) / FRAME_RATE


def _place(sequence: Sequence, index: int) -> tuple[str, int]:
    """Recording and frame number of a CamVid frame."""
    match = re.fullmatch(r"(.+?)_f?(\d+)", sequence.frame_names[index])
    assert match is not None, "load_camvid lets no other names through"
    return match[1], int(match[2])
