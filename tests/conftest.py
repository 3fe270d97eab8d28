from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("contracts")


@pytest.fixture(autouse=True)
def fresh_accelerate_state() -> Iterator[None]:
    """Accelerate keeps device and precision per process: forget them, so that every test chooses its own."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True, scope="session")
def one_result_on_a_gpu() -> None:
    """What must be equal to the bit is computed twice: cuDNN is to take the same way each time, and no TF32.

    A GPU alone is asked, so that tests without torch stay light.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
