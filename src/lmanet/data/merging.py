"""Which classes are merged into which, where a network is to say the classes of data that it was not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from lmanet.data.camvid import CAMVID_CLASSES
from lmanet.errors import DataError


class Merge(NamedTuple):
    """Classes made of others.

    Attributes:
        names: for each class, in order, the names of those that it is made of.
        palette: an RGB colour for each; None: that of the first one in it.
    """

    names: dict[str, tuple[str, ...]]
    palette: tuple[tuple[int, int, int], ...] | None = None


MERGES = {
    "camvid": Merge(
        {
            "sky": ("sky",),
            "building": ("building", "wall"),
            "pole": ("pole",),
            "road": ("road",),
            "pavement": ("sidewalk",),
            "tree": ("vegetation", "terrain"),
            "sign": ("traffic light", "traffic sign"),
            "fence": ("fence",),
            "car": ("car", "truck", "bus"),
            "pedestrian": ("person",),
            "bicyclist": ("rider", "motorcycle", "bicycle"),
        },
        CAMVID_CLASSES.palette,
    )
}
"""Known ones, of Cityscapes' classes."""

FORM = 'such as {"road": ["road", "sidewalk"], "vehicle": ["car", "truck", "bus"]}'


def find_merge(text: str) -> Merge:
    """A known merge by its name, or one of a JSON file.

    Args:
        text: `camvid`, or the path of a file that holds the new classes in order, each with a list of the names of the
            network's classes that it is made of.

    Raises:
        DataError: neither; or the file cannot be read or holds something else.
    """
    if text in MERGES:
        return MERGES[text]
    path = Path(text)
    if path.suffix.lower() != ".json":
        raise DataError(f"classes {text!r}: expected {', '.join(MERGES)}, or a .json file, {FORM}")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}): expected names of classes, {FORM}") from error
    if not isinstance(content, dict) or not all(
        isinstance(group, list) and all(isinstance(name, str) for name in group) for group in content.values()
    ):
        raise DataError(f"{path}: expected for each class a list of names, {FORM}")
    return Merge({name: tuple(group) for name, group in content.items()})
