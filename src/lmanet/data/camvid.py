"""CamVid (Brostow et al., 2009), 11 classes, in the SegNet layout and in the Cambridge one."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lmanet.data.base import VOID, Classes, Sequence
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


@dataclass(frozen=True)
class CamVidSequence:
    """A gap-free run of CamVid frames; keeps the `Sequence` protocol.

    Attributes:
        name: sequence and number of the first frame, such as `0016E5-07959`.
        frame_names: file stems in time order.
        spacing_s: seconds between neighbouring frames.
        image_paths: one image file per frame.
        label_paths: one label file per frame.
        colour_labels: the label files hold the Cambridge colours, not class ids.
    """

    name: str
    frame_names: tuple[str, ...]
    spacing_s: float
    image_paths: tuple[Path, ...]
    label_paths: tuple[Path, ...]
    colour_labels: bool

    @property
    def stamp(self) -> str:
        """Changes whenever one of the files does: sizes and times of change, without reading the files."""
        stats = [path.stat() for path in (*self.image_paths, *self.label_paths)]
        return hashlib.sha256(repr([(s.st_size, s.st_mtime_ns) for s in stats]).encode()).hexdigest()

    def image(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` as (H, W, 3) uint8 RGB."""
        return cv2.cvtColor(_read(self.image_paths[index], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)  # pyright: ignore[reportReturnType]

    def label(self, index: int) -> NDArray[np.uint8]:
        """Class ids of frame `index` as (H, W) uint8, void 255.

        Raises:
            DataError: a label is neither a class id nor void; the message names the file and the value.
        """
        path = self.label_paths[index]
        if self.colour_labels:
            return _ids_from_colours(cv2.cvtColor(_read(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), path)  # pyright: ignore[reportArgumentType]
        label = _read(path, cv2.IMREAD_GRAYSCALE)
        worst = int(label.max())
        if worst > SEGNET_VOID:
            raise DataError(f"{path}: label {worst} found, expected 0 to 10 or {SEGNET_VOID} for void")
        return np.where(label == SEGNET_VOID, np.uint8(VOID), label)


@dataclass(frozen=True)
class CamVid:
    """One split of CamVid; keeps the `VideoData` protocol.

    Attributes:
        name: `camvid/SPLIT`.
        classes: the 11 classes.
        sequences: the gap-free runs of frames, in order of name.
    """

    name: str
    classes: Classes
    sequences: tuple[Sequence, ...]


def load_camvid(root: Path, split: str) -> CamVid:
    """CamVid from disk.

    Args:
        root: a folder in the SegNet layout (`train/NAME.png` with `trainannot/NAME.png`, and so on for every
            split) or in the Cambridge one (`701_StillsRaw_full` with `LabeledApproved_full`).
        split: `train`, `val` or `test`, or in the SegNet layout any folder that is there; in the Cambridge
            layout also `all`.

    Raises:
        DataError: a folder, a label or every frame is missing; the message says what was looked for.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give the folder that holds CamVid")
    if (root / "701_StillsRaw_full").is_dir():
        pairs = _cambridge_pairs(root, split)
        colours = True
    else:
        pairs = _segnet_pairs(root, split)
        colours = False
    return CamVid(f"camvid/{split}", CAMVID_CLASSES, tuple(_gap_free_runs(pairs, colours)))


def _segnet_pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    images, labels = root / split, root / f"{split}annot"
    if not images.is_dir() or not labels.is_dir():
        found = sorted(p.name for p in root.iterdir() if p.is_dir() and (root / f"{p.name}annot").is_dir())
        raise DataError(
            f"{root} has no split {split!r}: expected folders {split} and {split}annot (SegNet layout) or "
            f"701_StillsRaw_full and LabeledApproved_full (Cambridge layout); splits found: {found or 'none'}"
        )
    return _pair(sorted(images.glob("*.png")), lambda image: labels / image.name, images)


def _cambridge_pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    images, labels = root / "701_StillsRaw_full", root / "LabeledApproved_full"
    if not labels.is_dir():
        raise DataError(f"{labels} is missing: the colour labels of CamVid go there")
    paths = [p for p in sorted(images.glob("*.png")) if split in ("all", _cambridge_split(p.stem))]
    return _pair(paths, lambda image: labels / f"{image.stem}_L.png", images)


def _cambridge_split(stem: str) -> str:
    """The SegNet split of a frame of the Cambridge layout.

    The 701 frames divide by sequence and number: Seq05VD and the later part of 0001TP are test; of 0016E5 the
    one densely labelled clip is val; the rest is train.
    """
    sequence, number = _parse_name(stem)
    if sequence == "Seq05VD" or (sequence == "0001TP" and number >= 8550):
        return "test"
    if sequence == "0016E5" and 7959 <= number <= 8159 and number % 2 == 1:
        return "val"
    return "train"


def _pair(images: list[Path], label_of, folder: Path) -> list[tuple[Path, Path]]:
    if not images:
        raise DataError(f"{folder} holds no frames of this split (*.png)")
    pairs = [(image, label_of(image)) for image in images]
    missing = [label for _, label in pairs if not label.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(pairs)} frames have no label, the first missing is {missing[0]}"
        )
    return pairs


def _gap_free_runs(pairs: list[tuple[Path, Path]], colours: bool) -> list[CamVidSequence]:
    by_sequence: dict[str, list[tuple[int, Path, Path]]] = defaultdict(list)
    for image, label in pairs:
        sequence, number = _parse_name(image.stem)
        by_sequence[sequence].append((number, image, label))
    runs = []
    for sequence, frames in sorted(by_sequence.items()):
        frames.sort()
        for start, stop, step in _even_runs([number for number, _, _ in frames]):
            run = frames[start:stop]
            runs.append(
                CamVidSequence(
                    name=f"{sequence}-{run[0][0]:05d}",
                    frame_names=tuple(image.stem for _, image, _ in run),
                    spacing_s=step / FRAME_RATE,
                    image_paths=tuple(image for _, image, _ in run),
                    label_paths=tuple(label for _, _, label in run),
                    colour_labels=colours,
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


def _parse_name(stem: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+?)_f?(\d+)", stem)
    if match is None:
        raise DataError(f"{stem}: expected a CamVid frame name, SEQUENCE_NUMBER, such as 0016E5_07959")
    return match[1], int(match[2])


def _read(path: Path, flags: int) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), flags)
    if image is None:
        raise DataError(f"{path} cannot be read as an image: download it again")
    return image  # pyright: ignore[reportReturnType]


def _ids_from_colours(colours: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB label colours to (H, W) uint8 class ids."""
    packed = (colours.astype(np.uint32) * np.array([65536, 256, 1], np.uint32)).sum(-1, dtype=np.uint32)
    known = np.array([r << 16 | g << 8 | b for r, g, b in CAMBRIDGE_COLOURS], np.uint32)
    order = np.argsort(known)
    place = np.searchsorted(known[order], packed).clip(max=len(known) - 1)
    hit = known[order][place] == packed
    if not hit.all():
        row, column = np.argwhere(~hit)[0]
        raise DataError(
            f"{path}: colour {tuple(int(c) for c in colours[row, column])} at row {row}, column {column} is none "
            f"of CamVid's 32 label colours: the label may have been resized or saved as JPEG"
        )
    return np.array(list(CAMBRIDGE_COLOURS.values()), np.uint8)[order][place]
