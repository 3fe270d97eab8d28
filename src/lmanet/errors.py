"""The errors that lmanet raises on purpose.

Each message says what was got, what was expected and what to do.
"""

from __future__ import annotations

_LONGEST = 300
"""Letters of an error that `in_a_line` gives."""


class LmanetError(Exception):
    """Root of all errors that lmanet raises on purpose."""


class InputError(LmanetError, ValueError):
    """An argument or tensor is not what the function takes (shape, dtype, range, NaN)."""


class DataError(LmanetError, ValueError):
    """A data set on disk is missing, incomplete, or holds labels out of range."""


class VideoError(LmanetError, OSError):
    """A video or image source cannot be read, or a video or image of this kind cannot be made."""


class OutputError(LmanetError, OSError):
    """An output cannot be written: no such folder, no right to, or no room."""


class WeightsError(LmanetError, ValueError):
    """Weights are unknown, damaged, or belong to another architecture."""


class MissingDependencyError(LmanetError, ImportError):
    """An optional library is needed; the message names the extra that installs it."""


class NetworkError(LmanetError, RuntimeError):
    """A network, or a method, failed while it labelled a frame; the cause is its own error."""


def in_a_line(error: BaseException) -> str:
    """Any error for the message of another: its kind, the first letters of its text, and the one that it came from."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):  # TorchScript tells where it is first
        lines = lines[-1:]
    text = " ".join(lines)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if error.__cause__ is None else f"{line}, from {in_a_line(error.__cause__)}"
