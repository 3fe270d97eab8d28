"""Networks as their papers define them: plain functions of tensors under the names of the published checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


def batch_norm(x: Tensor, state: State, name: str, eps: float = 1e-5) -> Tensor:
    """With the running statistics."""
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], eps=eps)


def bottleneck_block(x: Tensor, state: State, name: str, stride: int, dilation: int) -> Tensor:
    """A block of ResNet: 1×1, 3×3 with the stride, 1×1, and the shortcut."""
    y = batch_norm(F.conv2d(x, state[f"{name}.conv1.weight"]), state, f"{name}.bn1").relu()
    y = F.conv2d(y, state[f"{name}.conv2.weight"], None, stride, dilation, dilation)
    y = batch_norm(y, state, f"{name}.bn2").relu()
    y = batch_norm(F.conv2d(y, state[f"{name}.conv3.weight"]), state, f"{name}.bn3")
    if f"{name}.downsample.0.weight" in state:
        x = F.conv2d(x, state[f"{name}.downsample.0.weight"], None, stride)
        x = batch_norm(x, state, f"{name}.downsample.1")
    return (x + y).relu()


def pspnet_encoder_by_formula(state: State, images: Tensor) -> Tensor:
    """Images (B, 3, 8h - 7, 8w - 7) in [0, 1] to the last stage's map (B, 2048, h, w)."""
    mean, std = (torch.tensor(x).to(images) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = ((images.movedim(1, -1) - mean) / std).movedim(-1, 1)
    for number, stride in ((0, 2), (3, 1), (6, 1)):
        x = F.conv2d(x, state[f"layer0.{number}.weight"], None, stride, 1)
        x = batch_norm(x, state, f"layer0.{number + 1}").relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4)), start=1):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            x = bottleneck_block(x, state, f"layer{stage}.{block}", 1 if block else stride, dilation)
            block += 1
    return x


def pspnet_decoder_by_formula(state: State, fused: Tensor, size: tuple[int, int]) -> Tensor:
    """The last stage's map (B, 2048, h, w) to logits at `size`."""
    parts = [fused]
    for number, side in enumerate((1, 2, 3, 6)):
        name = f"ppm.features.{number}"
        pooled = F.conv2d(F.adaptive_avg_pool2d(fused, side), state[f"{name}.1.weight"])
        pooled = batch_norm(pooled, state, f"{name}.2").relu()
        parts.append(F.interpolate(pooled, fused.shape[-2:], mode="bilinear", align_corners=True))
    x = F.conv2d(torch.cat(parts, 1), state["cls.0.weight"], padding=1)
    x = F.conv2d(batch_norm(x, state, "cls.1").relu(), state["cls.4.weight"], state["cls.4.bias"])
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def erfnet_by_formula(state: State, images: Tensor) -> tuple[Tensor, Tensor]:
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
