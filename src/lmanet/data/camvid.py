"""CamVid (Brostow et al., 2009), 11 classes, in the SegNet layout and in the Cambridge one."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmanet.classes import VOID, Classes
from lmanet.data.files import FileData, FileSequence
from lmanet.data.labels import ColourTable, IdTable
from lmanet.errors import DataError

CAMVID_CLASSES = Classes(
    names=(
        "sky", "building", "pole", "road", "pavement", "tree",
        "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip
"""The 11 classes of the SegNet split and their usual colours."""

SEGNET_VOID = 11
SEGNET_IDS = IdTable({**{i: i for i in range(11)}, SEGNET_VOID: VOID}, f"0 to 10 or {SEGNET_VOID} for void")
FRAME_RATE = 30.0
"""The cameras' frames per second; the numbers in frame names count them."""

CAMBRIDGE_COLOURS: dict[tuple[int, int, int], int] = {
    (128, 128, 128): 0,  # Sky
    (0, 128, 64): 1,  # Bridge
    (128, 0, 0): 1,  # Building
    (64, 192, 0): 1,  # Wall
    (64, 0, 64): 1,  # Tunnel
    (192, 0, 128): 1,  # Archway
    (192, 192, 128): 2,  # Column_Pole
    (0, 0, 64): 2,  # TrafficCone
    (128, 64, 128): 3,  # Road
    (128, 0, 192): 3,  # LaneMkgsDriv
    (192, 0, 64): 3,  # LaneMkgsNonDriv
    (0, 0, 192): 4,  # Sidewalk
    (64, 192, 128): 4,  # ParkingBlock
    (128, 128, 192): 4,  # RoadShoulder
    (128, 128, 0): 5,  # Tree
    (192, 192, 0): 5,  # VegetationMisc
    (192, 128, 128): 6,  # SignSymbol
    (128, 128, 64): 6,  # Misc_Text
    (0, 64, 64): 6,  # TrafficLight
    (64, 64, 128): 7,  # Fence
    (64, 0, 128): 8,  # Car
    (64, 128, 192): 8,  # SUVPickupTruck
    (192, 128, 192): 8,  # Truck_Bus
    (192, 64, 128): 8,  # Train
    (128, 64, 64): 8,  # OtherMoving
    (64, 64, 0): 9,  # Pedestrian
    (192, 128, 64): 9,  # Child
    (64, 0, 192): 9,  # CartLuggagePram
    (64, 128, 64): 9,  # Animal
    (0, 128, 192): 10,  # Bicyclist
    (192, 0, 192): 10,  # MotorcycleScooter
    (0, 0, 0): VOID,  # Void
}
"""The 32 colours of `LabeledApproved_full` (RGB) and the class of the SegNet split that each belongs to."""

CAMBRIDGE_LABELS = ColourTable(
    CAMBRIDGE_COLOURS, "CamVid's 32 label colours: the label may have been resized or saved as JPEG"
)

_Frame = tuple[int, Path, Path]
"""Number, image and label of a frame."""


def load_camvid(root: Path, split: str) -> FileData:
    """CamVid from disk.

    Args:
        root: a folder in the SegNet layout (`train/NAME.png` with `trainannot/NAME.png`, and so on for every
            split) or in the Cambridge one (`701_StillsRaw_full` with `LabeledApproved_full`).
        split: `train`, `val` or `test`, or in the SegNet layout any folder that is there; in the Cambridge
            layout also `all`.

    Raises:
        DataError: a folder, a label or every frame is missing; the message says what was looked for.
    """
    return scan_camvid(root, split).complete()


def scan_camvid(root: Path, split: str) -> FileData:
    """What `load_camvid` opens; what has no label or is misnamed is left out, and told of in `problems`."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give the folder that holds CamVid")
    if (root / "701_StillsRaw_full").is_dir():
        labels = root / "LabeledApproved_full"
        if not labels.is_dir():
            raise DataError(f"{labels} is missing: the colour labels of CamVid go there")
        images, suffix, read_label = root / "701_StillsRaw_full", "_L.png", CAMBRIDGE_LABELS
    else:
        images, labels = root / split, root / f"{split}annot"
        suffix, read_label = ".png", SEGNET_IDS
        if not images.is_dir() or not labels.is_dir():
            found = sorted(
                p.name for p in root.iterdir() if p.is_dir() and (root / f"{p.name}annot").is_dir()
            )
            raise DataError(
                f"{root} has no split {split!r}: expected folders {split} and {split}annot (SegNet layout) or "
                f"701_StillsRaw_full and LabeledApproved_full (Cambridge layout); splits found: {found or 'none'}"
            )
    frames: dict[str, list[_Frame]] = defaultdict(list)
    problems = []
    for image in sorted(images.glob("*.png")):
        name = re.fullmatch(r"(.+?)_f?(\d+)", image.stem)
        if name is None:
            problems.append(f"{image}: expected a CamVid name, SEQUENCE_NUMBER.png, such as 0016E5_07959.png")
            continue
        sequence, number = name[1], int(name[2])
        if suffix == "_L.png" and split not in ("all", _cambridge_split(sequence, number)):
            continue
        label = labels / f"{image.stem}{suffix}"
        if label.is_file():
            frames[sequence].append((number, image, label))
        else:
            problems.append(f"{label} is missing: the label of {image}")
    for label in sorted(labels.glob(f"*{suffix}")):
        image = images / f"{label.name.removesuffix(suffix)}.png"
        if not image.is_file():
            problems.append(f"{image} is missing: the frame of {label}")
    if not frames and not problems:
        raise DataError(f"{images} holds no frames of this split (*.png)")
    return FileData(
        f"camvid/{split}", CAMVID_CLASSES, tuple(_gap_free_runs(frames, read_label)), tuple(problems)
    )


def _cambridge_split(sequence: str, number: int) -> str:
    """The SegNet split of a frame of the Cambridge layout.

    The 701 frames divide by sequence and number: Seq05VD and the later part of 0001TP are test; of 0016E5 the
    one densely labelled clip is val; the rest is train.
    """
    if sequence == "Seq05VD" or (sequence == "0001TP" and number >= 8550):
        return "test"
    if sequence == "0016E5" and 7959 <= number <= 8159 and number % 2 == 1:
        return "val"
    return "train"


def _gap_free_runs(
    frames: dict[str, list[_Frame]], read_label: Callable[[Path], NDArray[np.uint8]]
) -> list[FileSequence]:
    runs = []
    for sequence, of_sequence in sorted(frames.items()):
        of_sequence.sort()
        for start, stop, step in _even_runs([number for number, _, _ in of_sequence]):
            run = of_sequence[start:stop]
            runs.append(
                FileSequence(
                    name=f"{sequence}-{run[0][0]:05d}",
                    frame_names=tuple(image.stem for _, image, _ in run),
                    spacing_s=step / FRAME_RATE,
                    image_paths=tuple(image for _, image, _ in run),
                    label_paths=tuple(label for _, _, label in run),
                    read_label=read_label,
                )
            )
    return runs


def _even_runs(numbers: list[int]) -> list[tuple[int, int, int]]:
    """(start, stop, step) of each longest run of evenly spaced frame numbers, which are in rising order.

    The step is the sequence's usual one, or a smaller one that occurs at least twice in a row (the densely
    labelled clip of 0016E5, which lies amid frames one second apart); any other step is a gap.
    """
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    # The smallest of the most common ones; a frame by itself has no step and gets the shortest.
    usual = max(sorted(set(steps)), key=steps.count, default=1)
    runs, start, step = [], 0, 0
    for i, now in enumerate(steps):
        even = now == usual or (now < usual and now in (steps[i - 1] if i else 0, *steps[i + 1 : i + 2]))
        if even and (i == start or now == step):
            step = now
        else:
            runs.append((start, i + 1, step if i > start else usual))
            start = i + 1
    runs.append((start, len(numbers), step if len(numbers) - start > 1 else usual))
    return runs
