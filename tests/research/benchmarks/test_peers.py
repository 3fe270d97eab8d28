from __future__ import annotations

import pytest
import torch

from lmanet.ops import local_attention
from lmanet.research.benchmarks.peers import PEERS

HEIGHT, WIDTH = 5, 7
ALL = 2 * WIDTH - 1


@pytest.fixture
def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4), (2, 3, 4), (2, 3, 6)]
    return tuple(torch.randn(*shape, HEIGHT, WIDTH, generator=generator) for shape in shapes)


def build(name: str, window: int, inputs: tuple[torch.Tensor, ...]):
    if refusal := PEERS[name].refusal():
        pytest.skip(refusal)
    return PEERS[name].build(window, *inputs)


COMPILED = "compiled FlexAttention"
"""Takes half a minute on two cores."""


def peers(*names: str) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.slow if name == COMPILED else ()) for name in names]


@pytest.mark.parametrize("name", peers(*PEERS))
def test_peers_are_the_definition(name: str, inputs: tuple[torch.Tensor, ...]) -> None:
    for window in [ALL] if PEERS[name].sees_all else [5] if name == COMPILED else [1, 5, ALL]:
        attend = build(name, window, inputs)
        expected = local_attention(*inputs, window=window, backend="reference")
        with torch.no_grad():
            torch.testing.assert_close(
                attend(*inputs), expected, msg=lambda m, w=window: f"{name}, R={w}: {m}"
            )


@pytest.mark.parametrize("name", peers(*(name for name, peer in PEERS.items() if peer.no_gradients is None)))
def test_gradients_of_peers_are_the_definitions(name: str, inputs: tuple[torch.Tensor, ...]) -> None:
    wanted = [x.requires_grad_() for x in inputs]
    window = ALL if PEERS[name].sees_all else 3
    attend = build(name, window, inputs)
    gradient = torch.randn(2, 6, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(attend(*wanted), wanted, gradient)
    expected = torch.autograd.grad(
        local_attention(*wanted, window=window, backend="reference"), wanted, gradient
    )
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
