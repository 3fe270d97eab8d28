from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.networks import seeded
from lmanet.errors import InputError
from lmanet.methods.memory import KeyValue, MemoryState


def numbered(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Key (2, 3, 4, 5) and value (2, 6, 4, 5) that tell which frame they are of."""
    return torch.full((2, 3, 4, 5), float(number)), torch.full((2, 6, 4, 5), -float(number))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(size=st.integers(1, 6), frames=st.integers(1, 12))
def test_holds_the_last_frames_oldest_first(size, frames):
    state = MemoryState.filled(*numbered(0), size)
    for number in range(1, frames):
        state = state.push(*numbered(number))
    # Frames before the first count as the first.
    expected = [float(max(0, number)) for number in range(frames - size, frames)]
    assert state.size == size
    assert state.keys.shape == (2, size, 3, 4, 5)
    assert state.values.shape == (2, size, 6, 4, 5)
    assert state.keys[0, :, 0, 0, 0].tolist() == expected
    assert state.values[1, :, 5, 3, 4].tolist() == [-x for x in expected]
    assert (state.keys == state.keys[:1, :, :1, :1, :1]).all()


def test_push_leaves_the_old_state_as_it_was():
    state = MemoryState.filled(*numbered(0), 3).push(*numbered(1))
    before = [x.clone() for x in state]
    after = state.push(*numbered(2))
    after.keys.fill_(7)
    assert all(map(torch.equal, state, before))


def test_state_keeps_nothing_but_its_frames():
    state = MemoryState.filled(*numbered(0), 3)
    for number in range(5):
        state = state.push(*numbered(number))
    assert state.keys.untyped_storage().nbytes() == state.keys.nbytes
    assert state.values.untyped_storage().nbytes() == state.values.nbytes


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "channels of a larger map"])
def test_layout_is_what_the_kernels_read(dense):
    """Keys channel by channel, values cell by cell, whatever the projections' layout."""
    joint = torch.randn(2, 9, 4, 5).contiguous(memory_format=torch.channels_last)
    key, value = joint.split([3, 6], 1)
    if dense:
        key, value = key.contiguous(), value.contiguous()
    state = MemoryState.filled(key, value, 3)
    assert state.keys[:, 0].is_contiguous() and state.keys.stride(1) == 0
    assert state.values[:, 0].is_contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        state = state.push(key, value)
        assert state.keys.is_contiguous()
        assert state.values.movedim(2, -1).is_contiguous()
        assert (state.keys == key[:, None]).all() and (state.values == value[:, None]).all()


def test_gradients_flow_into_the_memory():
    key, value = (x.requires_grad_() for x in numbered(1))
    state = MemoryState.filled(key, value, 3).push(*numbered(2))
    (state.keys.sum() + state.values.sum()).backward()
    assert (key.grad == 2).all() and (value.grad == 2).all()


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 4, 4, 5), (2, 3, 4, 6), (2, 3, 5, 5)])
def test_frame_that_does_not_fit_is_refused(shape):
    state = MemoryState.filled(*numbered(0), 3)
    state.for_frame(torch.zeros(2, 3, 4, 5))
    with pytest.raises(InputError, match=r"\(2, 3, 4, 5\).*start a new one with state None"):
        state.for_frame(torch.zeros(shape))


@pytest.mark.parametrize("side", [1, 3])
def test_projections_are_the_four_convolutions(side):
    with seeded(), torch.no_grad():
        project = KeyValue(8, 3, 6, side=side).double()
        fused = torch.randn(2, 8, 4, 5, dtype=torch.float64)
        query, memory = project(fused)
        alone = [
            getattr(project, f"{of}_{what}")(fused) for of in ("query", "memory") for what in ("key", "value")
        ]
    assert project.query_key.kernel_size == (side, side)
    torch.testing.assert_close([*query, *memory], alone)
    torch.testing.assert_close((project.query(fused), project.memory(fused)), (query, memory))


def test_key_convolutions_start_equal_and_are_apart():
    with seeded():
        project = KeyValue(8, 3, 6)
        fused = torch.randn(2, 8, 4, 5)
    (query_key, query_value), (memory_key, memory_value) = project.query(fused), project.memory(fused)
    assert query_key.shape == (2, 3, 4, 5) and query_value.shape == (2, 6, 4, 5)
    assert torch.equal(query_key, memory_key)
    assert not torch.equal(query_value, memory_value)
    with torch.no_grad():
        project.query_key.weight.zero_()
    assert not torch.equal(project.query(fused)[0], project.memory(fused)[0])


@pytest.mark.parametrize("side", [1, 3])
def test_without_a_convolution_the_value_is_the_map(side):
    with seeded(), torch.no_grad():
        project = KeyValue(8, 3, None, side=side).double()
        fused = torch.randn(2, 8, 4, 5, dtype=torch.float64)
        project.memory_key.weight.mul_(2)
        (query_key, query_value), (memory_key, memory_value) = project(fused)
        torch.testing.assert_close(query_key, project.query_key(fused))
        torch.testing.assert_close(memory_key, project.memory_key(fused))
        assert query_value is fused and memory_value is fused
        torch.testing.assert_close((project.query(fused), project.memory(fused)), project(fused))
    names = {"query_key.weight", "query_key.bias", "memory_key.weight", "memory_key.bias"}
    assert set(project.state_dict()) == names


def test_a_memory_goes_on_in_the_precision_of_the_frame():
    state = MemoryState.filled(*numbered(0), 3)
    half = state.for_frame(torch.zeros(2, 3, 4, 5, dtype=torch.bfloat16))
    assert half.keys.dtype == half.values.dtype == torch.bfloat16
    torch.testing.assert_close(half.keys.to(state.keys), state.keys, rtol=0.01, atol=0)
    assert state.for_frame(torch.zeros(2, 3, 4, 5).to(state.keys)).keys is state.keys
