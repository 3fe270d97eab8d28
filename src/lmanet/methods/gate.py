"""Which of three answers to believe: a small network that sees no class, and so serves any other network's."""

from __future__ import annotations

import base64

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmanet.ops.patches import kernel_for

PROPOSALS = 3
CUES = 11
"""What is known of a place beside the proposals: see `lmanet.methods.training_free`."""

COMPARISONS = 10
"""What the proposals say of themselves and of each other: see `compared`."""

HIDDEN = 16
"""Channels of both hidden layers."""

SHAPES: dict[str, tuple[int, ...]] = {
    "around": (HIDDEN, CUES + COMPARISONS, 3, 3),
    "around_bias": (HIDDEN,),
    "mixed": (HIDDEN, HIDDEN, 1, 1),
    "mixed_bias": (HIDDEN,),
    "out": (PROPOSALS, HIDDEN, 1, 1),
    "out_bias": (PROPOSALS,),
}
"""Its weights, in the order in which they are written down."""


class Gate(nn.Module):
    """Weights of three proposals, the present's, the flow's and the cells', at every place.

    Two convolutions with rectifiers, 3×3 and 1×1, and a third that gives three logits. Its weights are no part of a
    model's state: they are the same whatever the network, and come with the code.

    Args:
        weights: all of them in the order of `SHAPES`, one after the other; those of the package, if not given.
    """

    around: Tensor
    around_bias: Tensor
    mixed: Tensor
    mixed_bias: Tensor
    out: Tensor
    out_bias: Tensor

    def __init__(self, weights: Tensor | None = None) -> None:
        super().__init__()
        weights = trained() if weights is None else weights
        parts = weights.split([int(np.prod(shape)) for shape in SHAPES.values()])
        for (name, shape), part in zip(SHAPES.items(), parts, strict=True):
            self.register_buffer(name, part.reshape(shape).clone(), persistent=False)

    def forward(self, present: Tensor, carried: Tensor, cells: Tensor, cues: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (B, K, h, w), probabilities, and cues (B, `CUES`, h, w), to their mixture (B, K, h, w).

        And how much of it is not the present's own, (B, 1, h, w), 0 to 1.
        """
        weights = [getattr(self, name) for name in SHAPES]
        if kernel := kernel_for(present, carried, cells, cues, *weights):
            return kernel.gated((present, carried, cells), cues, weights)
        seen = torch.cat([cues, compared(present, carried, cells)], 1).to(self.around.dtype)
        hidden = F.relu(F.conv2d(seen, self.around, self.around_bias, padding=1))
        hidden = F.relu(F.conv2d(hidden, self.mixed, self.mixed_bias))
        weights = F.conv2d(hidden, self.out, self.out_bias).softmax(1).to(present.dtype)
        mixture = weights[:, :1] * present + weights[:, 1:2] * carried + weights[:, 2:] * cells
        return mixture, 1 - weights[:, :1]

    def flat(self) -> Tensor:
        """All weights one after the other, as the constructor takes them."""
        return torch.cat([getattr(self, name).flatten() for name in SHAPES])


def compared(present: Tensor, carried: Tensor, cells: Tensor) -> Tensor:
    """What the proposals (B, K, h, w) say of themselves and of each other, (B, 10, h, w), whatever the classes are.

    How sure each is, how far each two differ, and how probable the label of one is to another.
    """
    # `max`, not `argmax`: the same place, in a fifth of the time, and the value with it.
    (sure, said), (sure_before, before) = present.max(1, keepdim=True), carried.max(1, keepdim=True)

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().sum(1, keepdim=True) / 2

    shares = [
        sure,
        sure_before,
        cells.amax(1, keepdim=True),
        apart(present, carried),
        apart(present, cells),
        apart(carried, cells),
        carried.gather(1, said),
        present.gather(1, before),
        cells.gather(1, said),
        cells.gather(1, before),
    ]
    return torch.logit(torch.cat(shares, 1), 0.01) / 2


def untrained(seed: int = 0) -> Tensor:
    """Weights to begin a training with: of its first layers random, of the last none, for the flow a little."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for name, shape in SHAPES.items():
        deviation = 0.0 if name.startswith("out") or len(shape) == 1 else (2 / np.prod(shape[1:])) ** 0.5
        parts.append(deviation * torch.randn(int(np.prod(shape)), generator=generator))
    parts[-1] = torch.tensor([0.0, 0.7, -1.0])
    return torch.cat(parts)


def written(weights: Tensor) -> str:
    """Weights as text: half precision, base 85."""
    return base64.b85encode(weights.detach().half().numpy().astype("<f2").tobytes()).decode()


def trained() -> Tensor:
    """The package's weights, float32."""
    from lmanet.methods.gate_weights import WEIGHTS

    return torch.from_numpy(np.frombuffer(base64.b85decode(WEIGHTS), "<f2").astype(np.float32))
