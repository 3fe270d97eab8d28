"""What all tests of the training share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contracts.networks import small_trainings


@pytest.fixture(scope="package", autouse=True)
def in_little_time() -> Iterator[None]:
    with small_trainings():
        yield
