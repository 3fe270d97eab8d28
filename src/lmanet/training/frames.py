"""A video data set decoded or rendered once, then read from memory-mapped files."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lmanet.atomic import output_errors, whole_folder
from lmanet.classes import Classes
from lmanet.data.protocols import Sequence, VideoData, labelled_frames
from lmanet.errors import DataError, OutputError

IMAGES, LABELS = "images.bin", "labels.bin"
VERSION = 4
"""Counts changes in what the files hold: those of before are written anew."""


@dataclass(frozen=True)
class StoredSequence:
    """A sequence whose frames lie decoded in memory-mapped arrays; keeps the `Sequence` protocol.

    Attributes:
        name: of the sequence.
        frame_names: in time order.
        spacing_s: seconds between neighbouring frames.
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
        fingerprint: of the pixels, labels and how they make sequences, for checking what was computed from them.
    """

    name: str
    classes: Classes
    sequences: tuple[Sequence, ...]
    fingerprint: str

    @cached_property
    def label_pixels(self) -> NDArray[np.int64]:
        """Pixels of all labels by value, (256,); the labels are read once for all that asks."""
        counts = np.zeros(256, np.int64)
        for label in self.labels():
            counts += np.bincount(label.ravel(), minlength=256)
        return counts

    def labels(self) -> Iterator[NDArray[np.uint8]]:
        """All labels, (H, W) uint8."""
        for n, i in labelled_frames(self):
            label = self.sequences[n].label(i)
            assert label is not None
            yield label


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
        DataError: frames of one sequence differ in size, are not uint8, or have labels where the sequence says that
            there are none, or the other way round.
        OutputError: the folder cannot be written to, or the disk has no room for them.
    """
    head = {
        "version": VERSION,
        "data": data.name,
        "classes": list(data.classes.names),
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
    images, labels = (_map(folder / name) for name in (IMAGES, LABELS))
    sequences = []
    for sequence, labelled, (height, width) in zip(
        data.sequences, facts["labelled"], facts["sizes"], strict=True
    ):
        own, images = np.split(images, [len(labelled) * height * width * 3])
        own_labels, labels = np.split(labels, [sum(labelled) * height * width])
        sequences.append(
            StoredSequence(
                sequence.name,
                sequence.frame_names,
                sequence.spacing_s,
                own.reshape(-1, height, width, 3),
                own_labels.reshape(-1, height, width),
                tuple(labelled),
            )
        )
    return tuple(sequences)


def _map(path: Path) -> NDArray[np.uint8]:
    # One file for all sequences: there may be more of them than a process may have files open.
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)


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
    digest, sizes = hashlib.sha256(), []
    done, total = 0, sum(len(s.frame_names) for s in data.sequences)
    with (
        whole_folder(folder) as part,
        _output(part / IMAGES, folder) as images,
        _output(part / LABELS, folder) as labels,
    ):
        for sequence in data.sequences:
            first, labelled = sequence.image(0), sequence.labelled
            if not sizes:  # by the first size, so that a disk too small is told before hours of decoding
                check_space(part.parent, sum(_bytes(s, first.shape) for s in data.sequences))
            for i, name in enumerate(sequence.frame_names):
                image, label = sequence.image(i) if i else first, sequence.label(i)
                if image.shape != first.shape or (label is not None and label.shape != first.shape[:2]):
                    raise DataError(
                        f"{sequence.name}, frame {name}: image {image.shape}, label "
                        f"{None if label is None else label.shape}, but the sequence began with {first.shape}: "
                        f"all frames of a sequence must have one size"
                    )
                if image.dtype != np.uint8 or (label is not None and label.dtype != np.uint8):
                    raise DataError(
                        f"{sequence.name}, frame {name}: image of {image.dtype}, label of "
                        f"{None if label is None else label.dtype}: expected uint8"
                    )
                if (label is not None) != labelled[i]:
                    raise DataError(
                        f"{sequence.name}, frame {name}: a label is {'missing' if labelled[i] else 'there'}, "
                        f"but `labelled` says {labelled[i]}"
                    )
                _append(image, images, folder, digest)
                if label is None:
                    digest.update(b"-")
                else:
                    _append(label, labels, folder, digest)
                done += 1
                if on_frame:
                    on_frame(done, total)
            sizes.append(first.shape[:2])
            digest.update(repr((sequence.name, len(labelled), first.shape)).encode())
        labelled = [sequence.labelled for sequence in data.sequences]
        index = {"head": head, "labelled": labelled, "sizes": sizes, "fingerprint": digest.hexdigest()}
        with output_errors(folder):
            (part / "index.json").write_text(json.dumps(index))


@contextmanager
def _output(path: Path, folder: Path) -> Iterator[BinaryIO]:
    with output_errors(folder):
        file = path.open("wb")
    try:
        yield file
    finally:
        with output_errors(folder):
            file.close()


def _append(array: NDArray[np.uint8], file: BinaryIO, folder: Path, digest: hashlib._Hash) -> None:
    content = array.tobytes()
    digest.update(content)
    with output_errors(folder):
        file.write(content)


def _bytes(sequence: Sequence, shape: tuple[int, ...]) -> int:
    """Room that a sequence of images of this shape takes."""
    return math.prod(shape) * len(sequence.frame_names) + math.prod(shape[:2]) * sum(sequence.labelled)
