"""ESPNetv2 for segmentation as its paper defines it: functions of tensors under the names of the published files."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.formulas import State, batch_norm

DILATIONS = {2: (1, 2, 3, 4), 3: (1, 2, 3, 4), 4: (1, 1, 2, 3)}
"""Of the units of stride 1, by the level; those of stride 2 have all four."""


def espnetv2_by_formula(state: State, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1], sides multiples of 32, to logits of the same size."""
    mean, std = (torch.tensor(x).to(images) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    image = ((images.movedim(1, -1) - mean) / std).movedim(-1, 1)
    x = convolved(image, state, "base_net.level1", stride=2)
    maps = {1: x}
    image = F.avg_pool2d(image, 3, 2, 1)
    for level in (2, 3, 4):
        image = F.avg_pool2d(image, 3, 2, 1)
        name = f"base_net.level{level}_0"
        halves = F.avg_pool2d(x, 3, 2, 1), unit(x, state, f"{name}.eesp", (1, 2, 3, 4), stride=2)
        again = convolved(convolved(image, state, f"{name}.inp_reinf.0"), state, f"{name}.inp_reinf.1")
        x = F.prelu(torch.cat(halves, 1) + again, state[f"{name}.act.weight"])
        number = 0
        while f"base_net.level{level}.{number}.module_act.weight" in state:
            x = unit(x, state, f"base_net.level{level}.{number}", DILATIONS[level])
            number += 1
        maps[level] = x
    x = pyramid(x, state, "bu_dec_l1")
    for number, level in ((2, 3), (3, 2), (4, 1)):
        skip, name = maps[level], f"merge_enc_dec_l{number}"
        weight = F.conv2d(skip.mean((-2, -1), keepdim=True), state[f"{name}.wt_layer.1.weight"]).sigmoid()
        x = resized(x, (2 * x.shape[-2], 2 * x.shape[-1])) + weight * block(
            skip, state, f"{name}.expansion_layer.cbr"
        )
        x = F.prelu(batch_norm(x, state, f"bu_br_l{number}.0"), state[f"bu_br_l{number}.1.weight"])
        x = pyramid(x, state, f"bu_dec_l{number}")
    return resized(x, (images.shape[-2], images.shape[-1]))


def unit(x: Tensor, state: State, name: str, dilations: tuple[int, ...], stride: int = 1) -> Tensor:
    few = convolved(x, state, f"{name}.proj_1x1")
    seen = []
    for number, d in enumerate(dilations):
        y = F.conv2d(few, state[f"{name}.spp_dw.{number}.conv.weight"], None, stride, d, d, few.shape[1])
        seen.append(y + seen[-1] if seen else y)
    y = batch_norm(torch.cat(seen, 1), state, f"{name}.br_after_cat.bn")
    y = convolved(F.prelu(y, state[f"{name}.br_after_cat.act.weight"]), state, f"{name}.conv_1x1_exp")
    return y if stride == 2 else F.prelu(x + y, state[f"{name}.module_act.weight"])


def pyramid(x: Tensor, state: State, name: str) -> Tensor:
    x = block(x, state, f"{name}.projection_layer.cbr")
    own, channels, seen = (x.shape[-2], x.shape[-1]), x.shape[1], []
    for number, size in enumerate((2, 1.5, 1, 0.5, 0.1)):
        other = (max(5, math.ceil(own[0] * size)), max(5, math.ceil(own[1] * size)))
        y = resized(x, other) if size > 1 else F.adaptive_avg_pool2d(x, other) if size < 1 else x
        y = F.conv2d(y, state[f"{name}.stages.{number}.weight"], padding=1, groups=channels)
        seen.append(F.adaptive_avg_pool2d(y, own) if size > 1 else resized(y, own) if size < 1 else y)
    x = batch_norm(torch.cat(seen, 1), state, f"{name}.merge_layer.0.br.0")
    x = F.prelu(x, state[f"{name}.merge_layer.0.br.1.weight"])
    # Of each channel its five sizes side by side.
    x = torch.stack(x.split(channels, 1), 2).flatten(1, 2)
    x = block(x, state, f"{name}.merge_layer.2.cbr")
    x = F.conv2d(x, state[f"{name}.merge_layer.3.weight"], state.get(f"{name}.merge_layer.3.bias"))
    if f"{name}.br.br.0.weight" in state:
        x = F.prelu(batch_norm(x, state, f"{name}.br.br.0"), state[f"{name}.br.br.1.weight"])
    return x


def convolved(x: Tensor, state: State, name: str, stride: int = 1) -> Tensor:
    """A convolution with its norm, and its activation if it has one."""
    weight = state[f"{name}.conv.weight"]
    x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, x.shape[1] // weight.shape[1])
    x = batch_norm(x, state, f"{name}.bn")
    return F.prelu(x, state[f"{name}.act.weight"]) if f"{name}.act.weight" in state else x


def block(x: Tensor, state: State, name: str) -> Tensor:
    weight = state[f"{name}.0.weight"]
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])
    return F.prelu(batch_norm(x, state, f"{name}.1"), state[f"{name}.2.weight"])


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
