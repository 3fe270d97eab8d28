"""labelme's JSON files, one an image: polygons, rectangles, circles and masks to maps of class ids.

Shapes are drawn in the order of the file, the last on top. `__ignore__` is void, `_background_` the background. Points
and lines have no area and are left out. An image without a JSON file is a frame without a label.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lmanet.classes import VOID
from lmanet.data.convert.output import (
    BACKGROUNDS,
    Conversion,
    LabelledImage,
    Unlabelled,
    all_within_1,
    class_names,
    far_outside,
    numbers,
    read_json,
    right_suffix,
    sequence_name,
)
from lmanet.data.files import image_size
from lmanet.data.folder import SUFFIXES
from lmanet.data.protocols import natural_key
from lmanet.errors import DataError, InputError

IGNORED = "__ignore__"
POLYGONS = ("polygon", "oriented_rectangle", "rotation")
"""Shapes whose points are their corners."""
POINTS = {"rectangle": (2, 4), "circle": (2,), "mask": (2,)}
"""How many points other shapes have."""
WITHOUT_AREA = ("point", "points", "line", "linestrip")


@dataclass(frozen=True)
class _File:
    """One JSON file: the image, its size (H, W), and what was drawn on it."""

    path: Path
    image: Path | bytes
    name: str
    size: tuple[int, int]
    shapes: tuple[dict[str, Any], ...]


def read_labelme(
    root: Path, *, names: Sequence[str] = (), unlabelled: Unlabelled = "background"
) -> Conversion:
    """Read a folder of labelme's JSON files and their images; each folder of images is one sequence.

    Args:
        root: the folder; files in folders below it are found too.
        names: the classes in the order of their ids; those found, sorted, if there are none.
        unlabelled: what pixels become that are in no shape.

    Raises:
        DataError: there are no such files.
        InputError: a name is given twice.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give the one with labelme's JSON files")
    if len(set(names)) < len(names):
        raise InputError(f"names {', '.join(names)}: expected different ones")
    problems: list[str] = []
    found = sorted(root.rglob("*.json"), key=lambda path: natural_key(str(path)))
    paths = [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    if not paths:
        raise DataError(f"{root} holds no JSON file: expected those of labelme, one an image")
    files = [file for path in paths if (file := _read(path, problems)) is not None]
    with_area = [s for file in files for s in file.shapes if s.get("shape_type") not in WITHOUT_AREA]
    drawn = {str(shape["label"]) for shape in with_area} - {IGNORED}
    if names:
        allowed = {*names, *BACKGROUNDS} if unlabelled == "background" else set(names)
        problems += [
            f"{root}: shapes are called {name!r}, which --names lacks" for name in sorted(drawn - allowed)
        ]
    points = [point for file in files for s in file.shapes for point in s["points"]]
    if all_within_1(x for point in points for x in point):
        problems.append(
            f"{root}: all coordinates are within 0 and 1: expected pixels: multiply them by width and height"
        )
    if problems:
        return Conversion((), (), (), problems)
    classes = class_names(list(names) or sorted(drawn, key=natural_key), unlabelled)
    ids = {name: number for number, name in enumerate(classes)} | {IGNORED: VOID}
    if unlabelled == "background":
        ids |= {name: 0 for name in drawn if name.lower() in BACKGROUNDS}
    fill = VOID if unlabelled == "void" else 0
    frames = [
        LabelledImage(_sequence(file, root), file.name, file.image, lambda file=file: _draw(file, ids, fill))
        for file in files
    ]
    others = _unlabelled(files, root)
    return Conversion(classes, (*frames, *others), tuple(_notes(files, others)), problems)


def _read(path: Path, problems: list[str]) -> _File | None:
    """A JSON file; None where something is wrong with it, which is added to `problems`."""
    before = len(problems)
    try:
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise DataError(f"{path} is none of labelme's files, which hold shapes: move it elsewhere")
        image, name, size = _image(path, content)
    except DataError as error:
        problems.append(str(error))
        return None
    for number, shape in enumerate(content["shapes"]):
        if fault := _fault(shape, size):
            problems.append(f"{path}, shape {number}: {fault}")
    return _File(path, image, name, size, tuple(content["shapes"])) if len(problems) == before else None


def _image(path: Path, content: dict[str, Any]) -> tuple[Path | bytes, str, tuple[int, int]]:
    """The image of a JSON file, its name and its size (H, W): from its path, or what the file itself holds of it."""
    given = content.get("imagePath")
    if not isinstance(given, str) or not given:
        raise DataError(f"{path}: imagePath is {given!r}: expected the image's path")
    beside = path.parent / given.replace("\\", "/")
    elsewhere = PureWindowsPath(given).is_absolute() or PurePosixPath(given).is_absolute()
    if elsewhere and not beside.is_file():  # it was labelled on another machine
        beside = path.parent / beside.name
    if beside.is_file():
        image, name, size = beside, beside.name, image_size(beside)
    elif content.get("imageData"):
        image, kind, size = _embedded(path, content["imageData"])
        name = beside.name if right_suffix(beside.name) else f"{beside.stem}.{kind}"
    else:
        raise DataError(f"{beside} is missing: the image of {path}, which holds no imageData either")
    if not right_suffix(name):
        raise DataError(f"{beside}: expected images of type {', '.join(SUFFIXES)}")
    said = (content.get("imageHeight") or size[0], content.get("imageWidth") or size[1])
    if said != size:
        raise DataError(
            f"{path}: its image's height and width are {said[0]}×{said[1]}, those of {beside} {size[0]}×{size[1]}: "
            "expected the image that was labelled"
        )
    return image, name, size


def _embedded(path: Path, text: Any) -> tuple[bytes, str, tuple[int, int]]:
    """An image in base64: its bytes, kind and size (H, W)."""
    try:
        data = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(data)) as file:
            file.load()
            kind, (width, height) = str(file.format), file.size
    except (binascii.Error, TypeError, ValueError, OSError, SyntaxError) as error:
        raise DataError(f"{path}: imageData cannot be read as an image ({error})") from error
    return data, {"JPEG": "jpg"}.get(kind, kind.lower()), (height, width)


def _fault(shape: Any, size: tuple[int, int]) -> str:
    """What is wrong with a shape, or nothing."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"]:
        return "expected a label and points"
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if not isinstance(points, list) or not all(numbers(point) and len(point) == 2 for point in points):
        return f"a {kind} whose points are no list of [x, y]"
    if kind in WITHOUT_AREA:
        return ""
    if kind not in POLYGONS and kind not in POINTS:
        return f"a shape of type {kind!r}: expected {', '.join((*POLYGONS, *POINTS, *WITHOUT_AREA))}"
    if kind in POLYGONS and len(points) < 3:
        return f"a {kind} of {len(points)} points: expected 3 at least"
    if kind in POINTS and len(points) not in POINTS[kind]:
        return f"a {kind} of {len(points)} points: expected {POINTS[kind][0]}"
    if far_outside(points, size):
        return f"a {kind} far outside of the image"
    return ""


def _draw(file: _File, ids: dict[str, int], fill: int) -> NDArray[np.uint8]:
    """The label of an image, one shape after the other."""
    canvas = Image.new("L", (file.size[1], file.size[0]), fill)
    pen = ImageDraw.Draw(canvas)
    for number, shape in enumerate(file.shapes):
        kind = shape.get("shape_type") or "polygon"
        if kind in WITHOUT_AREA:
            continue
        colour = ids[shape["label"]]
        points = [(x, y) for x, y in shape["points"]]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        if kind in POLYGONS:
            pen.polygon(points, fill=colour, outline=colour)
        elif kind == "rectangle":
            pen.rectangle((min(xs), min(ys), max(xs), max(ys)), fill=colour, outline=colour)
        elif kind == "circle":
            radius = math.dist(*points)
            pen.ellipse(
                (xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius), fill=colour, outline=colour
            )
        else:
            canvas.paste(colour, (round(min(xs)), round(min(ys))), _mask(file, number, shape))
    return np.array(canvas)


def _mask(file: _File, number: int, shape: dict[str, Any]) -> Image.Image:
    """The pixels of a mask, as an image that is white in it."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True))) as image:
            return image.convert("L").point([0] + [255] * 255)
    except (KeyError, binascii.Error, TypeError, ValueError, OSError, SyntaxError) as error:
        raise DataError(
            f"{file.path}, shape {number}: its mask cannot be read as an image ({error})"
        ) from error


def _sequence(file: _File, root: Path) -> str:
    """By the folder of the image, where that lies below the root, otherwise by that of the JSON file."""
    folder = (file.image if isinstance(file.image, Path) else file.path).resolve().parent
    if not folder.is_relative_to(root.resolve()):
        folder = file.path.resolve().parent
    return sequence_name(PurePosixPath(folder.relative_to(root.resolve()).as_posix()), root)


def _unlabelled(files: Sequence[_File], root: Path) -> tuple[LabelledImage, ...]:
    """The images beside labelled ones that have no JSON file."""
    labelled = {file.image.resolve(): file for file in files if isinstance(file.image, Path)}
    folders = {path.parent: _sequence(file, root) for path, file in labelled.items()}
    return tuple(
        LabelledImage(sequence, path.name, path, None)
        for folder, sequence in folders.items()
        for path in sorted(folder.iterdir())
        if right_suffix(path.name) and not path.name.startswith(".") and path.resolve() not in labelled
    )


def _notes(files: Sequence[_File], others: Sequence[LabelledImage]) -> list[str]:
    notes = []
    if others:
        notes.append(f"{len(others)} images have no JSON file and get no label")
    kinds = Counter(shape.get("shape_type") for file in files for shape in file.shapes)
    left_out = {kind: kinds[kind] for kind in WITHOUT_AREA if kinds[kind]}
    if left_out:
        each = ", ".join(f"{count} of type {kind}" for kind, count in left_out.items())
        notes.append(f"shapes without an area are left out: {each}")
    return notes
