"""Options and names of before, which still work, with a line of warning."""

from __future__ import annotations

import sys
from collections.abc import Sequence

OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "segment": {
        "--training-free": ("--method", "training-free"),
        "--no-memory": ("--method", "single-frame"),
        "--memory": (),
        "--no-training-free": (),
    },
    "evaluate": {"--training-free": ("--method", "all"), "--no-training-free": ()},
}
"""By verb: an argument of before, and what is given in its place."""


PRESETS = {
    "lmanet-features": "lmanet",
    "lmanet-camvid": "label-memory-camvid",
    "lmanet-synthetic": "label-memory-synthetic",
}
"""Presets of `lmanet train` by the names that they had before these told the method."""


def with_new_names(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with those of before replaced; says so on stderr."""
    if not arguments:
        return []
    renamed = OPTIONS.get(arguments[0], {})
    new: list[str] = []
    for place, argument in enumerate(arguments):
        replacement = renamed.get(argument)
        # What follows an option is its value: a folder may be called like a preset.
        if arguments[0] == "train" and argument in PRESETS and not arguments[place - 1].startswith("-"):
            replacement = (PRESETS[argument],)
        if replacement is not None:
            now = (
                f"is {' '.join(replacement)} now: use that"
                if replacement
                else "says nothing any more: leave it out"
            )
            print(f"warning: {argument} {now}", file=sys.stderr)
        new.extend((argument,) if replacement is None else replacement)
    if arguments[0] == "train" and new[1:2] == ["lmanet"] and arguments[1] == "lmanet":
        print(
            "note: lmanet trains the paper's memory of features; the memory of labels is label-memory now",
            file=sys.stderr,
        )
    return new
