"""Writing files so that they appear whole under their final name, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from av.error import FFmpegError

from lmanet.errors import VideoError


def part_path(path: Path) -> Path:
    """The hidden name, beside the final one, under which a file is written; it keeps the suffix."""
    return path.with_name(f".{path.stem}.part-{os.getpid()}{path.suffix}")


def write_whole(path: Path, data: memoryview) -> None:
    """Write a file's whole contents and rename it; its folder is made if need be.

    Raises:
        VideoError: if it cannot be written; nothing is left then.
    """
    part = part_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        remove(part)


def remove(path: Path) -> None:
    """Delete a file, if it is there and can be deleted."""
    with contextlib.suppress(OSError):
        path.unlink()


def unwritable(path: Path, error: OSError | FFmpegError) -> VideoError:
    """The error to raise for an output that cannot be written: why, and what to do."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            advice = "free some space or choose another disk"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            advice = "choose a folder that you may write to"
        case _:
            advice = "check that the folder exists, is a folder and can be written to"
    return VideoError(f"{path}: cannot be written ({error.strerror}): {advice}. No half file is left")
