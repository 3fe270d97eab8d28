"""ESPNetv2 (Mehta et al., CVPR 2019) for segmentation: dilated depthwise convolutions, 0.79 million parameters.

Module names follow the published checkpoints (EdgeNets), so that they load as they are; see `lmanet.zoo.official`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmanet.backbones.base import Backbone, Features
from lmanet.errors import InputError
from lmanet.nn.convolution import fold_in_sequences, fold_norm, split_norm
from lmanet.nn.normalise import Normalise

WIDTHS: dict[float, tuple[int, int, int, int]] = {
    0.5: (16, 32, 64, 128),
    1.0: (32, 64, 128, 256),
    1.25: (32, 80, 160, 320),
    1.5: (32, 96, 192, 384),
    2.0: (32, 128, 256, 512),
}
"""Channels of the encoder at strides 2, 4, 8 and 16, by the scale."""

DECODER_WIDTHS = (64, 48, 32)
"""Channels of the decoder at strides 8, 4 and 2, before its pyramids."""

DILATIONS, DILATIONS_AT_16 = (1, 2, 3, 4), (1, 1, 2, 3)
"""Of a unit's branches."""

SIZES = (2.0, 1.5, 1.0, 0.5, 0.1)
"""Sizes in which a pyramid looks at a map, relative to its own; no side is below `LEAST_SIDE`."""

LEAST_SIDE = 5

MULTIPLE = 32
"""Of which the images' sides are multiples, as those of the training were."""


class Unit(nn.Module):
    """The network's unit (EESP): few channels, seen by dilated depthwise convolutions side by side, become many.

    What a branch sees is added to what the next one sees, which looks further.

    Args:
        inputs: channels.
        outputs: channels.
        dilations: of the branches.
        stride: 1, with the input added, or 2, which leaves that to `Downsampler`.
    """

    def __init__(self, inputs: int, outputs: int, dilations: Sequence[int], *, stride: int = 1) -> None:
        super().__init__()
        branches = len(dilations)
        width = outputs // branches
        self.proj_1x1 = _named(inputs, width, 1, groups=branches)
        self.spp_dw = nn.ModuleList(
            nn.Sequential(OrderedDict(conv=_convolution(width, width, 3, stride, dilation=d, groups=width)))
            for d in dilations
        )
        self.br_after_cat = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(outputs), act=nn.PReLU(outputs)))
        self.conv_1x1_exp = _named(outputs, outputs, 1, groups=branches, active=False)
        self.module_act = nn.PReLU(outputs) if stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h/stride, w/stride)."""
        few = self.proj_1x1(x)
        seen = accumulate(branch(few) for branch in self.spp_dw)
        many = self.conv_1x1_exp(self.br_after_cat(torch.cat(list(seen), 1)))
        return many if self.module_act is None else self.module_act(many + x)


class Downsampler(nn.Module):
    """Half the size: the input's means beside a strided unit, and onto both the image itself, brought to that size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.eesp = Unit(inputs, outputs - inputs, DILATIONS, stride=2)
        self.inp_reinf = nn.Sequential(_named(3, 3, 3), _named(3, outputs, 1, active=False))
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """(B, inputs, h, w) and the image as (B, 3, h/2, w/2) to (B, outputs, h/2, w/2)."""
        return self.act(torch.cat([_halved(x), self.eesp(x)], 1) + self.inp_reinf(image))


class Encoder(nn.Module):
    """Normalised images (B, 3, H, W) to maps at strides 2, 4, 8 and 16.

    Args:
        widths: channels of the four maps.
    """

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        at_2, at_4, at_8, at_16 = widths
        self.level1 = _named(3, at_2, 3, stride=2)
        self.level2_0 = Downsampler(at_2, at_4)
        self.level3_0 = Downsampler(at_4, at_8)
        self.level3 = nn.Sequential(*(Unit(at_8, at_8, DILATIONS) for _ in range(3)))
        self.level4_0 = Downsampler(at_8, at_16)
        self.level4 = nn.Sequential(*(Unit(at_16, at_16, DILATIONS_AT_16) for _ in range(7)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shapes as the class says."""
        at_2 = self.level1(image)
        image = _halved(_halved(image))
        at_4 = self.level2_0(at_2, image)
        image = _halved(image)
        at_8 = self.level3(self.level3_0(at_4, image))
        return at_2, at_4, at_8, self.level4(self.level4_0(at_8, _halved(image)))


class Pyramid(nn.Module):
    """A map of few channels, looked at in several sizes, to one of as many channels as are wanted.

    Args:
        inputs: channels.
        width: channels that are looked at.
        outputs: channels.
        last: whether it makes the logits.
    """

    def __init__(self, inputs: int, width: int, outputs: int, *, last: bool = False) -> None:
        super().__init__()
        self.projection_layer = _under("cbr", *_active(inputs, width, 1))
        self.stages = nn.ModuleList(_convolution(width, width, 3, groups=width) for _ in SIZES)
        together = width * len(SIZES)
        self.merge_layer = nn.Sequential(
            _under("br", nn.BatchNorm2d(together), nn.PReLU(together)),
            nn.ChannelShuffle(len(SIZES)),
            _under("cbr", *_active(together, width, 3, groups=width)),
            nn.Conv2d(width, outputs, 1, bias=last),
        )
        self.br = nn.Identity() if last else _under("br", nn.BatchNorm2d(outputs), nn.PReLU(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        x = self.projection_layer(x)
        seen = [_seen(x, stage, size) for stage, size in zip(self.stages, SIZES, strict=True)]
        return self.br(self.merge_layer(torch.cat(seen, 1)))

    def fold_norm(self) -> None:
        """Fold the norm of what was seen into the convolutions: the resizing between them is a weighted mean."""
        stages = [stage for stage in self.stages if isinstance(stage, nn.Conv2d)]
        widths = [stage.out_channels for stage in stages]
        seen = self.merge_layer.get_submodule("0.br")
        assert isinstance(seen, nn.Sequential)
        for stage, norm in zip(stages, split_norm(seen[0], *accumulate(widths[:-1])), strict=True):
            fold_norm(stage, norm)
        seen[0] = nn.Identity()


def _seen(x: Tensor, stage: nn.Module, size: float) -> Tensor:
    """A map convolved in another size, given back in its own."""
    if size == 1:
        return stage(x)
    own = (x.shape[-2], x.shape[-1])
    height, width = (max(math.ceil(side * size), LEAST_SIDE) for side in own)
    other = (height, width)
    if size > 1:
        larger = F.interpolate(x, other, mode="bilinear", align_corners=True)
        return F.adaptive_avg_pool2d(stage(larger), own)
    return F.interpolate(stage(F.adaptive_avg_pool2d(x, other)), own, mode="bilinear", align_corners=True)


class Skip(nn.Module):
    """A map of the encoder for the decoder: convolved, each channel weighed by what all of the map holds."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wt_layer = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.Sigmoid()
        )
        self.expansion_layer = _under("cbr", *_active(inputs, outputs, 3, groups=math.gcd(inputs, outputs)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        return self.expansion_layer(x) * self.wt_layer(x)


class ESPNetv2(Backbone):
    """ESPNetv2 as a backbone: the last 48 channels that the decoder makes at stride 8 go through the memory.

    The skip maps of strides 4 and 2 go around it. Takes RGB in [0, 1] and normalises it as ImageNet. Images of any
    size are padded to multiples of 32. Weights are kept `channels_last`.

    Args:
        num_classes: K, the number of classes.
        scale: of the encoder's width: 0.5, 1, 1.25, 1.5 or 2, that of the published segmentation.

    Raises:
        InputError: another scale.
    """

    channels = DECODER_WIDTHS[1]
    stride = 8
    normalisation = "as ImageNet, part of the network"

    def __init__(self, num_classes: int, *, scale: float = 2.0) -> None:
        super().__init__()
        if scale not in WIDTHS:
            raise InputError(f"ESPNetv2 of scale {scale}: expected one of {', '.join(map(str, WIDTHS))}")
        self.num_classes, self.config = num_classes, {"scale": float(scale)}
        at_2, at_4, at_8, at_16 = WIDTHS[scale]
        d8, d4, d2 = DECODER_WIDTHS
        width = max(1, min(num_classes // 2, 16))
        self.normalise = Normalise()
        self.base_net = Encoder(WIDTHS[scale])
        self.bu_dec_l1 = Pyramid(at_16, width, d8)
        self.bu_dec_l2 = Pyramid(d8, width, d4)
        self.bu_dec_l3 = Pyramid(d4, width, d2)
        self.bu_dec_l4 = Pyramid(d2, width, num_classes, last=True)
        self.merge_enc_dec_l2 = Skip(at_8, d8)
        self.merge_enc_dec_l3 = Skip(at_4, d4)
        self.merge_enc_dec_l4 = Skip(at_2, d2)
        self.bu_br_l2, self.bu_br_l3, self.bu_br_l4 = (
            nn.Sequential(nn.BatchNorm2d(n), nn.PReLU(n)) for n in DECODER_WIDTHS
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, H, W) in [0, 1], sides multiples of 32, to a fused map (B, 48, H/8, W/8)."""
        image = self.normalise(images.contiguous(memory_format=torch.channels_last))
        at_2, at_4, at_8, at_16 = self.base_net(image)
        at_8 = self.bu_br_l2(_doubled(self.bu_dec_l1(at_16)) + self.merge_enc_dec_l2(at_8))
        return Features(self.bu_dec_l2(at_8), (self.merge_enc_dec_l3(at_4), self.merge_enc_dec_l4(at_2)))

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Fused map (B, 48, h, w) and skip maps to logits (B, K, H, W)."""
        skip_4, skip_2 = features.rest
        x = self.bu_br_l3(_doubled(features.fused) + skip_4)
        x = self.bu_br_l4(_doubled(self.bu_dec_l3(x)) + skip_2)
        return F.interpolate(self.bu_dec_l4(x), size, mode="bilinear", align_corners=True)

    def padded_length(self, length: int) -> int:
        """The next multiple of 32."""
        return -(-length // MULTIPLE) * MULTIPLE

    def fold_norms(self) -> None:
        """Fold BatchNorm into the convolutions before it; those of sums stay."""
        fold_in_sequences(self)
        for pyramid in (self.bu_dec_l1, self.bu_dec_l2, self.bu_dec_l3, self.bu_dec_l4):
            pyramid.fold_norm()

    def encoder_parts(self) -> tuple[nn.Module, ...]:
        """Normalisation, the encoder, the decoder at strides 16 and 8, and the skip maps."""
        skips = (self.merge_enc_dec_l2, self.merge_enc_dec_l3, self.merge_enc_dec_l4)
        return (self.normalise, self.base_net, *skips, self.bu_dec_l1, self.bu_br_l2, self.bu_dec_l2)

    def decoder_parts(self) -> tuple[nn.Module, ...]:
        """The decoder at strides 4 and 2."""
        return (self.bu_br_l3, self.bu_dec_l3, self.bu_br_l4, self.bu_dec_l4)


def _convolution(
    inputs: int, outputs: int, side: int, stride: int = 1, *, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    padding = dilation * (side // 2)
    return nn.Conv2d(inputs, outputs, side, stride, padding, dilation, groups, bias=False)


def _active(inputs: int, outputs: int, side: int, **options: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return _convolution(inputs, outputs, side, **options), nn.BatchNorm2d(outputs), nn.PReLU(outputs)


def _named(inputs: int, outputs: int, side: int, *, active: bool = True, **options: int) -> nn.Sequential:
    """A convolution and its norm, with an activation or without, under the names that the encoder's have."""
    modules = _active(inputs, outputs, side, **options)
    return nn.Sequential(OrderedDict(zip(("conv", "bn", "act")[: 2 + active], modules, strict=False)))


def _under(name: str, *modules: nn.Module) -> nn.Sequential:
    """Modules one after the other, under one name more, as the decoder's are."""
    return nn.Sequential(OrderedDict({name: nn.Sequential(*modules)}))


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=2, padding=1)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
