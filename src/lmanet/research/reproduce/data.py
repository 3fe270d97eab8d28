"""Which frames a cell is trained or scored on, as a plain value."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from lmanet.data.cityscapes import MOST_PAST
from lmanet.data.protocols import DerivedSequence, VideoData
from lmanet.data.spec import open_data
from lmanet.data.street.degrade import Degradation
from lmanet.data.subset import Subset, camvid_folds, thinned
from lmanet.data.synthetic import SyntheticDrive
from lmanet.errors import DataError, InputError

KINDS = ("camvid", "synthetic", "cityscapes")
"""The data that experiments run on."""

CAMVID_SIZE = (360, 480)
"""(H, W) of CamVid's frames in the SegNet layout."""

PAPER_SIZE = "512x1024"
"""The size of ERFNet's frames in the paper; taken for Cityscapes where no size is given."""


@dataclass(frozen=True)
class Street:
    """A synthetic drive that differs from its split's own.

    Attributes:
        sequences: how many; the split's own number if not given.
        frames: of each sequence; the split's own number if not given.
        size: (H, W) in pixels.
        fps: frames per second: the fewer, the further things move from frame to frame.
        degradation: what spoils the frames; the data set's level if not given.
    """

    sequences: int | None = None
    frames: int | None = None
    size: tuple[int, int] = (360, 480)
    fps: float = 15.0
    degradation: Degradation | None = None


@dataclass(frozen=True)
class DataConfig:
    """Frames by name.

    Attributes:
        spec: as `lmanet.data.spec.open_data` takes it.
        split: `train`, `val` or `test`; of a fold, `train` is all but the part left out, and `held-out` that part.
        fold: the fold of CamVid, if it is one.
        street: of synthetic data, how the drive differs from the split's own.
        every: takes every so many-th frame, as that many sequences (`lmanet.data.subset.thinned`).
    """

    spec: str
    split: Literal["train", "val", "test", "held-out"]
    fold: str | None = None
    street: Street | None = None
    every: int = 1

    @property
    def kind(self) -> str:
        """`camvid`, `synthetic` or `cityscapes`."""
        return self.spec.partition(":")[0]

    @property
    def name(self) -> str:
        """What tables and progress bars call these frames."""
        fold = f" of fold {self.fold}" if self.fold else ""
        return f"{self.kind}/{self.split}{fold}" + (f", every {self.every}. frame" if self.every > 1 else "")

    def open(self) -> VideoData:
        """The frames.

        Raises:
            DataError: see `open_data` and `camvid_folds`; or there is no such fold.
        """
        return _opened(self)

    def size(self) -> tuple[int, int]:
        """(H, W) of the first frame."""
        if self.street is not None:
            return self.street.size
        return _size(self)

    @property
    def options(self) -> tuple[str, ...]:
        """What follows the root in the spec, such as `size=512x1024`, in order."""
        return tuple(_options(self.spec))

    def digest(self) -> str:
        """16 hex digits that tell which frames these are: their names, and their size where it is not the usual one."""
        return _digest(self)


@dataclass(frozen=True)
class _Rendered(DerivedSequence):
    """A sequence that is made by rule; its stamp is the configuration and what the rule makes of a first frame."""

    stamp: str


def checked_spec(spec: str) -> str:
    """The spec of data that experiments can run on; Cityscapes at the paper's size where none is given.

    Raises:
        InputError: another kind of data.
    """
    kind, colon, _ = spec.partition(":")
    if not colon or kind not in KINDS:
        raise InputError(f"data {spec!r}: expected camvid:ROOT, synthetic: or cityscapes:ROOT")
    given = {option.partition("=")[0] for option in _options(spec)}
    return f"{spec},size={PAPER_SIZE}" if kind == "cityscapes" and "size" not in given else spec


def with_past(spec: str, past: int) -> str:
    """For Cityscapes, only the frames before the labelled one that a memory of this reach takes."""
    if not spec.startswith("cityscapes:") or any(option.startswith("past=") for option in _options(spec)):
        return spec
    return f"{spec},past={min(past, MOST_PAST)}"


def _options(spec: str) -> list[str]:
    match = re.search(r"((?:,(?:size|past)=[^,/]*)*)$", spec)
    return sorted(match[1].split(",")[1:]) if match else []


@lru_cache(maxsize=32)
def _opened(config: DataConfig) -> VideoData:
    if config.every != 1:
        return thinned(_opened(replace(config, every=1)), config.every)
    if config.fold is not None:
        return _fold(config)
    if config.split == "held-out":
        raise DataError("held-out frames are a fold's: name the fold")
    if config.street is not None and (config.kind != "synthetic" or _options(config.spec)):
        raise DataError(
            f"a street is synthetic data's and has its own size, got {config.spec!r}: give synthetic:"
        )
    if config.street is None:
        data = open_data(config.spec, config.split)
        if config.kind != "synthetic":
            return data
    else:
        street = config.street
        data = SyntheticDrive(
            split=config.split,
            sequences=street.sequences,
            frames=street.frames,
            size=street.size,
            fps=street.fps,
            degradation=street.degradation,
        )
    stamp = f"{config!r} {hashlib.sha256(data.sequences[0].image(0).tobytes()).hexdigest()}"
    return Subset(data.name, data.classes, tuple(_Rendered(s, stamp) for s in data.sequences))


def _fold(config: DataConfig) -> Subset:
    root = config.spec.partition(":")[2]
    if config.kind != "camvid" or _options(config.spec):
        raise DataError(f"folds are of CamVid at its own size, got {config.spec!r}: give camvid:ROOT")
    folds = {fold.name: fold for fold in camvid_folds(Path(root).expanduser())}
    if config.fold not in folds:
        raise DataError(f"CamVid has no fold {config.fold!r}: it has {', '.join(folds)}")
    fold = folds[config.fold]
    return fold.train if config.split == "train" else fold.held_out


@lru_cache(maxsize=1024)
def _size(config: DataConfig) -> tuple[int, int]:
    height, width = config.open().sequences[0].image(0).shape[:2]
    return height, width


@lru_cache(maxsize=1024)
def _digest(config: DataConfig) -> str:
    """The hash of the names of all frames, and of their size where that is not the usual one."""
    data = config.open()
    frames: list[Any] = [[s.name, list(s.frame_names), list(s.labelled)] for s in data.sequences]
    # CamVid's two layouts name their frames alike.
    if config.kind == "camvid" and (size := config.size()) != CAMVID_SIZE:
        frames.append(size)
    return hashlib.sha256(json.dumps([data.classes.names, frames]).encode()).hexdigest()[:16]
