"""Counts and lists in messages."""

from __future__ import annotations

from collections.abc import Sequence

FEW = 12
"""Of many things, as many are named."""


def counted(count: int, noun: str) -> str:
    """Such as `1 frame` or `2 frames`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def listed(items: Sequence[object], most: int = FEW) -> str:
    """The first few of many: `a, b, c, and 10 more`."""
    shown = ", ".join(map(str, items[:most]))
    return shown if len(items) <= most else f"{shown}, and {len(items) - most} more"
