"""Hooks on modules that do not stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def removed_after(hooks: list[RemovableHandle]) -> Iterator[None]:
    """Take hooks off their modules at the end of the block."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
