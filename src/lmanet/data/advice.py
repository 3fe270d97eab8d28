"""What to do about labels that hold something else than expected: mostly what to write into `classes.json`.

Each is the end of a sentence, or nothing; `stray` are the values or colours that mean nothing, `seen` those that do.
"""

from __future__ import annotations

import json
from pathlib import Path

from lmanet.classes import MOST_CLASSES, VOID, Classes

MOST_VALUES, MOST_COLOURS = 5, 8
"""That are left out of `classes.json` by mistake; more come of smoothed edges."""


def general_advice(stray: set, seen: set) -> str:
    """What strange values tell of where they come from."""
    values = sorted(value for value in stray if isinstance(value, int))
    if not values:
        return ""
    if values[-1] >= 1000:
        return (
            f". Values such as {values[-1]} are those of instance maps (class × 1000 + number): give the maps of "
            "classes"
        )
    return _smoothed("values", len(values)) if len(values) > MOST_VALUES else ""


def advice_on_colours(stray: set, seen: set) -> str:
    """Of labels in colours."""
    if len(stray) > MOST_COLOURS:
        return _smoothed("colours", len(stray))
    return '. Give them to classes in "colours", or write those that belong to no class as "void": [[r, g, b], …]'


def advice_on_ids(
    stray: set, seen: set, *, count: int, void: frozenset[int], plain: tuple[str, ...] = ()
) -> str:
    """Of labels of ids.

    Args:
        stray: see above.
        seen: see above.
        count: of the classes.
        void: values that belong to no class.
        plain: the classes' names, if they stand for 0, 1 and so on.
    """
    if any(isinstance(value, tuple) for value in stray):
        if len(stray) > MOST_CLASSES:
            return f". So many colours ({len(stray)}) are a photograph's, or what smoothed edges leave"
        return (
            '. If these colours are the classes, write "labels": "colours", and by "colours": [[red, green, blue], …] '
            "which is each name's"
        )
    if plain and stray == {count} and 0 not in void:
        if 0 in seen:
            return (
                f". 0 to {count} are {count + 1} values for {count} names: if 0 belongs to no class, write "
                '"first_id": 1, "void": 0; if it is a class, such as background, put its name first'
            )
        return f'. If the classes count from 1 to {count}, write "first_id": 1'
    if stray == {0}:
        return '. If 0 belongs to no class, write "void": 0'
    if stray == {VOID}:
        return f'. If {VOID} belongs to no class, write "void": {[*sorted(void), VOID] if void else VOID}'
    if len(plain) == 2 and len(stray) == 1 and seen <= {0, VOID}:
        (value,) = stray
        return (
            f'. If {value} is the class {plain[1]!r}, write "values": [0, {value}]; if it belongs to no class, '
            f'"void": {sorted({*void, value})}'
        )
    return general_advice(stray, seen) or (
        '. If they are classes, name them, and say by "values" which value each class has; if they belong to no class, '
        f'write "void": {sorted({*void, *stray})}'
    )


def doubt_of_masks(path: Path, classes: Classes) -> str:
    """What to say of labels of nothing but 0, the first class, and 255, of which `classes.json` says nothing."""
    if len(classes) == 1:
        names = json.dumps(["background", classes.names[0]])
        say = f'{VOID} is the class {classes.names[0]!r}, write "names": {names}, "values": [0, {VOID}]'
    else:
        more = ", …" if len(classes) > 2 else ""
        say = f'{VOID} is the class {classes.names[1]!r}, write "values": [0, {VOID}{more}]'
    return (
        f"the labels hold nothing but 0 ({classes.names[0]!r}) and {VOID}, which is void unless {path} says otherwise: "
        f'if {say} into it; if {VOID} really belongs to no class, "void": {VOID}'
    )


def _smoothed(what: str, count: int) -> str:
    return (
        f". So many {what} ({count}) are what smoothed edges leave: draw, resize and save labels without "
        "anti-aliasing or interpolation, by the nearest pixel"
    )
