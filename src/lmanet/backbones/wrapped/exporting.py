"""What `torch.export` has to be told where it runs the code itself: not with `strict=True`, where Dynamo reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.fx.experimental import proxy_tensor


@contextmanager
def modules_tracked() -> Iterator[None]:
    """Let an exception end calls of modules.

    torch.export notes which modules it is in, and when a call ends by an exception it does not take that module off.
    """
    mode = proxy_tensor.get_proxy_mode() if _runs_the_code() else None
    if mode is None:
        yield
        return
    before = mode.tracer.module_stack.copy()
    try:
        yield
    finally:
        mode.tracer.module_stack = before


@contextmanager
def unnoted() -> Iterator[None]:
    """Keep what is run inside out of the graph: torch.export leaves in also what nothing uses."""
    if not _runs_the_code():
        yield
        return
    with modules_tracked(), proxy_tensor.disable_proxy_modes_tracing():
        yield


def _runs_the_code() -> bool:
    return not torch.compiler.is_dynamo_compiling() and torch.compiler.is_exporting()
