"""Networks that people have, as they come from their libraries: random weights, as small as their settings allow."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.backbone import BackboneContract, names_of, projected, trained
from contracts.networks import lively, seeded
from lmanet.backbones import Backbone, Wrapped
from lmanet.backbones.wrapped.probing import logits_of
from lmanet.errors import InputError
from lmanet.methods.wrap import as_backbone, wrap

CLASSES = 5


def smp(decoder: str, encoder: str = "resnet18", **options: Any) -> nn.Module:
    library = pytest.importorskip("segmentation_models_pytorch")
    return getattr(library, decoder)(encoder, encoder_weights=None, classes=CLASSES, **options)


def torchvision(name: str, **options: Any) -> nn.Module:
    from torchvision.models import segmentation

    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES, **options)


def transformers(name: str, backbone: dict[str, Any] | None = None, **config: Any) -> nn.Module:
    library = pytest.importorskip("transformers")
    if backbone:
        backbone_name, *_ = backbone
        stages = [f"stage{n}" for n in range(1, 5)]
        config["backbone_config"] = getattr(library, f"{backbone_name}Config")(
            out_features=stages, **backbone[backbone_name]
        )
    settings = getattr(library, f"{name}Config")(num_labels=CLASSES, **config)
    return getattr(library, f"{name}ForSemanticSegmentation")(settings)


VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 64,
}
CONVNEXT = {"ConvNext": {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 48]}}
SWIN = {"Swin": {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}}

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "smp Unet": lambda: smp("Unet", decoder_channels=(64, 48, 32, 16, 8)),
    "smp Unet++": lambda: smp("UnetPlusPlus", decoder_channels=(48, 32, 24, 16, 8)),
    "smp FPN": lambda: smp("FPN", decoder_pyramid_channels=32, decoder_segmentation_channels=32),
    "smp DeepLabV3": lambda: smp("DeepLabV3", decoder_channels=32),
    "smp DeepLabV3+": lambda: smp("DeepLabV3Plus", decoder_channels=32),
    "smp PSPNet": lambda: smp("PSPNet", psp_out_channels=64),
    "smp PAN": lambda: smp("PAN"),
    "smp Linknet": lambda: smp("Linknet"),
    "smp MAnet": lambda: smp("MAnet", decoder_channels=(64, 48, 32, 16, 8), decoder_pab_channels=16),
    "smp UPerNet": lambda: smp("UPerNet", decoder_channels=32),
    "smp Segformer": lambda: smp("Segformer", "mit_b0", decoder_segmentation_channels=32),
    "smp DPT": lambda: smp(
        "DPT",
        "tu-vit_tiny_patch16_224",
        dynamic_img_size=True,
        decoder_intermediate_channels=(16, 24, 32, 32),
        decoder_fusion_channels=32,
    ),
    "smp Unet of timm's ResNet": lambda: smp("Unet", "tu-resnet10t", decoder_channels=(64, 48, 32, 16, 8)),
    "torchvision FCN": lambda: torchvision("fcn_resnet50", aux_loss=True),
    "torchvision DeepLabV3": lambda: torchvision("deeplabv3_mobilenet_v3_large"),
    "torchvision LRASPP": lambda: torchvision("lraspp_mobilenet_v3_large"),
    "SegFormer": lambda: transformers(
        "Segformer", depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=32
    ),
    "UPerNet of ConvNeXt": lambda: transformers(
        "UperNet", CONVNEXT, hidden_size=32, auxiliary_in_channels=32
    ),
    "UPerNet of Swin": lambda: transformers("UperNet", SWIN, hidden_size=32, auxiliary_in_channels=64),
    "MobileViT": lambda: transformers(
        "MobileViT",
        hidden_sizes=[24, 32, 40],
        neck_hidden_sizes=[8, 8, 16, 24, 32, 40, 64],
        aspp_out_channels=32,
    ),
    "MobileViTV2": lambda: transformers("MobileViTV2", width_multiplier=0.5, aspp_out_channels=32),
    "MobileNetV2": lambda: transformers("MobileNetV2", depth_multiplier=0.35),
    "BEiT": lambda: transformers("Beit", out_indices=[0, 1, 2, 3], use_relative_position_bias=True, **VIT),
}
ONE_SIZE = {
    "DPT": lambda: transformers(
        "DPT",
        neck_hidden_sizes=[8, 16, 24, 32],
        fusion_hidden_size=24,
        backbone_out_indices=[0, 1, 2, 3],
        **{**VIT, "image_size": 224},
    ),
    "Data2Vec": lambda: transformers(
        "Data2VecVision", out_indices=[0, 1, 2, 3], **{**VIT, "image_size": 224}
    ),
    "smp DPT of one size": lambda: smp("DPT", "tu-vit_tiny_patch16_224"),
}


def made(name: str) -> nn.Module:
    with seeded(), warnings.catch_warnings():
        # The libraries' own, as they are imported and set up; what runs afterwards must not warn.
        warnings.simplefilter("ignore")
        return lively({**NETWORKS, **ONE_SIZE}[name]()).eval()


def original(wrapped: Wrapped, images: Tensor) -> Tensor:
    """What the network by itself makes of normalised images, at their size."""
    logits = logits_of(wrapped.model(wrapped.normalise(images)))
    if logits.shape[-2:] != images.shape[-2:]:
        logits = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
    return logits


@pytest.fixture(scope="module", params=NETWORKS)
def network(request) -> Wrapped:
    backbone = as_backbone(made(request.param)).eval()
    assert isinstance(backbone, Wrapped)
    return backbone


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
        assert not ours and getattr(module.forward, "__module__", "") != "lmanet.backbones.wrapped.cut"


@pytest.mark.parametrize("training_free", [False, True])
@torch.no_grad()
def test_with_a_memory_of_default_sizes_it_steps(network, training_free):
    segmenter = wrap(network, training_free=training_free).eval()
    assert 3 <= segmenter.window <= 21
    images = torch.rand(2, 1, 3, 128, 150)
    _, state = segmenter.step(images[0])
    logits, _ = segmenter.step(images[1], state)
    assert logits.shape == (1, CLASSES, 128, 150) and logits.isfinite().all()


@pytest.mark.parametrize("name", ONE_SIZE)
def test_networks_of_one_size_are_refused(name):
    with pytest.raises(
        InputError, match="networks of one fixed size, or of squares alone, are not supported"
    ):
        as_backbone(made(name))


@functools.cache
def cut(name: str) -> Backbone:
    return as_backbone(made(name))


class ThirdPartyContract(BackboneContract):
    """On images of 64×96, or what the network makes of them."""

    name: str
    sides = (64, 96)
    trains_all = True
    """Whether every parameter has a part in the logits."""

    def make(self) -> Wrapped:
        backbone = copy.deepcopy(cut(self.name))
        assert isinstance(backbone, Wrapped)
        return backbone

    @pytest.fixture
    def backbone(self, device):
        with seeded():
            backbone = lively(self.make()).to(device).double().eval()
            self.cells = tuple(n // backbone.stride for n in self.sides)
            # Random weights of a seed of their own: the networks begin with those of one, which a test wants to differ.
            for p in backbone.parameters():
                p.data.mul_(1 + 0.1 * torch.rand_like(p))
            yield backbone

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


def contract(name: str, **settings: Any) -> type[ThirdPartyContract]:
    return type(
        f"Test{''.join(filter(str.isalnum, name))}", (ThirdPartyContract,), {"name": name, **settings}
    )


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
