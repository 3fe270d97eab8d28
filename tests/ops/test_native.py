"""The CPU kernel: every variant that this machine can run, in turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch

from contracts.attention import BORDERS, KernelContract, exact, gradients, make_inputs
from lmanet.ops import dispatch, explain, local_attention, native
from lmanet.ops.kernel import Inputs
from lmanet.ops.native import Native

if not native.variants():
    pytest.skip(native.describe(), allow_module_level=True)

VARIANTS = native.variants()


@pytest.fixture(params=VARIANTS, autouse=True)
def variant(request, monkeypatch) -> str:
    monkeypatch.setitem(dispatch.KERNELS, "native", Native(request.param))
    return request.param


class TestNative(KernelContract):
    backend = "native"
    devices_with_gradients = ("cpu",)
    low_precisions = (torch.bfloat16,)

    @pytest.fixture(params=["cpu"])
    def device(self, request) -> str:
        return request.param


# Channels around the vectors' lanes, maps around the block's and the piece's width, windows around both.
WIDTHS = [
    ((3, 31), 7, 1, 1),
    ((2, 33), 9, 16, 15),
    ((4, 8), 5, 17, 17),
    ((1, 70), 41, 3, 32),
    ((12, 6), 25, 70, 4),
    ((27, 40), 15, 2, 65),
    ((2, 3), 3, 4, 2048),
    ((3, 14), 5, 3, 1030),
]


@cache
def widths_case(shape: tuple[int, int], window: int, key_channels: int, value_channels: int, border: str):
    """Inputs in float64 that bfloat16 holds too, the reference's output and its gradients."""
    inputs = make_inputs(
        shape, batch=2, key_channels=key_channels, value_channels=value_channels, dtype=torch.bfloat16
    )
    inputs = tuple(x.double() for x in inputs)
    options = {"window": window, "border": border, "scale": 1.3 / key_channels**0.5}
    return inputs, options, exact(inputs, **options), gradients(inputs, "reference", **options)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-11), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize(("shape", "window", "key_channels", "value_channels"), WIDTHS)
def test_widths_beside_the_blocks(shape, window, key_channels, value_channels, dtype, tolerance, border):
    inputs, options, expected, expected_gradients = widths_case(
        shape, window, key_channels, value_channels, border
    )
    inputs = tuple(x.to(dtype) for x in inputs)
    output = local_attention(*inputs, backend="native", **options)
    torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)
    for one, other in zip(gradients(inputs, "native", **options), expected_gradients, strict=True):
        assert one.dtype == dtype
        size = max(1.0, other.abs().max().item())
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("scale", [-0.8, 0.8])
def test_negative_scales_in_bfloat16(scale):
    inputs = make_inputs((9, 20), dtype=torch.bfloat16, key_channels=16, value_channels=32)
    output = local_attention(*inputs, window=7, scale=scale, backend="native")
    torch.testing.assert_close(output.double(), exact(inputs, window=7, scale=scale), rtol=2e-2, atol=2e-2)


def test_what_is_outside_the_window_does_not_matter():
    query, keys, values = make_inputs((9, 40), key_channels=16, value_channels=32)
    expected = local_attention(query, keys, values, window=9, backend="native")
    keys[..., 30:], values[..., 30:] = torch.nan, torch.inf
    output = local_attention(query, keys, values, window=9, backend="native")
    assert torch.equal(output[..., :26], expected[..., :26])
    assert not output[..., 26:].isfinite().any()


def test_large_scores_do_not_overflow():
    query, keys, values = make_inputs((9, 20))
    inputs = (100 * query, 100 * keys, values)
    output = local_attention(*inputs, window=9, backend="native")
    torch.testing.assert_close(output.double(), exact(inputs, window=9), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads):
    inputs = make_inputs((40, 33), size=3, batch=2)
    before = torch.get_num_threads()
    expected = gradients(inputs, "native", window=9)
    try:
        torch.set_num_threads(threads)
        got = gradients(inputs, "native", window=9)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_calls_from_several_python_threads():
    cases = [make_inputs((20, 25), size=n, seed=n) for n in (1, 2, 3, 4)]
    expected = [gradients(inputs, "native", window=9) for inputs in cases]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            got = list(pool.map(lambda inputs: gradients(inputs, "native", window=9), cases))
            for one, other in zip(got, expected, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_reads_slices_and_repeated_frames_in_place():
    both = torch.randn(1, 9, 20, 48).permute(0, 3, 1, 2)  # channels_last, as a convolution gives it
    query, rest = both[:, :16], both[:, 16:]
    keys = both[:, None, 16:32].expand(-1, 3, -1, -1, -1)
    values = rest[:, None].expand(-1, 3, -1, -1, -1)
    output = local_attention(query, keys, values, window=5, backend="native")
    copies = tuple(x.contiguous() for x in (query, keys, values))
    torch.testing.assert_close(output, local_attention(*copies, window=5, backend="native"))
    torch.testing.assert_close(output.double(), exact(copies, window=5), rtol=1e-4, atol=1e-4)


def test_describes_the_variant_in_use():
    assert native.describe().startswith(f"native: {VARIANTS[0]} (of ")


def test_is_what_auto_takes_on_a_cpu():
    inputs = make_inputs((17, 13))
    output = local_attention(*inputs, window=5)
    assert torch.equal(output, local_attention(*inputs, window=5, backend="native"))
    assert explain(*inputs[:2], window=5)["native"].startswith("taken")
    half = tuple(x.half() for x in inputs)
    assert "torch.float16" in explain(*half[:2], window=5)["native"]
    assert explain(*half[:2], window=5)["tiled"].startswith("taken")


def test_an_unknown_variant_is_an_error():
    query, keys, values = make_inputs()
    with pytest.raises(ValueError, match="variant 'avx9' is not among those that run here"):
        Native("avx9").forward(Inputs(query, keys, values, window=3, scale=1.0), "mask")
