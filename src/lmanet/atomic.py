"""Outputs that appear whole under their final name, or not at all: written beside it, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from lmanet.errors import LmanetError, OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


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
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Part(path)
        try:
            with part.path.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            part.finish()
        finally:
            part.discard()


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
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_parts(path)
        part = Part(path, folder=True)
    try:
        yield part.path
        with output_errors(path):
            if replace and path.exists():
                shutil.rmtree(path)
            try:
                part.path.rename(path)
            except OSError:
                if replace or not path.is_dir():
                    raise
    finally:
        part.discard()


class Part:
    """The hidden file or folder, beside the final name, under which an output is written; made empty.

    While it is written it is locked, where the system has locks: so that `remove_parts` of another process can tell it
    from one that a killed process left, whatever the process ids are (containers give out the same ones again).

    Args:
        final: the output's final name; its folder is there.
        folder: whether a folder is made.

    Attributes:
        path: the hidden name, which keeps the suffix.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, final: Path, *, folder: bool = False) -> None:
        self._final = final
        for turn in itertools.count():
            self.path = part_path(final, turn)
            try:
                if folder:
                    self.path.mkdir()
                else:
                    self.path.touch(exist_ok=False)
            except FileExistsError:
                # Left by a killed process, or written by one with the same id in another container.
                if not _remove_left(self.path):
                    continue
                self.path.mkdir() if folder else self.path.touch()
            break
        self._lock = _lock(self.path)
        _being_written.add(self)

    def finish(self) -> None:
        """Give a file its final name, in place of what is there.

        Raises:
            OSError: it cannot be renamed.
        """
        self.path.replace(self._final)

    def discard(self) -> None:
        """Remove what has not got its final name, and unlock; safe to call at any time."""
        _remove_all(self.path)
        _being_written.discard(self)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


_being_written: set[Part] = set()


def discard_parts() -> None:
    """Remove every hidden file and folder that this process is writing: for a process that ends at once."""
    for part in tuple(_being_written):
        _remove_all(part.path)


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
    except (LmanetError, BrokenPipeError):  # some are OSErrors too, and say already what to do
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def part_path(path: Path, turn: int = 0) -> Path:
    """The hidden name, beside the final one, under which an output is written; it keeps the suffix.

    Args:
        path: the final name.
        turn: of several names, where the first are taken.
    """
    number = f"{os.getpid()}-{turn}" if turn else f"{os.getpid()}"
    return path.with_name(f".{path.stem}.part-{number}{path.suffix}")


def remove_parts(path: Path) -> None:
    """Delete what killed processes left of an output; what another process is writing stays."""
    for part in path.parent.glob(f".{glob.escape(path.stem)}.part-*{glob.escape(path.suffix)}"):
        _remove_left(part)


def remove_parts_in(folder: Path, suffix: str) -> None:
    """Delete what killed processes left of all outputs of a type in a folder, as `remove_parts` does of one."""
    for part in folder.glob(f".*.part-*{glob.escape(suffix)}"):
        _remove_left(part)


def _lock(part: Path) -> int | None:
    """A lock that goes with the process, as an open file; None where the system has none or another holds it."""
    if fcntl is None:
        return None
    try:
        # Network file systems lock only what is open for writing.
        opened = os.open(part, os.O_RDONLY if part.is_dir() else os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened


def _remove_left(part: Path) -> bool:
    """Delete a part that nobody is writing; whether that was done."""
    lock = _lock(part)
    if lock is None:
        return False
    _remove_all(part)
    os.close(lock)
    return not part.exists()


def _remove_all(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        remove(path)


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
