"""Which of several answers to believe: a small network that sees no class, and so serves any network's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PROPOSALS = 3
CUES = 9
"""What is known of a place beside the proposals; see `lmanet.methods.training_free`."""

SEEN = CUES + 10


class Gate(nn.Module):
    """Weights of three proposals, the present's, the flow's and the cells', at every place.

    Args:
        hidden: channels of its two hidden layers.
    """

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.around = nn.Conv2d(SEEN, hidden, 3, padding=1)
        self.mixed = nn.Conv2d(hidden, hidden, 1)
        self.out = nn.Conv2d(hidden, PROPOSALS, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor([0.0, 0.7, -1.0]))

    def forward(self, present: Tensor, carried: Tensor, cells: Tensor, cues: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (B, K, h, w), probabilities, and cues (B, `CUES`, h, w), to their mixture (B, K, h, w).

        And how much of it is not the present's own, (B, 1, h, w), 0 to 1.
        """
        seen = torch.cat([cues, compared(present, carried, cells)], 1)
        weights = self.out(F.relu(self.mixed(F.relu(self.around(seen))))).softmax(1)
        mixture = weights[:, :1] * present + weights[:, 1:2] * carried + weights[:, 2:] * cells
        return mixture, 1 - weights[:, :1]


def compared(present: Tensor, carried: Tensor, cells: Tensor) -> Tensor:
    """What the proposals (B, K, h, w) say of themselves and of each other, (B, 10, h, w), whatever the classes are.

    How sure each is, how far each two differ, and how probable the label of one is to another.
    """
    said, before = present.argmax(1, keepdim=True), carried.argmax(1, keepdim=True)

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().sum(1, keepdim=True) / 2

    shares = [
        present.gather(1, said),
        carried.gather(1, before),
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
