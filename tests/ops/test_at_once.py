"""The forward pass of all tiles in one go equals that of tile after tile; a GPU runs it in every test of `tiled`."""

from __future__ import annotations

import pytest
import torch

from contracts.networks import seeded
from lmanet.ops import at_once, tiled
from lmanet.ops.kernel import Inputs

CASES = [
    # B, S, Ck, Cv, h, w, window
    (1, 1, 4, 3, 8, 8, 1),
    (2, 3, 4, 5, 13, 22, 5),
    (1, 2, 16, 7, 5, 40, 21),
    (1, 1, 4, 3, 1, 1, 3),
    (1, 2, 6, 4, 9, 3, 41),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_it_equals_tile_after_tile(case: tuple[int, ...], dtype: torch.dtype) -> None:
    batch, size, key, value, height, width, window = case
    with seeded():
        inputs = Inputs(
            torch.randn(batch, key, height, width).to(dtype),
            torch.randn(batch, size, key, height, width).to(dtype),
            torch.randn(batch, size, value, height, width).to(dtype),
            window,
            0.7,
        )
    (output, log_sum), (expected, expected_log_sum) = at_once.forward(inputs), tiled._forward(inputs)
    assert output.dtype == expected.dtype and output.is_contiguous() and log_sum.is_contiguous()
    tolerance = {"atol": 2e-2, "rtol": 2e-2} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(output, expected, **tolerance)
    torch.testing.assert_close(log_sum, expected_log_sum, atol=1e-5, rtol=1e-5)


def test_a_map_in_several_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with seeded():
        inputs = Inputs(
            torch.randn(2, 4, 30, 20), torch.randn(2, 2, 4, 30, 20), torch.randn(2, 2, 3, 30, 20), 7, 1.0
        )
    whole = at_once.forward(inputs)
    monkeypatch.setattr(at_once, "CHUNK_BYTES", 1)
    for part, expected in zip(at_once.forward(inputs), whole, strict=True):
        torch.testing.assert_close(part, expected)
