"""What all tests of the training share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contracts.networks import one_thread


@pytest.fixture(scope="package", autouse=True)
def few_threads() -> Iterator[None]:
    """The networks here are so small that threads cost more than they save, above all beside other processes."""
    with one_thread():
        yield
