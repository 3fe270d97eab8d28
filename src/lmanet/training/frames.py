"""A video data set decoded or rendered once, then read from memory-mapped files."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmanet.atomic import output_errors, whole_folder
from lmanet.data.base import Classes, Sequence, VideoData
from lmanet.errors import DataError, OutputError

VERSION = 2
"""Counts changes in what the files hold: those of before are written anew."""


@dataclass(frozen=True)
class StoredSequence:
    """A sequence whose frames lie decoded in memory-mapped arrays; keeps the `Sequence` protocol.

    Attributes:
        name: the sequence's.
        frame_names: the sequence's.
        spacing_s: the sequence's.
        images: (frames, H, W, 3) uint8.
        labels: (labelled frames, H, W) uint8: those without a label take no room.
        labelled: whether each frame has a label.
    """

    name: str
    frame_names: tuple[str, ...]
    spacing_s: float
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    labelled: tuple[bool, ...]

    def image(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` as (H, W, 3) uint8 RGB."""
        return self.images[index]

    def label(self, index: int) -> NDArray[np.uint8] | None:
        """Class ids of frame `index` as (H, W) uint8, void 255; None where the frame has no label."""
        return self.labels[sum(self.labelled[:index])] if self.labelled[index] else None


@dataclass(frozen=True)
class StoredData:
    """A data set of stored sequences; keeps the `VideoData` protocol.

    Attributes:
        name: the data set's name.
        classes: its classes.
        sequences: its sequences.
        fingerprint: of the pixels and labels, for checking what was computed from them.
    """

    name: str
    classes: Classes
    sequences: tuple[Sequence, ...]
    fingerprint: str


def store_frames(
    data: VideoData, folder: Path, *, on_frame: Callable[[int, int], None] | None = None
) -> StoredData:
    """Decode every frame of `data` into `folder`, or reuse what lies there from an earlier call.

    What lies there is reused if it holds the same frames: the same names, and nothing that has changed since. A
    sequence with a `stamp` (a string that changes whenever its files do) is checked by that; of any other, the
    first frame is compared with the stored one. The folder is written under another name and moved, so a killed
    call leaves nothing half done under its own.

    Args:
        data: the data set; within one sequence all frames have one size.
        folder: where the arrays go: 3 bytes a pixel of every frame and 1 a pixel of every label.
        on_frame: called with (done, total) after each frame.

    Raises:
        DataError: frames of one sequence differ in size.
        OutputError: the folder cannot be written to, or the disk has no room for them.
    """
    head = {
        "version": VERSION,
        "data": data.name,
        "sequences": [[s.name, list(s.frame_names)] for s in data.sequences],
        "stamps": [getattr(s, "stamp", None) for s in data.sequences],
    }
    if not _is_current(folder, head, data):
        _write(data, folder, head, on_frame)
    facts = json.loads((folder / "index.json").read_text())
    return StoredData(data.name, data.classes, _open(data, folder, facts), facts["fingerprint"])


def check_space(folder: Path, size: int) -> None:
    """Raise OutputError unless `size` bytes are free where `folder` lies.

    A memory-mapped file is only given its blocks as they are written, and a disk that is full by then kills the
    process instead of raising an error.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"{folder} needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: free some space or choose a folder "
            f"on another disk"
        )


def _open(data: VideoData, folder: Path, facts: dict) -> tuple[StoredSequence, ...]:
    return tuple(
        StoredSequence(
            sequence.name,
            sequence.frame_names,
            sequence.spacing_s,
            np.load(folder / f"{n:04d}-images.npy", mmap_mode="r"),
            np.load(folder / f"{n:04d}-labels.npy", mmap_mode="r"),
            tuple(facts["labelled"][n]),
        )
        for n, sequence in enumerate(data.sequences)
    )


def _is_current(folder: Path, head: dict, data: VideoData) -> bool:
    index = folder / "index.json"
    if not index.is_file():
        return False
    facts = json.loads(index.read_text())
    if facts["head"] != head:
        return False
    pairs = zip(head["stamps"], data.sequences, _open(data, folder, facts), strict=True)
    return all(stamp is not None or _same_first_frame(now, stored) for stamp, now, stored in pairs)


def _same_first_frame(now: Sequence, stored: StoredSequence) -> bool:
    label, stored_label = now.label(0), stored.label(0)
    if label is None or stored_label is None:
        same_label = label is None and stored_label is None
    else:
        same_label = np.array_equal(label, stored_label)
    return same_label and np.array_equal(now.image(0), stored.image(0))


def _write(data: VideoData, folder: Path, head: dict, on_frame: Callable[[int, int], None] | None) -> None:
    digest = hashlib.sha256()
    done, total = 0, sum(len(s.frame_names) for s in data.sequences)
    with whole_folder(folder) as part:
        # By the first sequence's size, so that a disk too small is told before hours of decoding.
        size = data.sequences[0].image(0).shape if data.sequences else ()
        check_space(part.parent, sum(_bytes(sequence, size) for sequence in data.sequences))
        for n, sequence in enumerate(data.sequences):
            first = sequence.image(0)
            shape = first.shape
            check_space(part.parent, _bytes(sequence, shape))
            with output_errors(folder):
                images = _allocate(part / f"{n:04d}-images.npy", (len(sequence.frame_names), *shape))
                labels = _allocate(part / f"{n:04d}-labels.npy", (sum(sequence.labelled), *shape[:2]))
            stored = 0
            for i, name in enumerate(sequence.frame_names):
                image, label = sequence.image(i) if i else first, sequence.label(i)
                if image.shape != shape or (label is not None and label.shape != shape[:2]):
                    raise DataError(
                        f"{sequence.name}, frame {name}: image {image.shape}, label "
                        f"{None if label is None else label.shape}, but the sequence began with {shape}: "
                        f"all frames of a sequence must have one size"
                    )
                images[i] = image
                if label is not None:
                    labels[stored] = label
                    stored += 1
                digest.update(image.tobytes())
                digest.update(b"-" if label is None else label.tobytes())
                done += 1
                if on_frame:
                    on_frame(done, total)
            with output_errors(folder):
                images.flush()
                labels.flush()
        labelled = [sequence.labelled for sequence in data.sequences]
        index = {"head": head, "labelled": labelled, "fingerprint": digest.hexdigest()}
        with output_errors(folder):
            (part / "index.json").write_text(json.dumps(index))


def _bytes(sequence: Sequence, shape: tuple[int, ...]) -> int:
    """Room that a sequence of images of this shape takes."""
    return math.prod(shape) * len(sequence.frame_names) + math.prod(shape[:2]) * sum(sequence.labelled)


def _allocate(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A file of zeros, uint8."""
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
