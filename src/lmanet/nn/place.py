"""Where a module is, and of which precision, also where it has no parameter."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn


def place_of(module: nn.Module) -> Tensor:
    """Its first parameter of floating point, or else such a buffer: for device and dtype, as `Tensor.to` takes it.

    Networks whose weights are constants of a graph, or packed by a quantiser, have neither: one number of float32 on
    the CPU stands for them.
    """
    tensors = chain(module.parameters(), module.buffers())
    return next((x for x in tensors if x.is_floating_point()), torch.zeros(()))
