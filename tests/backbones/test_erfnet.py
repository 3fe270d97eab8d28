from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from contracts.backbone import BackboneContract
from contracts.formulas import erfnet_decoder_by_formula, erfnet_encoder_by_formula
from contracts.networks import TinyBackbone, lively, seeded
from lmanet.backbones import ERFNet


class TestERFNet(BackboneContract):
    def make(self) -> ERFNet:
        return ERFNet(7)


class TestBackboneWithSkipMaps(BackboneContract):
    """The contract itself, on a network whose decoder needs more than the fused map."""

    def make(self) -> TinyBackbone:
        return TinyBackbone()


def test_number_of_parameters():
    # The published network has 2 066 836; the encoder's own classifier (128 · 20 + 20) is not part of it here.
    assert sum(p.numel() for p in ERFNet(20).parameters()) == 2_064_256


@pytest.fixture(scope="module")
def network() -> ERFNet:
    with seeded():
        return lively(ERFNet(5)).double().eval()


@torch.no_grad()
def test_is_the_published_architecture(network):
    images = torch.rand(2, 3, 32, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    fused = erfnet_encoder_by_formula(network.state_dict(), images)
    torch.testing.assert_close(network.encode(images).fused, fused)
    torch.testing.assert_close(network(images), erfnet_decoder_by_formula(network.state_dict(), fused))


def test_convolutions_are_channels_last(network):
    for name, weight in ERFNet(3).named_parameters():
        if weight.ndim == 4:
            assert weight.is_contiguous(memory_format=torch.channels_last), name
    assert network.encode(torch.rand(1, 3, 16, 16)[..., :8].double()).fused.shape == (1, 128, 2, 1)


@torch.no_grad()
def test_decodes_to_any_size(network):
    features = network.encode(torch.rand(1, 3, 16, 24, dtype=torch.float64))
    exact = network.decode(features, (16, 24))
    resized = F.interpolate(exact, (13, 30), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network.decode(features, (13, 30)), resized)


def test_dropout_is_the_papers():
    rates = [m.p for m in ERFNet(3).modules() if isinstance(m, torch.nn.Dropout2d)]
    assert rates == [0.03] * 5 + [0.3] * 8 + [0.0] * 4
