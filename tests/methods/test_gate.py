"""The gate over three answers: every variant of its kernel against the expressions of torch functions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmanet.methods.gate import CUES, Gate, untrained
from lmanet.ops import patches
from lmanet.ops.native import NativePatches, variants

LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.fixture(params=variants(), autouse=True, scope="module")
def kernel(request):
    before, patches.KERNEL = patches.KERNEL, NativePatches(request.param)
    yield request.param
    patches.KERNEL = before


def a_gate(seed: int = 0) -> Gate:
    """Random throughout: with a say in every weight, and biases."""
    draw = torch.Generator().manual_seed(seed)
    weights = untrained(seed)
    return Gate(weights + 0.1 * torch.randn(weights.shape, generator=draw))


def inputs(batch: int, classes: int, height: int, width: int, *, layout=LAYOUTS[0], spread=3.0, cut=0):
    """Three answers and cues, cut out of larger maps in which around them is no number."""
    draw = torch.Generator().manual_seed(classes + height)
    drawn = [spread * torch.randn(batch, classes, height, width, generator=draw) for _ in range(3)]
    maps = [*(x.softmax(1) for x in drawn), torch.randn(batch, CUES, height, width, generator=draw)]
    cut_out = []
    for values in maps:
        around = torch.full((batch, values.shape[1], height + 2 * cut, width + 2 * cut), torch.nan)
        around = around.contiguous(memory_format=layout)
        cut_out.append(around[..., cut : cut + height, cut : cut + width].copy_(values))
    return cut_out


def check(gate: Gate, maps: list[Tensor]) -> None:
    mixture, past = gate(*maps)
    exact = Gate(gate.flat()).double()(*(x.double() for x in maps))
    for got, expected in zip((mixture, past), exact, strict=True):
        assert got.dtype == torch.float32 and got.isfinite().all()
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 2),
    classes=st.one_of(st.integers(1, 22), st.sampled_from([150, 255])),
    height=st.integers(1, 11),
    width=st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 120, 131])),
    layout=st.sampled_from(LAYOUTS),
    spread=st.sampled_from([0.1, 3.0, 100.0]),
    cut=st.integers(0, 2),
)
def test_any_size_and_layout_equals_torch(batch, classes, height, width, layout, spread, cut):
    check(a_gate(), inputs(batch, classes, height, width, layout=layout, spread=spread, cut=cut))


def test_the_package_s_weights_and_maps_of_any_strides():
    maps = inputs(2, 5, 9, 21)
    maps[1] = maps[1].permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    maps[3] = maps[3].movedim(1, 2).contiguous().movedim(2, 1)
    check(Gate(), maps)
    equal = maps[0].new_full(maps[0].shape, 1 / 5)  # the label is the first of equals
    check(Gate(), [equal, equal, *maps[2:]])


@torch.no_grad()
def test_threads_change_nothing():
    gate, maps = a_gate(), inputs(2, 11, 41, 75)
    expected, before = gate(*maps), torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(gate(*maps), expected, strict=True))
    finally:
        torch.set_num_threads(before)


def test_it_is_for_one_dtype_and_differentiates_nothing(monkeypatch):
    def refused(*_: object) -> None:
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(NativePatches, "gated", refused)
    gate, maps = a_gate(), inputs(1, 3, 6, 10)
    gate.double()(*(x.double() for x in maps))
    gate.float().around.requires_grad_()
    gate(*maps)[0].sum().backward()
    assert gate.around.grad is not None and gate.around.grad.isfinite().all()
    with torch.no_grad(), pytest.raises(AssertionError, match="was called"):
        gate(*maps)
    torch.export.export(a_gate(), tuple(maps))


@pytest.mark.parametrize(
    ("which", "shape", "words"),
    [(1, (1, 3, 6, 11), "answers"), (3, (1, CUES + 1, 6, 10), "cues"), (3, (2, CUES, 6, 10), "cues")],
)
@torch.no_grad()
def test_the_extension_checks_for_itself(which, shape, words):
    maps = inputs(1, 3, 6, 10)
    maps[which] = torch.zeros(shape)
    with pytest.raises(ValueError, match=f"{words} must be"):
        a_gate()(*maps)
