"""Messages: plain lines, and a terminal that may be gone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def say(console: Console, *lines: str, style: str | None = None) -> None:
    """Print lines as they are: neither wrapped nor coloured by what is in them."""
    for line in lines:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


class _SaidIfPossible:
    """A stream whose failures are no failures of the work: nobody is left to be told of them."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)  # pyright: ignore[reportOptionalMemberAccess]
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()  # pyright: ignore[reportOptionalMemberAccess]

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return self._stream.isatty()  # pyright: ignore[reportOptionalMemberAccess]
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def errors_said_if_possible() -> Iterator[None]:
    """Let what is written to stderr be lost where it cannot be: a closed terminal must not end the labelling."""
    before = sys.stderr
    sys.stderr = _SaidIfPossible(before)
    try:
        yield
    finally:
        sys.stderr = before
