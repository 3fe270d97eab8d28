"""VSPW (Miao et al., CVPR 2021): videos of all kinds of scenes, 124 classes, every frame labelled.

Layout, classes and ids: https://github.com/VSPW-dataset/VSPW-dataset-download (`README.md`; frames are extracted at
15 a second and numbered one after the other) and `label_num_dic_final.json`, which comes with the data.
"""

from __future__ import annotations

from pathlib import Path

from lmanet.classes import VOID, Classes, generated_palette
from lmanet.data.files import FileData, FileSequence, consecutive
from lmanet.data.labels import IdTable
from lmanet.errors import DataError

_NAMES = """
wall ceiling door stair ladder escalator Playground_slide handrail_or_fence window rail goal pillar pole floor
ground grass sand athletic_field road path crosswalk building house bridge tower windmill well_or_well_lid
other_construction sky mountain stone wood ice snowfield grandstand sea river lake waterfall water
billboard_or_Bulletin_Board sculpture pipeline flag parasol_or_umbrella cushion_or_carpet tent roadblock car bus
truck bicycle motorcycle wheeled_machine ship_or_boat raft airplane tyre traffic_light lamp person cat dog horse
cattle other_animal tree flower other_plant toy ball_net backboard skateboard bat ball
cupboard_or_showcase_or_storage_rack box traveling_case_or_trolley_case basket bag_or_package trash_can cage plate
tub_or_bowl_or_pot bottle_or_cup barrel fishbowl bed pillow table_or_desk chair_or_seat bench sofa shelf bathtub
gun commode roaster other_machine refrigerator washing_machine Microwave_oven fan curtain textiles clothes
painting_or_poster mirror flower_pot_or_vase clock book tool blackboard tissue screen_or_television computer
printer Mobile_phone keyboard other_electronic_product fruit food instrument train
"""

VSPW_CLASSES = Classes(tuple(_NAMES.split()), generated_palette(124))
"""The 124 classes, in the order of the files' ids from 1 on. The data set has no colours; these are PASCAL VOC's."""

FRAME_RATE = 15.0
"""Frames per second, after the numbers in their names."""

_IDS = IdTable(
    {0: VOID, VOID: VOID, **{i + 1: i for i in range(124)}},
    "1 to 124 for a class, 0 (others) or 255 for void",
)


def load_vspw(root: Path, split: str) -> FileData:
    """VSPW, or VSPW_480p, from disk: a sequence for each video, split where frames are missing.

    Args:
        root: the folder that holds `data/VIDEO/origin/*.jpg`, `data/VIDEO/mask/*.png` and `SPLIT.txt`, which names
            the videos of the split.
        split: `train`, `val` or `test`; videos of the last have no masks.

    Raises:
        DataError: a folder or a file is missing or misnamed; the message names it.
    """
    return scan_vspw(root, split).complete()


def scan_vspw(root: Path, split: str) -> FileData:
    """What `load_vspw` opens; what misses a file is left out and told of in `problems`."""
    root = Path(root)
    listed = root / f"{split}.txt"
    if not listed.is_file():
        found = sorted(path.stem for path in root.glob("*.txt"))
        raise DataError(
            f"{listed} is missing: the names of the videos of {split!r}, one a line; splits found: {found or 'none'}"
        )
    problems: list[str] = []
    sequences = []
    for video in dict.fromkeys(listed.read_text().split()):
        folder = root / "data" / video
        if not (folder / "origin").is_dir():
            problems.append(f"{folder / 'origin'} is missing: the frames of a video that {listed} names")
            continue
        sequences += _sequences(folder, split != "test", problems)
    if not sequences and not problems:
        raise DataError(f"{listed} names no video")
    return FileData(f"vspw/{split}", VSPW_CLASSES, tuple(sequences), tuple(problems))


def _sequences(video: Path, labelled: bool, problems: list[str]) -> list[FileSequence]:
    images = _by_number(video / "origin", ".jpg", problems)
    masks = _by_number(video / "mask", ".png", problems)
    if not images:
        problems.append(f"{video / 'origin'} holds no frames (*.jpg)")
    problems += [
        f"{video / 'origin' / path.stem}.jpg is missing: the frame of {path}"
        for number, path in masks.items()
        if number not in images
    ]
    if labelled:
        problems += [
            f"{video / 'mask' / path.stem}.png is missing: the label of {path}"
            for number, path in images.items()
            if number not in masks
        ]
    numbers = sorted(images)
    runs = consecutive(numbers)
    return [
        FileSequence(
            name=video.name if len(runs) == 1 else f"{video.name}-{images[numbers[start]].stem}",
            frame_names=tuple(images[i].stem for i in numbers[start:stop]),
            spacing_s=1 / FRAME_RATE,
            image_paths=tuple(images[i] for i in numbers[start:stop]),
            label_paths=tuple(masks.get(i) for i in numbers[start:stop]),
            read_label=_IDS,
        )
        for start, stop in runs
    ]


def _by_number(folder: Path, suffix: str, problems: list[str]) -> dict[int, Path]:
    files = {}
    for path in sorted(folder.glob(f"*{suffix}")):
        if path.stem.isdecimal():
            files[int(path.stem)] = path
        else:
            problems.append(f"{path}: expected the frame's number, such as 00000001{suffix}")
    return files
