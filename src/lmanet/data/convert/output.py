"""What a conversion makes: frames and labels of a folder of labelled videos, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmanet.atomic import output_errors, whole_folder
from lmanet.classes import MOST_CLASSES, VOID
from lmanet.data.folder import SUFFIXES
from lmanet.data.protocols import natural_key
from lmanet.errors import DataError, InputError

Unlabelled = Literal["background", "void"]
"""What pixels become that nobody labelled: a class of their own, the first, or void."""

BACKGROUNDS = ("background", "_background_")
"""Names of classes that are that class already."""


class ConversionError(DataError):
    """What is to be converted is wrong in several places.

    Attributes:
        problems: one sentence each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        super().__init__(f"{problems[0]}{more}")


@dataclass(frozen=True)
class LabelledImage:
    """A frame to be written.

    Attributes:
        sequence: the name of its sequence.
        name: of its file.
        image: the file, or its contents.
        draw: makes its label, (H, W) uint8 class ids, void 255; None where it has none.
    """

    sequence: str
    name: str
    image: Path | bytes
    draw: Callable[[], NDArray[np.uint8]] | None


@dataclass(frozen=True)
class Conversion:
    """What was read, to be written by `write_folder`.

    Attributes:
        names: of the classes, in the order of their ids.
        images: the frames, in any order.
        notes: what is to be known and is not wrong, a sentence each.
        problems: what is wrong, a sentence each.
    """

    names: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    notes: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)


def write_folder(
    conversion: Conversion,
    out: Path,
    *,
    fps: float,
    split: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a folder of labelled videos; images are hard links where the disk allows it, copies otherwise.

    Args:
        conversion: what was read.
        out: the folder, which is not there yet or empty.
        fps: frames per second, for `classes.json`.
        split: write the names of all sequences into `SPLIT.txt`.
        progress: told after every frame how many are done, and of how many.

    Raises:
        ConversionError: something is wrong; nothing is written then.
        InputError: the folder is there already, or `fps` is not above 0.
        OutputError: it cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already: give a folder that is not, or an empty one")
    if not 0 < fps < math.inf:
        raise InputError(f"fps {fps:g}: expected the frames per second, above 0")
    problems = list(conversion.problems) + _collisions(conversion.images)
    if not conversion.images and not problems:
        raise DataError("no image is there to be converted")
    with whole_folder(out) as part:
        for done, frame in enumerate(conversion.images):
            try:
                label = None if frame.draw is None or problems else frame.draw()
            except DataError as error:
                problems.append(str(error))
                continue
            if not problems:
                with output_errors(out):
                    _write(part, frame, label)
            progress(done + 1, len(conversion.images))
        if problems:
            raise ConversionError(problems)
        with output_errors(out):
            content = json.dumps({"names": conversion.names, "fps": fps}, ensure_ascii=False, indent=1)
            (part / "classes.json").write_text(f"{content}\n", encoding="utf-8")
            if split is not None:
                names = sorted({frame.sequence for frame in conversion.images}, key=natural_key)
                (part / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _collisions(images: Sequence[LabelledImage]) -> list[str]:
    seen: dict[tuple[str, str], LabelledImage] = {}
    problems = []
    for frame in images:
        other = seen.setdefault((frame.sequence, Path(frame.name).stem), frame)
        if other is not frame:
            problems.append(
                f"{frame.name} and {other.name} of {frame.sequence} are the same frame: remove or rename one"
            )
    return problems


def _write(part: Path, frame: LabelledImage, label: NDArray[np.uint8] | None) -> None:
    target = part / "images" / frame.sequence / frame.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(frame.image, bytes):
        target.write_bytes(frame.image)
    else:
        try:
            os.link(frame.image.resolve(), target)
        except OSError:  # another disk, or one without links
            shutil.copyfile(frame.image, target)
    if label is not None:
        path = (part / "labels" / frame.sequence / frame.name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(path)


def class_names(found: Sequence[str], unlabelled: Unlabelled) -> tuple[str, ...]:
    """The names of the classes: those found, the background first unless what nobody labelled is void.

    Raises:
        DataError: there are none, or more than ids can say.
    """
    background = next((name for name in found if name.lower() in BACKGROUNDS), None)
    if unlabelled == "background":
        first = "background" if background in (None, "_background_") else background
        names = (first, *(name for name in found if name.lower() not in BACKGROUNDS))
    else:
        names = tuple(found)
    if not 1 <= len(names) <= MOST_CLASSES:
        raise DataError(
            f"{len(names)} classes: expected 1 to {MOST_CLASSES}, as ids go up to {VOID - 1} and {VOID} is void"
        )
    return names


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): export it again") from error


def relative(name: str) -> PurePosixPath | None:
    """A file's name in a tool's export as a path below a folder; None where it leads out of it."""
    path = PurePosixPath(name.replace("\\", "/"))
    return None if path.is_absolute() or ".." in path.parts or not path.name else path


def sequence_name(folder: PurePosixPath, root: Path) -> str:
    """The name of the sequence of the images of a folder below `root`."""
    return "-".join(folder.parts) or root.resolve().name or "sequence"


def right_suffix(name: str) -> bool:
    """Whether a folder of labelled videos takes images of this name."""
    return Path(name).suffix.lower() in SUFFIXES


def numbers(values: Any) -> bool:
    """Whether these are finite numbers in a list."""
    return isinstance(values, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values
    )


def all_within_1(coordinates: Iterable[float]) -> bool:
    """Whether there are some, and all are shares of a width or a height, no pixels."""
    found = [0 <= x <= 1 for x in coordinates]
    return bool(found) and all(found)


def far_outside(points: Sequence[Sequence[float]], size: tuple[int, int]) -> bool:
    """Whether a point (x, y) lies further outside an image (H, W) than the image is large: no slip of a hand."""
    height, width = size
    return any(not (-width <= x <= 2 * width and -height <= y <= 2 * height) for x, y in points)
