"""What several verbs ask of their outputs before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmanet.atomic import check_folder
from lmanet.errors import InputError, OutputError


def check_file(path: Path, suffixes: Sequence[str] = ()) -> None:
    """See that a file can be written, before hours of work are done for it; its folder is made if need be.

    Args:
        path: the file.
        suffixes: that it may have, in lower case; any if empty.

    Raises:
        InputError: it has another suffix.
        OutputError: it is a folder, or its folder cannot be made or written to.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(
            f"{path}: cannot write a file of type {path.suffix or 'none'}; give a name ending in {', '.join(suffixes)}"
        )
    if path.is_dir():
        raise OutputError(
            f"{path} is a folder: give the name of a file, such as {path / 'report'}{path.suffix}"
        )
    check_folder(path.parent)
