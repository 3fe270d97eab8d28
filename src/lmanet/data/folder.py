"""Anyone's labelled videos: folders of frames, folders of labels, and a file that says what the labels mean.

    ROOT/classes.json           {"names": ["road", "car"], "fps": 30}
    ROOT/images/SEQUENCE/*.png  or *.jpg: the frames, in natural order of their names (f2 before f10)
    ROOT/labels/SEQUENCE/*.png  or .bmp, .tif: class ids, under the name of their frame; not every frame needs one
    ROOT/SPLIT.txt              the names of the split's sequences, one a line

In `classes.json`, `names` are the classes in the order of their ids from 0 on and `fps` the frames per second; what
else it may say, for labels of other values or of colours, is in `lmanet.data.classesfile`. The split `all`, which needs
no file, is every sequence.
"""

from __future__ import annotations

from pathlib import Path

from lmanet.data.classesfile import read_classes
from lmanet.data.files import FileData, FileSequence
from lmanet.data.protocols import natural_key
from lmanet.errors import DataError
from lmanet.imagefile import IMAGE_SUFFIXES

SUFFIXES = IMAGE_SUFFIXES
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
OTHER_LABELS = {
    ".jpg": "JPEG changes the values of labels: save them as PNG, from what they were made of",
    ".jpeg": "JPEG changes the values of labels: save them as PNG, from what they were made of",
    ".webp": "WebP may change the values of labels: save them as PNG, from what they were made of",
    ".npy": "an array: save it as PNG, by PIL.Image.fromarray(array.astype('uint8')).save(…)",
    ".npz": "arrays: save each as PNG, by PIL.Image.fromarray(array.astype('uint8')).save(…)",
    ".json": "polygons: make label images of COCO's and labelme's by lmanet data convert",
    ".xml": "polygons or boxes: export label images, or COCO's JSON for lmanet data convert",
    ".txt": "polygons or boxes: export label images, or COCO's JSON for lmanet data convert",
}
"""What to do about label files of kinds that hold no values or change them."""


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
    meaning = read_classes(root / "classes.json")
    problems: list[str] = []
    sequences = []
    for name in _sequence_names(root, split, problems):
        images = _by_stem(root / "images" / name, SUFFIXES, problems)
        labels = _by_stem(root / "labels" / name, LABEL_SUFFIXES, problems)
        problems += [
            f"{root / 'images' / name / stem}.png or .jpg is missing: the frame of {path}{_renaming(stem, images)}"
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
                spacing_s=1 / meaning.fps,
                image_paths=tuple(images[stem] for stem in stems),
                label_paths=tuple(labels.get(stem) for stem in stems),
                read_label=meaning.read_label,
            )
        )
    return FileData(
        f"{root.resolve().name}/{split}", meaning.classes, tuple(sequences), tuple(problems), meaning.doubt
    )


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
        f"{path}: expected folders of labels, one for each sequence, as for the frames"
        for path in (sorted(labels.iterdir()) if labels.is_dir() else [])
        if path.is_file() and not path.name.startswith(".")
    ]
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
        loose = "; put the frames that lie in it into a folder" if split == "all" and entries else ""
        raise DataError(f"{named_by} holds no sequence: expected at least one{loose}")
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
            why = OTHER_LABELS.get(path.suffix.lower()) if suffixes is LABEL_SUFFIXES else None
            problems.append(
                f"{path}: expected files of type {', '.join(suffixes)}{f' ({why})' if why else ''}"
            )
        elif path.stem in files:
            problems.append(f"{path} and {files[path.stem].name} are the same frame: remove one")
        else:
            files[path.stem] = path
    return files


def _renaming(stem: str, images: dict[str, Path]) -> str:
    """What to say of a label whose name is a frame's with something behind it, such as `f1_mask` or `f1.jpg`."""
    frames = [frame for frame in images if stem.startswith(frame) and not stem[len(frame)].isalnum()]
    if not frames:
        return ""
    frame = max(frames, key=len)
    return f"; a label has its frame's name: if it is that of {images[frame].name}, call it {frame}.png"
