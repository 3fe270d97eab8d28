from __future__ import annotations

import pytest
import torch

from contracts.attention import BORDERS, KernelContract, exact, gradients, make_inputs
from lmanet.ops import tiled
from lmanet.ops.kernel import Inputs


class TestTiled(KernelContract):
    backend = "tiled"


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("chunk_bytes", [1, 2**14])
def test_size_of_chunks_does_not_matter(monkeypatch, chunk_bytes, border):
    inputs = make_inputs((33, 21), batch=2, dtype=torch.float64)
    expected = exact(inputs, window=7, border=border)
    expected_gradients = gradients(inputs, "reference", window=7, border=border)
    monkeypatch.setattr(tiled, "CPU_CHUNK_BYTES", chunk_bytes)
    output, _ = tiled.forward(Inputs(*inputs, window=7, scale=1.0), border)
    torch.testing.assert_close(output, expected)
    got = gradients(inputs, "tiled", window=7, border=border)
    for one, other in zip(got, expected_gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_peaked_weights_leave_no_denormals():
    scores = torch.linspace(-200, 0, 1000)
    weights = tiled._exp2_(scores.clone())
    assert (weights[scores < -100] == 0).all()
    assert (weights[weights > 0] >= torch.finfo(torch.float32).tiny).all()
    torch.testing.assert_close(weights[scores > -99], scores[scores > -99].exp2())


@pytest.mark.parametrize("border", BORDERS)
def test_sums_of_many_large_values_stay_within_float16(border):
    keys, values = torch.zeros(1, 4, 4, 32, 32).half(), torch.full((1, 4, 4, 32, 32), 100.0).half()
    output, _ = tiled.forward(Inputs(keys[:, 0], keys, values, window=21, scale=1.0), border)
    torch.testing.assert_close(output[0, :, 16, 16].float(), torch.full((4,), 100.0), rtol=2e-3, atol=0)
    assert output.isfinite().all()
