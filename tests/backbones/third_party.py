"""Networks that people have, as they come from their libraries: random weights, as small as their settings allow."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Container, Iterable
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn import functional as F

from contracts.networks import lively, seeded
from lmanet.backbones import Wrapped, as_backbone

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
QUICK = {"smp Unet", "smp FPN", "torchvision LRASPP", "SegFormer", "UPerNet of ConvNeXt"}
"""The few that every run of the tests tries, one of each kind; the last has an auxiliary head."""

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


def logits_in(returned: Any) -> Tensor:
    """Where these libraries have them."""
    return returned if isinstance(returned, Tensor) else returned["out" if "out" in returned else "logits"]


def original(wrapped: Wrapped, images: Tensor) -> Tensor:
    """What the network by itself makes of normalised images, at their size."""
    logits = logits_in(wrapped.model(wrapped.normalise(images)))
    if logits.shape[-2:] != images.shape[-2:]:
        logits = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
    return logits


@functools.lru_cache(8)
def cut(name: str) -> Wrapped:
    """Cut where it is best, in `eval` mode; of all tests, which are not to change it."""
    backbone = as_backbone(made(name)).eval()
    assert isinstance(backbone, Wrapped)
    return backbone


def listed(names: Iterable[str], quick: Container[str]) -> list[Any]:
    """Parameters of a test, of which all but a few are slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]
