"""The errors that lmanet raises on purpose.

Each message says what was got, what was expected and what to do.
"""


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
