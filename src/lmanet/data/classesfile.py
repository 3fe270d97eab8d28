"""`classes.json` of a folder of labelled videos: classes, frames per second, and what the label files mean.

| key | what | if not given |
| --- | --- | --- |
| `names` | the classes, in the order of their ids | needed |
| `fps` | frames per second | needed |
| `first_id` | the value of the first class in the label files; the others follow | 0 |
| `values` | in place of it, each class's value in the label files, or a list of its values | |
| `void` | a value, or a list of them, that belongs to no class | 255, if no class has it |
| `colours` | one [red, green, blue] per class, 0 to 255: what it is drawn in | generated |
| `labels` | `"colours"`: the label files hold these colours, no ids; `void` is then a colour or a list | `"ids"` |

Values go up to 65535: label files may have 16 bits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lmanet.classes import MOST_CLASSES, VOID, Classes, generated_palette
from lmanet.data.advice import advice_on_colours, advice_on_ids, doubt_of_masks
from lmanet.data.labelfile import RGB
from lmanet.data.labels import LARGEST_VALUE, ColourTable, IdTable
from lmanet.errors import DataError
from lmanet.words import listed

FORM = (
    '{"names": ["road", "car"], "fps": 30}, and if need be "void": 255, "first_id": 1 or "values": [0, 255], '
    '"colours": [[128, 64, 128], …], "labels": "colours"'
)
KEYS = ("names", "fps", "first_id", "values", "void", "colours", "labels")


@dataclass(frozen=True)
class ClassesFile:
    """What a `classes.json` says.

    Attributes:
        classes: names and colours.
        fps: frames per second.
        read_label: label file to class ids.
        doubt: what to tell where labels hold nothing but class 0 and void; nothing if void is named.
    """

    classes: Classes
    fps: float
    read_label: IdTable | ColourTable
    doubt: str


def read_classes(path: Path) -> ClassesFile:
    """Read a `classes.json`.

    Raises:
        DataError: it is missing or malformed; the message says where, and what was expected.
    """
    content = _content(path)
    names, fps = content["names"], content["fps"]
    if not _list_of(names, str) or not names or not all(name.strip() for name in names):
        raise DataError(
            f"{path}: names are {names!r}: expected a list of 1 to {MOST_CLASSES} different ones in the order of their "
            'ids, such as ["road", "car"]'
        )
    if len(names) > MOST_CLASSES:
        raise DataError(
            f"{path}: names are {len(names)}: expected 1 to {MOST_CLASSES} different ones, as ids go up to {VOID - 1} "
            f"and {VOID} is void; merge classes if there are more"
        )
    if twice := _twice(names):
        raise DataError(f"{path}: names hold {twice!r} twice: expected 1 to {MOST_CLASSES} different ones")
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps < float("inf"):
        raise DataError(f"{path}: fps is {fps!r}: expected the frames per second, above 0")
    colours = content.get("colours", [list(colour) for colour in generated_palette(len(names))])
    if not isinstance(colours, list) or len(colours) != len(names) or not all(map(_is_colour, colours)):
        raise DataError(
            f"{path}: colours are {colours!r}: expected [red, green, blue], 0 to 255, for each name"
        )
    classes = Classes(tuple(names), tuple((r, g, b) for r, g, b in colours))
    kind = content.get("labels", "ids")
    if kind == "colours":
        return ClassesFile(classes, float(fps), _colour_table(path, content, classes), "")
    if kind != "ids":
        raise DataError(f'{path}: labels is {kind!r}: expected "ids" or "colours"')
    table = _id_table(path, content, classes)
    doubtful = table.assumed and table.ids.get(0) == 0
    return ClassesFile(classes, float(fps), table, doubt_of_masks(path, classes) if doubtful else "")


def _content(path: Path) -> dict[str, Any]:
    """The file's keys and values."""

    def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := _twice([key for key, _ in pairs]):
            raise ValueError(f"the key {twice!r} is there twice")
        return dict(pairs)

    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=without_repetition)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}): expected {FORM}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected {FORM}")
    if unknown := [key for key in content if key not in KEYS]:
        raise DataError(f"{path}: unknown key {unknown[0]!r}: known are {', '.join(KEYS)}: expected {FORM}")
    if missing := [key for key in ("names", "fps") if key not in content]:
        raise DataError(f"{path}: {' and '.join(missing)} missing: expected {FORM}")
    return content


def _id_table(path: Path, content: dict[str, Any], classes: Classes) -> IdTable:
    values = _class_values(path, content, len(classes))
    ids = {value: number for number, of_class in enumerate(values) for value in of_class}
    assumed = frozenset({VOID} - ids.keys() if "void" not in content else ())
    void = assumed or _void_values(path, content.get("void", []), ids, classes)
    if "values" in content:
        words = f"a value of a class ({listed(sorted(ids), 8)})"
    else:
        words = f"a class id, {values[0][0]} to {values[-1][0]}"
    expected = f"{words}, or void, {sorted(void)} (see {path})" if void else f"{words} (see {path})"
    colours: dict[RGB, int] = {}
    if "colours" in content and "labels" not in content and not _twice(classes.palette):
        colours = {colour: number for number, colour in enumerate(classes.palette)}
    plain = classes.names if "values" not in content and "first_id" not in content else ()
    advise = partial(advice_on_ids, count=len(classes), void=void, plain=plain)
    return IdTable(ids | dict.fromkeys(void, VOID), expected, assumed, colours, advise)


def _class_values(path: Path, content: dict[str, Any], count: int) -> list[list[int]]:
    """Each class's values in label files."""
    if "values" not in content:
        first = content.get("first_id", 0)
        if not _is_value(first) or first + count - 1 > LARGEST_VALUE:
            raise DataError(
                f"{path}: first_id is {first!r}: expected the value of the first class, 0 or more, such as 1"
            )
        return [[first + i] for i in range(count)]
    if "first_id" in content:
        raise DataError(f"{path}: first_id and values say the same thing in two ways: leave one of them out")
    given = content["values"]
    values = [x if isinstance(x, list) else [x] for x in given] if isinstance(given, list) else []
    if len(values) != count or not all(x and all(map(_is_value, x)) for x in values):
        raise DataError(
            f"{path}: values are {given!r}: expected one for each of the {count} names, 0 to {LARGEST_VALUE} as in the "
            "label files, such as [0, 255], or a list of them where a class has several"
        )
    if (twice := _twice([value for x in values for value in x])) is not None:
        raise DataError(f"{path}: values hold {twice} twice: expected every value once")
    return values


def _void_values(path: Path, given: Any, ids: dict[int, int], classes: Classes) -> frozenset[int]:
    void = given if isinstance(given, list) else [given]
    if not all(map(_is_value, void)):
        raise DataError(
            f"{path}: void is {given!r}: expected a value in the label files, 0 to {LARGEST_VALUE}, or a list of them"
        )
    for value in void:
        if value in ids:
            raise DataError(
                f"{path}: void is {given!r}, but {value} is also the value of the class {classes.names[ids[value]]!r}: "
                'if the classes count from 1, add "first_id": 1; otherwise say by "values" which value each has'
            )
    return frozenset(void)


def _colour_table(path: Path, content: dict[str, Any], classes: Classes) -> ColourTable:
    if wrong := [key for key in ("first_id", "values") if key in content]:
        raise DataError(f'{path}: {wrong[0]} with "labels": "colours": colours have no ids: leave it out')
    if "colours" not in content:
        raise DataError(f'{path}: "labels": "colours" without colours: give "colours", one for each name')
    if twice := _twice(classes.palette):
        raise DataError(
            f"{path}: two classes have the colour {list(twice)}: labels in colours need different ones"
        )
    given = content.get("void", [])
    void = [given] if _is_colour(given) else given
    if not isinstance(void, list) or not all(map(_is_colour, void)):
        raise DataError(
            f'{path}: void is {given!r}: with "labels": "colours" expected a colour, such as [0, 0, 0], or a list'
        )
    ids: dict[RGB, int] = {colour: number for number, colour in enumerate(classes.palette)}
    for r, g, b in void:
        if (number := ids.get((r, g, b), VOID)) != VOID:
            raise DataError(
                f"{path}: void {[r, g, b]} is also the colour of the class {classes.names[number]!r}: remove one"
            )
        ids[r, g, b] = VOID

    return ColourTable(ids, f"a colour of a class or of void (see {path})", advice_on_colours)


def _is_value(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_VALUE


def _is_colour(value: Any) -> bool:
    return _list_of(value, int) and len(value) == 3 and 0 <= min(value) <= max(value) <= 255


def _list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(x, kind) and not isinstance(x, bool) for x in value)


def _twice(values: Any) -> Any:
    """The first value that is there twice; None if there is none."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
