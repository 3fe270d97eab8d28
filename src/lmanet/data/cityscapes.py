"""Cityscapes (Cordts et al., 2016): snippets of 30 frames whose 20th is labelled.

The paper trains and scores on the labelled frames, with the S frames before each as memory: `cityscapes:PATH,past=S`.
Its ERFNet works at 512×1024 (`,size=512x1024`, S = 4), its PSPNet at 1025×2049 (`,size=1025x2049`, S = 3): frames
are resized, and so are the labels that they are scored on, by nearest pixel.

Names, ids and colours: https://github.com/mcordts/cityscapesScripts (`README.md`, `helpers/labels.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmanet.classes import VOID, Classes
from lmanet.data.files import FileData, FileSequence
from lmanet.data.labels import IdTable
from lmanet.errors import DataError, InputError

CITYSCAPES_CLASSES = Classes(
    names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
        (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip
"""The 19 classes that are scored and their colours."""

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The id of each class in the `labelIds` files and at the test server."""

FRAME_RATE = 17.0
"""The camera's frames per second."""

MOST_PAST = 19
"""Frames of a snippet before the labelled one."""

SPLITS = ("train", "val", "test")

_READERS = {
    # -1, the licence plates, is 255 in a byte.
    "labelIds": IdTable(
        {**dict.fromkeys((*range(34), 255), VOID), **{value: i for i, value in enumerate(LABEL_IDS)}},
        "an id of Cityscapes' labels, 0 to 33",
    ),
    "labelTrainIds": IdTable({**{i: i for i in range(19)}, 255: VOID}, "0 to 18, or 255 for void"),
}


def load_cityscapes(root: Path, split: str, *, past: int | None = None) -> FileData:
    """Cityscapes from disk: one sequence for each labelled frame, of the frames before it and itself, the last.

    Labels are read from `gtFine/…_labelIds.png`, or, where there are none, `…_labelTrainIds.png`; void is what is not
    scored. The labelled frame's image is read from `leftImg8bit`, or where it is not there from
    `leftImg8bit_sequence`, the frames before it from `leftImg8bit_sequence`.

    Args:
        root: the folder that holds `leftImg8bit`, `leftImg8bit_sequence` and `gtFine`.
        split: `train`, `val` or `test`; the last has no labels.
        past: frames before the labelled one, 0 to 19, all of which must be there. None takes those that are there, up
            to the first that is not.

    Raises:
        DataError: a folder or a file is missing or misnamed; the message names it.
        InputError: `past` is out of range.
    """
    return scan_cityscapes(root, split, past=past).complete()


def scan_cityscapes(root: Path, split: str, *, past: int | None = None) -> FileData:
    """What `load_cityscapes` opens; what misses a file is left out and told of in `problems`."""
    root = Path(root)
    if past is not None:
        _check_past(past)
    if split not in SPLITS:
        raise DataError(f"Cityscapes has no split {split!r}: expected one of {', '.join(SPLITS)}")
    images, labels, problems = _labelled_frames(root, split)
    sequences = []
    for target in sorted(images.keys() | labels.keys()):
        city, number, frame = target
        label = labels.get(target)
        image = images.get(target, _sequence_file(root, split, target))
        before = []
        for age in range(1, (MOST_PAST if past is None else past) + 1):
            path = _sequence_file(root, split, (city, number, frame - age))
            if path.is_file():
                before.append(path)
            elif past is None:
                break
            else:
                problems.append(f"{path} is missing: {age} before the labelled frame {frame:06d}")
        if target not in images and not image.is_file():
            problems.append(f"{image} is missing, and the same of leftImg8bit: the image of {label}")
        elif label is None and split != "test":
            missing = root / f"gtFine/{split}/{city}/{_stem(target)}_gtFine_labelIds.png"
            problems.append(f"{missing} is missing: the label of {image}")
        elif past is None or len(before) == past:
            sequences.append(_sequence(target, [*before[::-1], image], label if split != "test" else None))
    return FileData(f"cityscapes/{split}", CITYSCAPES_CLASSES, tuple(sequences), tuple(problems))


def needed_files(root: Path, split: str, memory_size: int) -> Iterator[str]:
    """Paths, below `root`, of the files of `leftImg8bit_sequence` that a memory of this size takes.

    They follow from the labelled frames, which `gtFine` and `leftImg8bit` name. The labelled frame itself is
    among them only where `leftImg8bit` does not hold it.

    Args:
        root: the folder that holds `gtFine`, `leftImg8bit` or both.
        split: `train`, `val` or `test`.
        memory_size: S, 0 to 19.

    Raises:
        DataError: neither folder has the split, or a file in them is misnamed.
        InputError: `memory_size` is out of range.
    """
    _check_past(memory_size)
    images, labels, problems = _labelled_frames(Path(root), split)
    if problems:
        raise DataError(problems[0])
    for city, number, frame in sorted(images.keys() | labels.keys()):
        for one in range(frame - memory_size, frame + 1):
            if one < frame or (city, number, frame) not in images:
                yield str(_sequence_file(Path(), split, (city, number, one)))


def to_label_ids(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class ids 0 to 18, uint8 of any shape, to the ids of the `labelIds` files: what the test server takes."""
    return np.array(LABEL_IDS, np.uint8)[labels]


_Frame = tuple[str, str, int]
"""City, sequence number (six digits) and frame number."""


def _labelled_frames(root: Path, split: str) -> tuple[dict[_Frame, Path], dict[_Frame, Path], list[str]]:
    """Images of `leftImg8bit` and labels of `gtFine` by frame, and what is wrong with the names there."""
    folders = [root / kind / split for kind in ("leftImg8bit", "gtFine")]
    if not any(folder.is_dir() for folder in folders):
        raise DataError(f"{root} holds no Cityscapes {split}: expected {' or '.join(map(str, folders))}")
    problems: list[str] = []
    images = {frame: path for frame, _, path in _files(folders[0], r"leftImg8bit", problems)}
    labels: dict[_Frame, Path] = {}
    for frame, kind, path in _files(folders[1], r"gtFine_(\w+)", problems):
        if kind == "labelIds" or (kind == "labelTrainIds" and frame not in labels):
            labels[frame] = path
    if not images and not labels and not problems:
        raise DataError(
            f"{' and '.join(map(str, folders))} hold no frames: expected CITY/CITY_000000_000019_….png"
        )
    return images, labels, problems


def _files(folder: Path, ending: str, problems: list[str]) -> Iterator[tuple[_Frame, str, Path]]:
    """(frame, what the ending's group matches, path) of the PNGs of all cities, in order of name."""
    for path in sorted(folder.glob("*/*.png")):
        city = path.parent.name
        match = re.fullmatch(rf"{re.escape(city)}_(\d{{6}})_(\d{{6}})_{ending}", path.stem)
        if match:
            yield (city, match[1], int(match[2])), match[match.re.groups], path
        else:
            kind = folder.parent.name
            example = "leftImg8bit" if kind == "leftImg8bit" else "gtFine_labelIds"
            problems.append(
                f"{path}: expected {city}_SEQUENCE_FRAME_{example}.png, with six digits each, such as "
                f"{city}_000000_000019_{example}.png"
            )


def _stem(frame: _Frame) -> str:
    city, number, index = frame
    return f"{city}_{number}_{index:06d}"


def _sequence_file(root: Path, split: str, frame: _Frame) -> Path:
    return root / f"leftImg8bit_sequence/{split}/{frame[0]}/{_stem(frame)}_leftImg8bit.png"


def _sequence(target: _Frame, images: list[Path], label: Path | None) -> FileSequence:
    kind = label.stem.rpartition("_")[2] if label else "labelIds"
    return FileSequence(
        name=_stem(target),
        frame_names=tuple(path.stem.removesuffix("_leftImg8bit") for path in images),
        spacing_s=1 / FRAME_RATE,
        image_paths=tuple(images),
        label_paths=(*[None] * (len(images) - 1), label),
        read_label=_READERS[kind],
    )


def _check_past(past: int) -> None:
    if not 0 <= past <= MOST_PAST:
        raise InputError(
            f"{past} frames before the labelled one: Cityscapes has {MOST_PAST} of them, give 0 to {MOST_PAST}"
        )
