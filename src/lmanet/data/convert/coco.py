"""COCO's JSON (https://cocodataset.org/#format-data): polygons and run lengths to maps of class ids.

Categories become classes in the order of their ids. Where annotations overlap, the smaller lies on top. Crowds belong
to their category. An image without annotations has no label: nobody can tell whether it was looked at.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from lmanet.classes import VOID
from lmanet.data.convert.cocoshapes import Annotation, draw, fault_of
from lmanet.data.convert.output import (
    BACKGROUNDS,
    Conversion,
    LabelledImage,
    Unlabelled,
    all_within_1,
    class_names,
    read_json,
    relative,
    right_suffix,
    sequence_name,
)
from lmanet.data.files import image_size
from lmanet.data.folder import SUFFIXES
from lmanet.errors import DataError, MissingDependencyError
from lmanet.words import listed


def read_coco(path: Path, images: Path, *, unlabelled: Unlabelled = "background") -> Conversion:
    """Read a COCO annotation file; the images of each folder in it are one sequence, in natural order of their names.

    Args:
        path: the JSON file.
        images: the folder that its `file_name`s start from.
        unlabelled: what pixels without an annotation become.

    Raises:
        DataError: the file is none of COCO's annotations, or the folder is missing.
        MissingDependencyError: pycocotools is not installed.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "COCO's annotations need pycocotools: pip install 'lmanet[coco]'"
        ) from error
    content = _content(path)
    if not images.is_dir():
        raise DataError(f"{images} is not a folder: give --images, the folder that the file_names start from")
    problems: list[str] = []
    categories = _categories(path, content["categories"])
    names = class_names(list(categories.values()), unlabelled)
    # Those that are not among them are other words for the background.
    ids = {number: names.index(name) if name in names else 0 for number, name in categories.items()}
    annotations = _by_image(content, ids, problems)
    if all_within_1(point for of_image in annotations.values() for a in of_image for point in a.coordinates):
        problems.append(
            f"{path}: all coordinates of all polygons are within 0 and 1: expected pixels: multiply them by the "
            f"images' widths and heights"
        )
    fill = VOID if unlabelled == "void" else 0
    frames: list[LabelledImage] = []
    bare = 0
    seen: set[Any] = set()
    for entry in content["images"]:
        try:
            below, image, size = _image(entry, images, seen)
        except DataError as error:
            problems.append(str(error))
            continue
        own = annotations.get(entry["id"], [])
        wrong = [fault for annotation in own if (fault := fault_of(annotation, size, image))]
        problems += wrong
        label = partial(draw, own, size, image, fill) if own and not wrong else None
        frames.append(LabelledImage(sequence_name(below.parent, images), below.name, image, label))
        bare += not own
    used = {annotation.label for of_image in annotations.values() for annotation in of_image}
    idle = [n for i, n in enumerate(names) if i not in used and n.lower() not in BACKGROUNDS]
    notes = []
    if bare:
        notes.append(f"{bare} of {len(frames)} images have no annotation and get no label")
    if idle:
        notes.append(f"no annotation is of {listed(idle)}")
    return Conversion(names, tuple(frames), tuple(notes), problems)


def _content(path: Path) -> dict[str, Any]:
    if path.is_dir() or path.suffix.lower() == ".xml":
        raise DataError(
            f"{path}: expected COCO's JSON file of annotations; from CVAT, export the task as COCO 1.0"
        )
    content = read_json(path)
    keys = set(content) if isinstance(content, dict) else set()
    other = {
        "shapes": "a file of labelme: lmanet data convert labelme FOLDER",
        "_via_img_metadata": "a project of VIA: export its annotations in COCO's format",
        "imgHeight": "polygons of Cityscapes: use its label images, by cityscapes:PATH",
    }
    for key, what in other.items():
        if key in keys:
            raise DataError(f"{path} is {what}")
    if isinstance(content, list):
        raise DataError(
            f"{path} holds a list, as COCO's files of results do: give the file of annotations, which has images, "
            "annotations and categories"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"{path} has no list of {key}: expected COCO's annotations, with images, annotations and categories"
            )
        if not all(isinstance(entry, dict) for entry in content[key]):
            raise DataError(f"{path}: {key} hold something else than objects: export it again")
    if any("segments_info" in annotation for annotation in content["annotations"]):
        raise DataError(
            f"{path} holds panoptic segmentations: give the file of instances, or make images of class ids of its PNGs"
        )
    return content


def _categories(path: Path, entries: list[dict[str, Any]]) -> dict[int, str]:
    """Names by id, in the order of the ids."""
    categories: dict[int, str] = {}
    for entry in entries:
        number, name = entry.get("id"), entry.get("name")
        if not isinstance(number, int) or not isinstance(name, str) or not name.strip():
            raise DataError(f"{path}: a category {entry}: expected an id, a whole number, and a name")
        if number in categories or name in categories.values():
            raise DataError(
                f"{path}: the category {number}, {name!r}, is there twice: give each an id and a name of its own"
            )
        categories[number] = name
    return dict(sorted(categories.items()))


def _by_image(
    content: dict[str, Any], ids: dict[int, int], problems: list[str]
) -> dict[Any, list[Annotation]]:
    """Annotations by the id of their image."""
    known = {entry.get("id") for entry in content["images"] if isinstance(entry.get("id"), int | str)}
    found: dict[Any, list[Annotation]] = {}
    for place, entry in enumerate(content["annotations"]):
        name = f"annotation {entry.get('id', f'at place {place}')}"
        image, category = entry.get("image_id"), entry.get("category_id")
        if not isinstance(image, int | str) or image not in known:
            problems.append(f"{name}: image_id {image!r} is none of the images'")
        elif not isinstance(category, int) or category not in ids:
            problems.append(f"{name}: category_id {category!r} is none of the categories'")
        else:
            found.setdefault(image, []).append(Annotation(name, ids[category], entry.get("segmentation")))
    return found


def _image(
    entry: dict[str, Any], images: Path, seen: set[Any]
) -> tuple[PurePosixPath, Path, tuple[int, int]]:
    """An image's path below the folder, its path, and its size (H, W); its id and path are added to `seen`."""
    number, name = entry.get("id"), entry.get("file_name")
    if not isinstance(number, int | str) or not isinstance(name, str):
        raise DataError(f"an image of id {number!r} and file_name {name!r}: expected both")
    below = relative(name)
    if below is None:
        raise DataError(f"image {number}: file_name {name!r}: expected a path below {images}")
    if number in seen or below in seen:
        raise DataError(f"image {number}, {name}: its id or file_name is there twice: remove one")
    seen |= {number, below}
    path = images / below
    if not path.is_file():
        there = (images / below.name).is_file()
        hint = f": {images / below.name} is there: file_name and --images do not fit" if there else ""
        raise DataError(f"{path} is missing: image {number}{hint}")
    if not right_suffix(below.name):
        raise DataError(f"{path}: expected images of type {', '.join(SUFFIXES)}")
    size = image_size(path)
    height, width = entry.get("height"), entry.get("width")
    said = (size[0] if height is None else height, size[1] if width is None else width)
    if said != size:
        raise DataError(
            f"{path}: height and width are {size[0]}×{size[1]}, those in the annotations {said[0]}×{said[1]}: expected "
            "the images that were annotated"
        )
    return below, path, size
