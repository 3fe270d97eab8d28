"""Networks that people have, as they come from their libraries: random weights, as small as their settings allow."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backbones.third_party import CLASSES, NETWORKS, ONE_SIZE, QUICK, cut, listed, made, original
from contracts.backbone import BackboneContract, names_of, projected, trained
from contracts.networks import lively, seeded
from lmanet.backbones import Wrapped, as_backbone
from lmanet.backbones.wrapped.inspection import cut_where_best
from lmanet.errors import InputError
from lmanet.methods.wrap import wrap
from lmanet.session import Session


@pytest.fixture(scope="module", params=listed(NETWORKS, QUICK))
def network(request) -> Wrapped:
    return cut(request.param)


@pytest.mark.parametrize("size", [(2, 128, 192), (1, 192, 128), (3, 128, 160)])
@torch.no_grad()
def test_without_a_memory_it_is_the_network_to_the_bit(network, size):
    batch, *sides = size
    images = torch.rand(batch, 3, *map(network.padded_length, sides))
    expected = original(network, images)
    assert expected.shape == (batch, CLASSES, *images.shape[-2:]) and expected.std() > 0
    assert torch.equal(network(images), expected)
    features = network.encode(images)
    assert torch.equal(network.decode(features, (images.shape[-2], images.shape[-1])), expected)
    assert features.fused.shape[1] == network.channels == network.encode(images).fused.shape[1]
    cells = [-(-n // network.stride) for n in images.shape[-2:]]
    assert list(features.fused.shape[-2:]) == cells


@torch.no_grad()
def test_the_map_has_a_part_in_the_logits(network):
    images = torch.rand(1, 3, *map(network.padded_length, (128, 192)))
    features = network.encode(images)
    size = (images.shape[-2], images.shape[-1])
    changed = network.decode(features.with_fused(torch.rand_like(features.fused)), size)
    assert not torch.equal(changed, network.decode(features, size))


def test_nothing_of_ours_is_left_in_the_network(network):
    network(torch.rand(1, 3, *map(network.padded_length, (128, 192))))
    for module in network.model.modules():
        assert not module._forward_pre_hooks
        ours = [hook for hook in module._forward_hooks.values() if hook.__module__.startswith("lmanet")]
        assert not ours and not type(module.forward).__module__.startswith("lmanet")


@pytest.mark.parametrize("method", ["lmanet", "label-memory", "training-free"])
@torch.no_grad()
def test_with_a_memory_of_default_sizes_it_steps(network, method):
    segmenter = wrap(network, method).eval()
    assert 3 <= segmenter.window <= 21
    images = torch.rand(2, 1, 3, 128, 150)
    _, state = segmenter.step(images[0])
    logits, _ = segmenter.step(images[1], state)
    assert logits.shape == (1, CLASSES, 128, 150) and logits.isfinite().all()


@pytest.mark.parametrize("name", listed(ONE_SIZE, {"Data2Vec"}))
@torch.no_grad()
def test_networks_of_one_size_take_that_alone(name):
    with pytest.raises(
        InputError, match=r"takes images of 224×224, but not .* of one size.*probe=\(224, 224\)"
    ):
        as_backbone(made(name))
    network = cut_where_best(made(name), probe=(224, 224)).eval()
    assert network.fixed_size == (224, 224)
    images = torch.rand(2, 3, 224, 224)
    assert torch.equal(network(images), original(network, images))
    for size in ((128, 192), (225, 224), (448, 448)):
        with pytest.raises(
            InputError, match=r"takes images of 224×224 alone: give --resize 224 224, in Python Sess"
        ):
            network.segment(torch.rand(1, 3, *size))
    frames = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), np.uint8)
    for method in ("training-free", "single-frame", "label-memory"):
        session = Session(wrap(network, method), resize=(224, 224))
        assert [session.step(frame).labels.shape for frame in frames] == [(60, 80)] * 3
        with pytest.raises(InputError, match="alone: give --resize 224 224"):
            Session(wrap(network, method)).step(frames[0])


class ThirdPartyContract(BackboneContract):
    """On images of 64×96, or what the network makes of them."""

    name: str
    sides = (64, 96)
    trains_all = True
    """Whether every parameter has a part in the logits."""

    def make(self) -> Wrapped:
        return copy.deepcopy(cut(self.name))

    @pytest.fixture(scope="class")
    @classmethod
    def prototype(cls, device):
        with seeded():
            backbone = lively(cls().make()).to(device).double().eval()
            # Random weights of a seed of their own: the networks begin with those of one, which a test wants to differ.
            for p in backbone.parameters():
                p.data.mul_(1 + 0.1 * torch.rand_like(p))
        return backbone

    @pytest.fixture
    def backbone(self, prototype):
        self.cells = tuple(n // prototype.stride for n in self.sides)
        with seeded(1):
            yield copy.deepcopy(prototype)

    def images(self, backbone, *leading: int, ragged: bool = False) -> Tensor:
        height, width = map(backbone.padded_length, self.sides)
        if ragged:
            height, width = height - 1, width - 3
        device = next(backbone.parameters()).device
        return torch.rand(*leading, 3, height, width, dtype=torch.float64, device=device)

    def test_encoder_parts_are_what_encode_trains(self, backbone):
        # Auxiliary heads, and layers that the network does not use, count as the encoder's: frozen like it.
        if self.trains_all:
            return super().test_encoder_parts_are_what_encode_trains(backbone)
        features = backbone.encode(self.images(backbone, 2))
        sum(projected(x) for x in (features.fused, *features.rest)).backward()
        assert trained(backbone) == names_of(backbone, backbone.encoder_parts()) & self.used(backbone)

    def test_gradients_reach_every_parameter(self, segmenter):
        if self.trains_all:
            return super().test_gradients_reach_every_parameter(segmenter)
        used = {f"backbone.{name}" for name in self.used(segmenter.backbone)}
        projected(segmenter(self.images(segmenter.backbone, 1, 3))).backward()
        own = {name for name, _ in segmenter.named_parameters() if not name.startswith("backbone.")}
        assert trained(segmenter) == used | own

    def used(self, backbone: Wrapped) -> set[str]:
        """The parameters that the network by itself trains."""
        projected(original(backbone, self.images(backbone, 2))).backward()
        names = trained(backbone)
        backbone.zero_grad()
        return names


def contract(name: str, **settings: Any) -> Any:
    """The class of tests of one network; those of few networks are part of every run."""
    tests = type(
        f"Test{''.join(filter(str.isalnum, name))}", (ThirdPartyContract,), {"name": name, **settings}
    )
    return tests if name in QUICK else pytest.mark.slow(tests)


TestUnet = contract("smp Unet")
TestPAN = contract("smp PAN", trains_all=False, sides=(128, 160))  # it pools by 64 first
TestSmpSegformer = contract("smp Segformer")
TestUnetOfTimm = contract("smp Unet of timm's ResNet")
TestDeepLabV3 = contract("torchvision DeepLabV3")
TestLRASPP = contract("torchvision LRASPP")
TestSegformer = contract("SegFormer")
TestUperNetConvNext = contract("UPerNet of ConvNeXt", trains_all=False)
TestUperNetSwin = contract("UPerNet of Swin", trains_all=False)
TestMobileViT = contract("MobileViT")
TestMobileViTV2 = contract("MobileViTV2")
TestMobileNetV2 = contract("MobileNetV2", trains_all=False)
TestBeit = contract("BEiT", trains_all=False)
