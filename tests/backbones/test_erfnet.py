from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.backbone import BackboneContract
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
    fused, logits = erfnet_by_formula(network.state_dict(), images)
    torch.testing.assert_close(network.encode(images).fused, fused)
    torch.testing.assert_close(network(images), logits)


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


def erfnet_by_formula(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Fused map and logits of a state dict, by the formulas of the ERFNet paper and no module."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        scale = state[f"{name}.weight"] / torch.sqrt(var + 1e-3)
        return x * scale[:, None, None] + (state[f"{name}.bias"] - mean * scale)[:, None, None]

    def down(x: Tensor, name: str) -> Tensor:
        convolved = F.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], 2, 1)
        return norm(torch.cat([convolved, F.max_pool2d(x, 2)], 1), f"{name}.bn").relu()

    def factorised(x: Tensor, name: str, pair: int, dilation: int) -> Tensor:
        tall, wide = f"{name}.conv3x1_{pair}", f"{name}.conv1x3_{pair}"
        x = F.conv2d(F.pad(x, (0, 0, dilation, dilation)), state[f"{tall}.weight"], dilation=(dilation, 1))
        x = (x + state[f"{tall}.bias"][:, None, None]).relu()
        x = F.conv2d(F.pad(x, (dilation, dilation)), state[f"{wide}.weight"], dilation=(1, dilation))
        return norm(x + state[f"{wide}.bias"][:, None, None], f"{name}.bn{pair}")

    def residual(x: Tensor, name: str, dilation: int = 1) -> Tensor:
        return (x + factorised(factorised(x, name, 1, 1).relu(), name, 2, dilation)).relu()

    def up(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]
        return norm(F.conv_transpose2d(x, weight, bias, 2, 1, output_padding=1), f"{name}.bn").relu()

    x = down(images, "encoder.initial_block")
    x = down(x, "encoder.layers.0")
    for i in range(1, 6):
        x = residual(x, f"encoder.layers.{i}")
    x = down(x, "encoder.layers.6")
    for i, dilation in enumerate((2, 4, 8, 16, 2, 4, 8, 16), start=7):
        x = residual(x, f"encoder.layers.{i}", dilation)
    fused = x
    for i in (0, 3):
        x = up(x, f"decoder.layers.{i}")
        x = residual(x, f"decoder.layers.{i + 1}")
        x = residual(x, f"decoder.layers.{i + 2}")
    weight, bias = state["decoder.output_conv.weight"], state["decoder.output_conv.bias"]
    return fused, F.conv_transpose2d(x, weight, bias, 2)
