"""Tables of plain text, for the terminal and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass

import rich.table
from rich.text import Text


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first column names the rows.

    Attributes:
        title: what was measured.
        headings: of the columns.
        rows: as many cells each.
        notes: sentences below the table.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def rich(self) -> rich.table.Table:
        """For the terminal."""
        table = rich.table.Table(
            title=self.title, caption="\n".join(self.notes) or None, caption_justify="left"
        )
        for n, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if n else "left")
        for row in self.rows:
            # As Text: in a plain string, square brackets would be read as markup.
            table.add_row(*map(Text, row))
        return table

    def markdown(self) -> str:
        """For the README."""
        rule = ("---", *("---:" for _ in self.headings[1:]))
        lines = [f"| {' | '.join(cells)} |" for cells in (self.headings, rule, *self.rows)]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"{self.title}:\n", *lines, *notes])


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, to about three figures."""
    value = 1000 * seconds
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def times(ratio: float) -> str:
    """A ratio, to about three figures."""
    return f"{ratio:.{1 if ratio < 100 else 0}f}×"


def mebibytes(count: int | None) -> str:
    """Bytes as MiB; n/a where they are not known."""
    return "n/a" if count is None else f"{count / 2**20:.{1 if count < 100 * 2**20 else 0}f}"


def change(value: float, base: float) -> str:
    """How much more than the base, in percent."""
    return f"{100 * (value / base - 1):+.1f} %"
