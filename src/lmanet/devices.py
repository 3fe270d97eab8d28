"""Where networks run."""

from __future__ import annotations

import torch

from lmanet.errors import InputError


def devices() -> list[str]:
    """What `find_device` takes on this machine, the default first."""
    cards = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cuda", *cards, "cpu"] if cards else ["cpu"]


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this name; for None a GPU where PyTorch has one, otherwise the CPU.

    Args:
        name: `cpu`, `cuda`, or `cuda:1` and so on.

    Raises:
        InputError: there is no such device here.
    """
    found = devices()
    name = None if name is None else str(name)
    if name is not None and name not in found:
        raise InputError(
            f"device {name!r} is not there: PyTorch {torch.__version__} has {', '.join(found)} on this machine"
        )
    return torch.device(name or found[0])
