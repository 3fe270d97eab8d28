"""What the memories of labels share: whether a frame is followed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.networks import seeded
from lmanet.methods import labels


def spread(height: int, width: int) -> Tensor:
    """(2, h, w), rows and columns as a still scene's cells find themselves."""
    ranges = [torch.arange(n) - n // 2 for n in (height, width)]
    return torch.stack(torch.meshgrid(*ranges, indexing="ij")).float()


def test_a_match_is_judged_by_the_cells_beside():
    with seeded():
        key = torch.randn(2, 6, 8, 9)
        anywhere = torch.randint(-3, 4, (2, 2, 8, 9)) + spread(8, 9)
    beside = key.roll(1, -1)
    middle = key + 0.325**0.5 * (beside - key)
    matched = torch.where(torch.tensor([0, 1])[:, None, None, None] > 0, beside, key)
    followed = labels.followed(key, matched, anywhere, 3)
    assert followed.shape == (2, 1, 1, 1) and followed.flatten().tolist() == [1, 0]
    assert 0.2 < float(labels.followed(key, middle, anywhere, 3).mean()) < 0.8


def test_places_are_whole_cells_in_bfloat16():
    places = labels._places(torch.zeros(1, 1, 3, 512, dtype=torch.bfloat16))
    assert places[0, 1, 0].tolist() == list(range(-256, 256)) and places[0, 0, :, 0].tolist() == [-1, 0, 1]


def test_a_bad_match_that_moves_together_is_followed():
    still = spread(8, 9)
    # Every second column is found 2.1 cells beside: 4.41 between columns, nothing between rows.
    torn = still + 2.1 * (torch.arange(9) % 2) * torch.tensor([0.0, 1.0])[:, None, None]
    with seeded():
        key = F.normalize(torch.randn(3, 6, 8, 9), dim=1)
    got = labels.followed(key, -key, torch.stack([still, still + 3, torn]), 7).flatten()
    torch.testing.assert_close(got, torch.tensor([1, 1, (0.37 - 4.41 / 2 / 7) / 0.11]))
    blurred = labels.followed(key, -0.9 * key, still.expand(3, -1, -1, -1), 7)
    assert blurred.flatten().tolist() == [0, 0, 0], "what is read of many places lies in place whatever moves"
    one = torch.zeros(1, 6, 1, 1)
    assert labels.followed(one, one + 1, torch.zeros(1, 2, 1, 1), 7).item() == 1
    assert labels.followed(key, -key, still.expand(3, -1, -1, -1), 0).flatten().tolist() == [0, 0, 0]
