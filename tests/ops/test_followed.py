"""What the flows and colours say of patches: every variant of the kernel against the expressions of torch functions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmanet.ops import patches
from lmanet.ops.followed import followed
from lmanet.ops.native import NativePatches, variants


@pytest.fixture(params=variants(), autouse=True, scope="module")
def kernel(request):
    before, patches.KERNEL = patches.KERNEL, NativePatches(request.param)
    yield request.param
    patches.KERNEL = before


def inputs(batch: int, height: int, width: int, *, spread: float = 1.0, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)

    def drawn(channels: int) -> Tensor:
        return torch.randn(batch, channels, height, width, generator=draw)

    flow, colours, other = spread * drawn(2), 127 + 40 * drawn(3), 127 + 40 * drawn(3)
    read = torch.cat([0.2 * drawn(2) - flow, other], 1)
    return [flow, (drawn(1) > -1).float(), colours, read]


def check(maps: list[Tensor]) -> None:
    got, exact = followed(*maps), followed(*(x.double() for x in maps))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=2e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 2),
    height=st.integers(1, 30),
    width=st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 120, 131])),
    spread=st.sampled_from([0.0, 1.0, 50.0]),
    seed=st.integers(0, 1000),
)
def test_any_size_equals_torch(batch, height, width, spread, seed):
    check(inputs(batch, height, width, spread=spread, seed=seed))


def test_maps_of_any_strides():
    check([x.contiguous(memory_format=torch.channels_last) for x in inputs(2, 9, 21)])


def test_means_are_of_what_lies_on_the_map():
    maps = [x.fill_(3) for x in inputs(1, 7, 40)]
    maps[3][:, :2] = -3  # the flow back returns
    maps[1].fill_(1)
    error, squares, apart, trips, change, texture = followed(*maps).unbind(1)
    assert not (error.any() or apart.any() or change.any() or texture.any())
    torch.testing.assert_close(trips, torch.ones_like(trips))
    torch.testing.assert_close(squares, torch.full_like(squares, 16 * 4 * 9))


def test_threads_change_nothing():
    maps, before = inputs(2, 41, 75), torch.get_num_threads()
    expected = followed(*maps)
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            assert torch.equal(followed(*maps), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("which", "shape"), [(0, (1, 3, 6, 10)), (1, (1, 1, 6, 11)), (3, (1, 4, 6, 10))])
def test_the_extension_checks_for_itself(which, shape):
    maps = inputs(1, 6, 10)
    maps[which] = torch.zeros(shape)
    with pytest.raises(ValueError, match="flow, inside and read must be"):
        followed(*maps)
