from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from contracts.backbone import BackboneContract
from contracts.espnetv2 import espnetv2_by_formula
from contracts.networks import lively, seeded
from lmanet.backbones import ESPNetv2
from lmanet.errors import InputError


class TestESPNetv2(BackboneContract):
    cells = (4, 8)

    def make(self) -> ESPNetv2:
        return ESPNetv2(7, scale=0.5)


@pytest.fixture(scope="module")
def network() -> ESPNetv2:
    with seeded():
        return lively(ESPNetv2(9, scale=1)).double().eval()


def images(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, height, width, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("size", [(32, 64), (96, 160), (224, 96)], ids=str)
@torch.no_grad()
def test_is_the_published_architecture(network, size):
    expected = espnetv2_by_formula(network.state_dict(), images(*size))
    torch.testing.assert_close(network(images(*size)), expected)
    torch.testing.assert_close(network.optimize()(images(*size)), expected)


@pytest.mark.parametrize(("classes", "parameters"), [(20, 788_762), (21, 788_773)])
def test_number_of_parameters(classes, parameters):
    # The published files hold 480 more, of activations that their network has and does not use.
    assert sum(p.numel() for p in ESPNetv2(classes).parameters()) == parameters


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 130)], ids=str)
@torch.no_grad()
def test_takes_any_size(network, size):
    height, width = size
    logits = network.segment(images(*size))
    assert logits.shape == (2, 9, height, width)
    below, right = -height % 32, -width % 32
    padded = F.pad(images(*size), (0, right, 0, below), mode="replicate")
    torch.testing.assert_close(logits, network(padded)[..., :height, :width])


@pytest.mark.parametrize("scale", [0.5, 1, 1.25, 1.5, 2.0])
def test_all_scales_are_built_again_from_their_config(scale):
    network = ESPNetv2(3, scale=scale)
    assert network.config == {"scale": scale}
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_an_unknown_scale():
    with pytest.raises(InputError, match=r"of scale 3: expected one of 0.5, 1.0, 1.25, 1.5, 2.0"):
        ESPNetv2(3, scale=3)


def test_two_classes():
    assert ESPNetv2(2, scale=0.5)(torch.rand(1, 3, 32, 32)).shape == (1, 2, 32, 32)
