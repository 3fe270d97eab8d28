"""Options and names of before, which still work, with a line of warning."""

from __future__ import annotations

import sys
from collections.abc import Sequence

OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "segment": {
        "--training-free": ("--method", "training-free"),
        "--no-memory": ("--method", "single-frame"),
    },
    "evaluate": {"--training-free": ("--method", "all")},
}
"""By verb: an argument of before, and what is given in its place."""


def with_new_names(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with those of before replaced; says so on stderr."""
    if not arguments:
        return []
    renamed = OPTIONS.get(arguments[0], {})
    new: list[str] = []
    for argument in arguments:
        replacement = renamed.get(argument, (argument,))
        if argument in renamed:
            print(f"warning: {argument} is {' '.join(replacement)} now: use that", file=sys.stderr)
        new.extend(replacement)
    return new
