"""Published checkpoints, made with their keys and shapes and random weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Maker:
    """Collects tensors under the published keys, in the published order."""

    def __init__(self, seed: int = 0) -> None:
        self.tensors: Tensors = {}
        self.generator = torch.Generator().manual_seed(seed)

    def conv(self, name: str, *shape: int, bias: int | None = None, gain: float = 1.0) -> None:
        """A convolution's weight of this shape, and its bias.

        The keys' have a gain that makes scores of about 1: a softmax neither of all places alike nor of one alone.
        """
        fan_in = shape[1] * shape[2] * shape[3]
        weight = torch.randn(shape, generator=self.generator) * gain * (2 / fan_in) ** 0.5
        self.tensors[f"module.{name}.weight"] = weight
        if bias is not None:
            self.tensors[f"module.{name}.bias"] = torch.randn(bias, generator=self.generator) * 0.1

    def norm(self, name: str, channels: int, *, gain: float = 1.0, counted: bool = True) -> None:
        """A BatchNorm; PyTorch 0.3, of ERFNet's time, did not count batches."""
        for key in ("weight", "bias", "running_mean", "running_var"):
            value = torch.rand(channels, generator=self.generator) + 0.5
            self.tensors[f"module.{name}.{key}"] = {"weight": gain, "running_var": 1.0}.get(key, 0.2) * value
        if counted:
            self.tensors[f"module.{name}.num_batches_tracked"] = torch.tensor(7)

    def slopes(self, name: str, channels: int) -> None:
        """A PReLU: one slope for what is negative in each channel."""
        self.tensors[f"module.{name}.weight"] = torch.rand(channels, generator=self.generator) * 0.5


def erfnet_checkpoint(num_classes: int = 20) -> Tensors:
    """`erfnet_pretrained.pth`."""
    maker = Maker()
    _erfnet(maker, num_classes, counted=False)
    return maker.tensors


def pspnet_checkpoint(layers: int, num_classes: int = 19) -> Tensors:
    """The `state_dict` of semseg's `train_epoch_200.pth`."""
    maker = Maker()
    _resnet(maker, layers)
    _pooling(maker)
    _head(maker, "cls", 4096, 512, num_classes)
    _head(maker, "aux", 1024, 256, num_classes)
    return maker.tensors


def lmanet_erfnet_checkpoint() -> Tensors:
    """`lmanet_erf_best.pth`."""
    maker = Maker()
    _erfnet(maker, None)
    for of in ("M", "Q"):
        maker.conv(f"kv_{of}_r4.Key", 16, 128, 3, 3, bias=16, gain=0.25)
        maker.conv(f"kv_{of}_r4.Value", 64, 128, 3, 3, bias=64)
    maker.norm("memory_fusion.bn1", 64)
    maker.norm("memory_fusion.bn2", 64)
    maker.conv("memory_fusion.conv_layer_1", 128, 64, 3, 3, bias=128)
    maker.conv("memory_fusion.conv_layer_2", 128, 64, 3, 3, bias=128)
    maker.conv("memory_fusion.conv_layer_3", 128, 128, 3, 3, bias=128)
    maker.conv("memory_fusion.conv_layer_4", 128, 128, 3, 3, bias=128)
    maker.norm("memory_fusion.bn", 128)
    _erfnet_decoder(maker, 20)
    return maker.tensors


def lmanet_pspnet_checkpoint(layers: int = 101) -> Tensors:
    """`lmanet_psp101_best.pth`."""
    maker = Maker()
    _resnet(maker, layers, "encoder.")
    for of in ("M", "Q"):
        maker.conv(f"kv_{of}_r4.Key", 128, 2048, 3, 3, bias=128, gain=0.005)
    maker.norm("memory_fusion.bn0", 256)
    maker.conv("memory_fusion.conv_layer_1", 256, 2048, 1, 1, bias=256)
    maker.conv("memory_fusion.conv_layer_2", 256, 2048, 1, 1, bias=256)
    maker.conv("memory_fusion.conv_layer_3", 2048, 256, 1, 1, bias=2048)
    maker.conv("memory_fusion.conv_layer_4", 2048, 256, 1, 1, bias=2048)
    maker.norm("memory_fusion.bn", 2048)
    _pooling(maker)
    _head(maker, "decoder.cls", 4096, 512, 19)
    return maker.tensors


def _down(maker: Maker, name: str, inputs: int, outputs: int, *, counted: bool) -> None:
    maker.conv(f"{name}.conv", outputs - inputs, inputs, 3, 3, bias=outputs - inputs)
    maker.norm(f"{name}.bn", outputs, counted=counted)


def _factorised(maker: Maker, name: str, channels: int, *, counted: bool) -> None:
    for pair in (1, 2):
        maker.conv(f"{name}.conv3x1_{pair}", channels, channels, 3, 1, bias=channels)
        maker.conv(f"{name}.conv1x3_{pair}", channels, channels, 1, 3, bias=channels)
        maker.norm(f"{name}.bn{pair}", channels, gain=0.5, counted=counted)


def _erfnet(maker: Maker, num_classes: int | None, *, counted: bool = True) -> None:
    """The encoder; with a number of classes also its classifier and the decoder."""
    _down(maker, "encoder.initial_block", 3, 16, counted=counted)
    _down(maker, "encoder.layers.0", 16, 64, counted=counted)
    for i in range(1, 6):
        _factorised(maker, f"encoder.layers.{i}", 64, counted=counted)
    _down(maker, "encoder.layers.6", 64, 128, counted=counted)
    for i in range(7, 15):
        _factorised(maker, f"encoder.layers.{i}", 128, counted=counted)
    if num_classes is not None:
        maker.conv("encoder.output_conv", num_classes, 128, 1, 1, bias=num_classes)
        _erfnet_decoder(maker, num_classes, counted=counted)


def _erfnet_decoder(maker: Maker, num_classes: int, *, counted: bool = True) -> None:
    for i, (inputs, outputs) in ((0, (128, 64)), (3, (64, 16))):
        maker.conv(f"decoder.layers.{i}.conv", inputs, outputs, 3, 3, bias=outputs)
        maker.norm(f"decoder.layers.{i}.bn", outputs, counted=counted)
        for j in (i + 1, i + 2):
            _factorised(maker, f"decoder.layers.{j}", outputs, counted=counted)
    maker.conv("decoder.output_conv", 16, num_classes, 2, 2, bias=num_classes)


def _resnet(maker: Maker, layers: int, inside: str = "") -> None:
    for number, (inputs, outputs) in ((0, (3, 64)), (3, (64, 64)), (6, (64, 128))):
        maker.conv(f"{inside}layer0.{number}", outputs, inputs, 3, 3)
        maker.norm(f"{inside}layer0.{number + 1}", outputs)
    inputs = 128
    for stage, blocks in enumerate(BLOCKS[layers], start=1):
        width = 32 * 2**stage
        for block in range(blocks):
            name = f"{inside}layer{stage}.{block}"
            maker.conv(f"{name}.conv1", width, inputs, 1, 1)
            maker.norm(f"{name}.bn1", width)
            maker.conv(f"{name}.conv2", width, width, 3, 3)
            maker.norm(f"{name}.bn2", width)
            maker.conv(f"{name}.conv3", 4 * width, width, 1, 1)
            maker.norm(f"{name}.bn3", 4 * width, gain=0.3)
            if block == 0:
                maker.conv(f"{name}.downsample.0", 4 * width, inputs, 1, 1)
                maker.norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width


def _pooling(maker: Maker) -> None:
    for number in range(4):
        maker.conv(f"ppm.features.{number}.1", 512, 2048, 1, 1)
        maker.norm(f"ppm.features.{number}.2", 512)


def _head(maker: Maker, name: str, inputs: int, width: int, num_classes: int) -> None:
    maker.conv(f"{name}.0", width, inputs, 3, 3)
    maker.norm(f"{name}.1", width)
    maker.conv(f"{name}.4", num_classes, width, 1, 1, bias=num_classes)


def espnetv2_checkpoint(
    num_classes: int = 20, widths: tuple[int, int, int, int] = (32, 128, 256, 512)
) -> Tensors:
    """`espnetv2_s_2.0_city_1024x512.pth`, of the widths of other scales too."""
    maker = Maker()
    at_2, at_4, at_8, at_16 = widths
    _named(maker, "base_net.level1", at_2, 3, 3)
    for level, (inputs, outputs) in ((2, (at_2, at_4)), (3, (at_4, at_8)), (4, (at_8, at_16))):
        name = f"base_net.level{level}_0"
        _unit(maker, f"{name}.eesp", inputs, outputs - inputs)
        _named(maker, f"{name}.inp_reinf.0", 3, 3, 3)
        _named(maker, f"{name}.inp_reinf.1", outputs, 3, 1, active=False)
        maker.slopes(f"{name}.act", outputs)
        for number in range({2: 0, 3: 3, 4: 7}[level]):
            _unit(maker, f"base_net.level{level}.{number}", outputs, outputs)
    width = min(num_classes // 2, 16)
    for number, (inputs, outputs) in enumerate(((at_16, 64), (64, 48), (48, 32), (32, num_classes)), start=1):
        _pyramid(maker, f"bu_dec_l{number}", inputs, width, outputs, last=number == 4)
    for number, (inputs, outputs) in ((2, (at_8, 64)), (3, (at_4, 48)), (4, (at_2, 32))):
        maker.conv(f"merge_enc_dec_l{number}.wt_layer.1", outputs, inputs, 1, 1)
        _in_a_row(
            maker,
            f"merge_enc_dec_l{number}.expansion_layer.cbr",
            outputs,
            inputs // math.gcd(inputs, outputs),
            3,
        )
        maker.norm(f"bu_br_l{number}.0", outputs, gain=0.5)
        maker.slopes(f"bu_br_l{number}.1", outputs)
    return maker.tensors


def _named(maker: Maker, name: str, outputs: int, inputs: int, side: int, *, active: bool = True) -> None:
    maker.conv(f"{name}.conv", outputs, inputs, side, side)
    maker.norm(f"{name}.bn", outputs)
    if active:
        maker.slopes(f"{name}.act", outputs)


def _in_a_row(maker: Maker, name: str, outputs: int, inputs: int, side: int) -> None:
    maker.conv(f"{name}.0", outputs, inputs, side, side)
    maker.norm(f"{name}.1", outputs)
    maker.slopes(f"{name}.2", outputs)


def _unit(maker: Maker, name: str, inputs: int, outputs: int) -> None:
    width = outputs // 4
    _named(maker, f"{name}.proj_1x1", width, inputs // 4, 1)
    for branch in range(4):
        maker.conv(f"{name}.spp_dw.{branch}.conv", width, 1, 3, 3)
    maker.norm(f"{name}.br_after_cat.bn", outputs)
    maker.slopes(f"{name}.br_after_cat.act", outputs)
    _named(maker, f"{name}.conv_1x1_exp", outputs, width, 1, active=False)
    maker.slopes(f"{name}.module_act", outputs)


def _pyramid(maker: Maker, name: str, inputs: int, width: int, outputs: int, *, last: bool) -> None:
    _in_a_row(maker, f"{name}.projection_layer.cbr", width, inputs, 1)
    for number in range(5):
        maker.conv(f"{name}.stages.{number}", width, 1, 3, 3)
    maker.norm(f"{name}.merge_layer.0.br.0", 5 * width)
    maker.slopes(f"{name}.merge_layer.0.br.1", 5 * width)
    _in_a_row(maker, f"{name}.merge_layer.2.cbr", width, 5, 3)
    maker.conv(f"{name}.merge_layer.3", outputs, width, 1, 1, bias=outputs if last else None)
    if not last:
        maker.norm(f"{name}.br.br.0", outputs)
        maker.slopes(f"{name}.br.br.1", outputs)
