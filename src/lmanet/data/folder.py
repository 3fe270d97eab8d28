"""Anyone's labelled videos: folders of frames, folders of labels, and a file that says what the labels mean.

    ROOT/classes.json           {"names": ["road", "car"], "fps": 30}
    ROOT/images/SEQUENCE/*.png  or *.jpg: the frames, in natural order of their names (f2 before f10)
    ROOT/labels/SEQUENCE/*.png  class ids, under the name of their frame; not every frame needs one
    ROOT/SPLIT.txt              the names of the split's sequences, one a line

In `classes.json`, `names` are the classes in the order of their ids from 0 on and `fps` the frames per second. Optional
are `colours`, one [red, green, blue] per class, each 0 to 255, and `void`, the values in the labels that belong to no
class ([255] if not given). The split `all`, which needs no file, is every sequence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmanet.classes import VOID, Classes, generated_palette
from lmanet.data.files import UNKNOWN, FileData, FileSequence, IdTable
from lmanet.data.protocols import natural_key
from lmanet.errors import DataError
from lmanet.imagefile import IMAGE_SUFFIXES

SUFFIXES = IMAGE_SUFFIXES


def load_folder(root: Path, split: str) -> FileData:
    """A folder of labelled videos, laid out as this module says.

    Each folder of frames is one sequence and must have no gaps: a memory reaches across all of it.

    Args:
        root: the folder that holds `classes.json`, `images` and `labels`.
        split: `all`, or a name for which there is a `SPLIT.txt`.

    Raises:
        DataError: a folder or a file is missing, misnamed or malformed; the message names it.
    """
    return scan_folder(root, split).complete()


def scan_folder(root: Path, split: str) -> FileData:
    """What `load_folder` opens; what cannot be used is left out and told of in `problems`."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give the one that holds classes.json, images and labels")
    classes, void, fps = _read_classes(root / "classes.json")
    expected = f"a class id, 0 to {len(classes) - 1}, or void, {sorted(void)} (see {root / 'classes.json'})"
    read_label = IdTable.of({**{i: i for i in range(len(classes))}, **dict.fromkeys(void, VOID)}, expected)
    problems: list[str] = []
    sequences = []
    for name in _sequence_names(root, split, problems):
        images = _by_stem(root / "images" / name, SUFFIXES, problems)
        labels = _by_stem(root / "labels" / name, (".png",), problems)
        problems += [
            f"{root / 'images' / name / stem}.png or .jpg is missing: the frame of {path}"
            for stem, path in labels.items()
            if stem not in images
        ]
        if not images:
            problems.append(f"{root / 'images' / name} holds no frames (*.png or *.jpg)")
            continue
        stems = sorted(images, key=natural_key)
        sequences.append(
            FileSequence(
                name=name,
                frame_names=tuple(stems),
                spacing_s=1 / fps,
                image_paths=tuple(images[stem] for stem in stems),
                label_paths=tuple(labels.get(stem) for stem in stems),
                read_label=read_label,
            )
        )
    return FileData(f"{root.resolve().name}/{split}", classes, tuple(sequences), tuple(problems))


def _read_classes(path: Path) -> tuple[Classes, set[int], float]:
    """Classes, void values and frames per second."""
    form = '{"names": ["road", "car"], "fps": 30}, and if need be "colours": [[128, 64, 128], …] and "void": [255]'
    try:
        content: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): expected {form}") from error
    if not isinstance(content, dict) or not {"names", "fps"} <= set(content) <= {
        "names",
        "fps",
        "colours",
        "void",
    }:
        raise DataError(f"{path}: expected {form}")
    names, fps, void = content["names"], content["fps"], content.get("void", [VOID])
    if not _list_of(names, str) or not 1 <= len(names) <= UNKNOWN or len(set(names)) < len(names):
        raise DataError(f"{path}: names are {names!r}: expected 1 to {UNKNOWN} different ones")
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps < float("inf"):
        raise DataError(f"{path}: fps is {fps!r}: expected the frames per second, above 0")
    if not _list_of(void, int) or not all(len(names) <= value <= 255 for value in void):
        raise DataError(
            f"{path}: void is {void!r}: expected values from {len(names)}, after the classes, to 255"
        )
    colours = content.get("colours", [list(colour) for colour in generated_palette(len(names))])
    if not isinstance(colours, list) or len(colours) != len(names) or not all(map(_is_colour, colours)):
        raise DataError(
            f"{path}: colours are {colours!r}: expected [red, green, blue], 0 to 255, for each name"
        )
    return Classes(tuple(names), tuple((r, g, b) for r, g, b in colours)), set(void), float(fps)


def _is_colour(value: Any) -> bool:
    return _list_of(value, int) and len(value) == 3 and 0 <= min(value) <= max(value) <= 255


def _list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(x, kind) and not isinstance(x, bool) for x in value)


def _sequence_names(root: Path, split: str, problems: list[str]) -> list[str]:
    images = root / "images"
    if not images.is_dir():
        raise DataError(f"{images} is missing: expected a folder of frames for each sequence in it")
    entries = [path for path in sorted(images.iterdir()) if not path.name.startswith(".")]
    problems += [
        f"{path}: expected folders of frames, one for each sequence" for path in entries if path.is_file()
    ]
    found = [path.name for path in entries if path.is_dir()]
    labels = root / "labels"
    problems += [
        f"{images / path.name} is missing: the frames of {path}"
        for path in (sorted(labels.iterdir()) if labels.is_dir() else [])
        if path.is_dir() and path.name not in found
    ]
    if split == "all":
        wanted, named_by = found, images
    else:
        named_by = root / f"{split}.txt"
        if not named_by.is_file():
            raise DataError(
                f"{named_by} is missing: write the names of the sequences of {split!r} into it, one a line, or ask for "
                f"the split all; sequences found: {', '.join(found) or 'none'}"
            )
        wanted = list(
            dict.fromkeys(line.strip() for line in named_by.read_text().splitlines() if line.strip())
        )
    if not wanted:
        raise DataError(f"{named_by} holds no sequence: expected at least one")
    problems += [
        f"{images / name} is missing: the frames of a sequence that {named_by} names"
        for name in wanted
        if name not in found
    ]
    return [name for name in wanted if name in found]


def _by_stem(folder: Path, suffixes: tuple[str, ...], problems: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in suffixes:
            problems.append(f"{path}: expected files of type {', '.join(suffixes)}")
        elif path.stem in files:
            problems.append(f"{path} and {files[path.stem].name} are the same frame: remove one")
        else:
            files[path.stem] = path
    return files
