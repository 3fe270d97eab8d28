"""How well the patches of a frame are found again in the frame before.

On a CPU, in float32 and where no gradient is wanted, by the project's kernel; elsewhere by the expressions of torch
functions below, which are also what the kernel is tested against.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lmanet.ops.patches import PATCH, kernel_for

ROUND_TRIP_PX = 2.0
"""How far from its start the way there and back may end. Flow that errs by less still leads to the same thing."""

SURROUNDINGS_PX = 64
"""Side of the square whose round trips say whether a place is followed: one that fits by chance is not enough."""

CONTRAST = 5
"""Side in patches of the square less whose mean colours are compared, whatever the exposure."""


def followed(flow: Tensor, inside: Tensor, colours: Tensor, read: Tensor) -> Tensor:
    """What the flows and the colours say of each patch.

    Args:
        flow: (B, 2, h, w), there, in patches.
        inside: (B, 1, h, w), 1 where it leads inside of the map, else 0.
        colours: (B, 3, h, w), 0 to 255.
        read: (B, 5, h, w), where the flow leads: the flow back and the colours of the frame before.

    Returns:
        (B, 6, h, w): by how much the way there and back misses its start, and how long both are, squared pixels; how
        far the colours are apart; and means around each patch of the round trips (1 where they return, 0 where they do
        not), of the squared change of the contrasts, and of the contrasts' squares.
    """
    if kernel := kernel_for(flow, inside, colours, read):
        sides = SURROUNDINGS_PX // PATCH + 1, CONTRAST
        return kernel.followed(flow, inside, colours, read, sides, PATCH**2, ROUND_TRIP_PX**2)
    returns, before = read[:, :2], read[:, 2:]
    error = (flow + returns).square().sum(1, keepdim=True) * PATCH**2
    squares = (flow.square() + returns.square()).sum(1, keepdim=True) * PATCH**2
    trip = torch.exp(-error / (ROUND_TRIP_PX**2 + squares / 100)) * inside
    both = torch.stack([colours, before], 1)
    contrast, contrast_before = (both - _around(both, CONTRAST)).unbind(1)
    squared = [(contrast - contrast_before).square(), contrast.square() + contrast_before.square()]
    apart = (colours - before).abs().mean(1, keepdim=True)
    trips = _around(trip, SURROUNDINGS_PX // PATCH + 1)
    return torch.cat(
        [error, squares, apart, trips, _around(torch.stack([x.mean(1) for x in squared], 1), CONTRAST)], 1
    )


def _around(maps: Tensor, side: int) -> Tensor:
    """Means over the squares of an odd side around each place, as far as they lie on the map."""
    # Windows of a view added up: a quarter of the time of `avg_pool2d`.
    sums = F.pad(maps, (side // 2,) * 4).unfold(-2, side, 1).sum(-1).unfold(-1, side, 1).sum(-1)
    rows, columns = (_on_the_map(n, side, maps.device) for n in maps.shape[-2:])
    return sums / (rows[:, None] * columns)


def _on_the_map(places: int, side: int, device: torch.device) -> Tensor:
    """How many of the `side` places around each of a row are there."""
    place = torch.arange(places, device=device)
    return (place + side // 2 + 1).clamp_max(places) - (place - side // 2).clamp_min(0)
