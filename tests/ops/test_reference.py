"""The reference against the definition, position by position."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.attention import BORDERS, AttentionContract, make_inputs
from lmanet.ops import local_attention


class TestReference(AttentionContract):
    backend = "reference"


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("shape", "window"), [((1, 1), 3), ((3, 4), 3), ((2, 3), 7)])
def test_is_the_definition(shape, window, border):
    query, keys, values = make_inputs(shape, size=2, key_channels=2, value_channels=2, dtype=torch.float64)
    output = local_attention(
        query, keys, values, window=window, border=border, scale=0.9, backend="reference"
    )
    height, width = shape
    for row in range(height):
        for column in range(width):
            total, read = 0.0, torch.zeros(2, dtype=torch.float64)
            for frame in range(2):
                for y in range(row - window // 2, row + window // 2 + 1):
                    for x in range(column - window // 2, column + window // 2 + 1):
                        if 0 <= y < height and 0 <= x < width:
                            score = 0.9 * float(query[0, :, row, column] @ keys[0, frame, :, y, x])
                            total += math.exp(score)
                            read += math.exp(score) * values[0, frame, :, y, x]
                        elif border == "zero":
                            total += 1.0
            torch.testing.assert_close(output[0, :, row, column], read / total)
