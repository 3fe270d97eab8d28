"""Outputs that appear whole under their final name, or not at all: written beside it, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from lmanet.errors import LmanetError, OutputError


class SystemFault(Protocol):
    """What `OSError` and FFmpeg's errors have in common."""

    @property
    def errno(self) -> int | None:
        """The system's number for what went wrong."""
        ...

    @property
    def strerror(self) -> str | None:
        """What stands in the way, in words."""
        ...


def write_whole(path: Path, data: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file's whole contents; its folder is made if need be.

    Args:
        path: the final name; what is there is replaced.
        data: the contents.
        durable: wait until the disk has them, so that the machine may lose power at any time: for what took
            hours to make. Without, only the process may be killed.

    Raises:
        OutputError: it cannot be written; nothing is left then, and what was there before stays.
    """
    part = part_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        remove(part)


@contextlib.contextmanager
def whole_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends it becomes `path`, after an exception it is removed.

    Args:
        path: the final name.
        replace: put it in the place of a folder that is there by then; without, that one stays: for contents that
            depend on the name alone, where another process may have been faster and be reading its own.

    Raises:
        OutputError: the folder cannot be made or renamed.
    """
    part = part_path(path)
    # A killed process with the same id, as containers give out again, may have left one.
    shutil.rmtree(part, ignore_errors=True)
    try:
        with output_errors(path):
            part.mkdir(parents=True)
        yield part
        with output_errors(path):
            if replace and path.exists():
                shutil.rmtree(path)
            try:
                part.rename(path)
            except OSError:
                if replace or not path.is_dir():
                    raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_folder(folder: Path) -> None:
    """Make a folder, its parents included, and see that files can be made in it: before any work is done for it.

    Raises:
        OutputError: they cannot.
    """
    probe = folder / f".writable-{os.getpid()}"
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into the `OutputError` that `path` cannot be written."""
    try:
        yield
    except LmanetError:  # some are OSErrors too, and say already what to do
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def part_path(path: Path) -> Path:
    """The hidden name, beside the final one, under which an output is written; it keeps the suffix."""
    return path.with_name(f".{path.stem}.part-{os.getpid()}{path.suffix}")


def remove_parts(path: Path) -> None:
    """Delete what killed processes left of an output; nobody else may be writing it."""
    for part in path.parent.glob(f".{glob.escape(path.stem)}.part-*{glob.escape(path.suffix)}"):
        remove(part)


def remove(path: Path) -> None:
    """Delete a file, if it is there and can be deleted."""
    with contextlib.suppress(OSError):
        path.unlink()


def unwritable(path: Path, error: SystemFault) -> OutputError:
    """The error to raise for an output that cannot be written: which, why, and what to do."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            advice = "free some space or choose another disk"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            advice = "choose a folder that you may write to"
        case _:
            advice = "check that the folder exists, is a folder and can be written to"
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}): {advice}. No half file is left"
    )
