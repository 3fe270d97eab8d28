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


def pspnet_by_formula(state: State, images: Tensor) -> Tensor:
    """Images (B, 3, 8h - 7, 8w - 7) in [0, 1] to logits of the same size."""
    fused = pspnet_encoder_by_formula(state, images)
    return pspnet_decoder_by_formula(state, fused, (images.shape[-2], images.shape[-1]))


def convolved(x: Tensor, state: State, name: str) -> Tensor:
    """A convolution with a bias that keeps the size."""
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def read_by_formula(query: Tensor, keys: list[Tensor], values: list[Tensor], window: int) -> Tensor:
    """Local attention over maps padded with zeros, which stay in the softmax: place by place of the window."""
    radius, (height, width) = window // 2, query.shape[-2:]
    places = [(slice(y, y + height), slice(x, x + width)) for y in range(window) for x in range(window)]
    keys, values = ([F.pad(x, [radius] * 4) for x in maps] for maps in (keys, values))
    scores = torch.stack([(query * key[..., y, x]).sum(1) for key in keys for y, x in places])
    weights = iter(scores.softmax(0))
    return sum(value[..., y, x] * next(weights)[:, None] for value in values for y, x in places)  # pyright: ignore


def within(state: State, name: str) -> State:
    """The tensors of one module."""
    return {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}


def factorised_pair(x: Tensor, state: State, name: str, pair: int, dilation: int) -> Tensor:
    """A 3×3 convolution of ERFNet as 3×1, ReLU, 1×3 and BatchNorm."""
    tall, wide = f"{name}.conv3x1_{pair}", f"{name}.conv1x3_{pair}"
    x = F.conv2d(F.pad(x, (0, 0, dilation, dilation)), state[f"{tall}.weight"], dilation=(dilation, 1))
    x = (x + state[f"{tall}.bias"][:, None, None]).relu()
    x = F.conv2d(F.pad(x, (dilation, dilation)), state[f"{wide}.weight"], dilation=(1, dilation))
    return batch_norm(x + state[f"{wide}.bias"][:, None, None], state, f"{name}.bn{pair}", 1e-3)


def factorised_block(x: Tensor, state: State, name: str, dilation: int = 1) -> Tensor:
    """A residual block of ERFNet."""
    y = factorised_pair(x, state, name, 1, 1).relu()
    return (x + factorised_pair(y, state, name, 2, dilation)).relu()


def erfnet_encoder_by_formula(state: State, images: Tensor) -> Tensor:
    """Images (B, 3, 8h, 8w) in [0, 1] to the encoder's map (B, 128, h, w)."""

    def down(x: Tensor, name: str) -> Tensor:
        strided = F.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], 2, 1)
        return batch_norm(torch.cat([strided, F.max_pool2d(x, 2)], 1), state, f"{name}.bn", 1e-3).relu()

    x = down(down(images, "encoder.initial_block"), "encoder.layers.0")
    for i in range(1, 6):
        x = factorised_block(x, state, f"encoder.layers.{i}")
    x = down(x, "encoder.layers.6")
    for i, dilation in enumerate((2, 4, 8, 16, 2, 4, 8, 16), start=7):
        x = factorised_block(x, state, f"encoder.layers.{i}", dilation)
    return x


def erfnet_decoder_by_formula(state: State, fused: Tensor) -> Tensor:
    """The encoder's map (B, 128, h, w) to logits (B, K, 8h, 8w)."""
    x = fused
    for i in (0, 3):
        weight, bias = state[f"decoder.layers.{i}.conv.weight"], state[f"decoder.layers.{i}.conv.bias"]
        x = F.conv_transpose2d(x, weight, bias, 2, 1, output_padding=1)
        x = batch_norm(x, state, f"decoder.layers.{i}.bn", 1e-3).relu()
        for j in (i + 1, i + 2):
            x = factorised_block(x, state, f"decoder.layers.{j}")
    weight, bias = state["decoder.output_conv.weight"], state["decoder.output_conv.bias"]
    return F.conv_transpose2d(x, weight, bias, 2)


def lmanet_erfnet_by_formula(state: State, clip: Tensor, *, window: int) -> Tensor:
    """The original LMANet on ERFNet: a clip (B, S + 1, 3, H, W) to the last frame's logits; equation 6."""
    *past, fused = (erfnet_encoder_by_formula(state, images) for images in clip.unbind(1))
    keys = [convolved(x, state, "kv_M_r4.Key") for x in past]
    values = [convolved(x, state, "kv_M_r4.Value") for x in past]
    read = read_by_formula(convolved(fused, state, "kv_Q_r4.Key"), keys, values, window)
    state_of = within(state, "memory_fusion.")
    query = batch_norm(convolved(fused, state, "kv_Q_r4.Value"), state_of, "bn1", 1e-3).relu()
    read = batch_norm(read, state_of, "bn2", 1e-3).relu()
    both = torch.cat([query, read], 1)
    total = convolved(query, state_of, "conv_layer_1") * convolved(both, state_of, "conv_layer_3").sigmoid()
    total += convolved(read, state_of, "conv_layer_2") * convolved(both, state_of, "conv_layer_4").sigmoid()
    return erfnet_decoder_by_formula(state, batch_norm(total, state_of, "bn", 1e-3).relu())


def lmanet_pspnet_by_formula(state: State, clip: Tensor, *, window: int) -> Tensor:
    """The original LMANet on PSPNet: a clip (B, S + 1, 3, H, W) to the last frame's logits."""
    encoder = within(state, "encoder.")
    *past, fused = (pspnet_encoder_by_formula(encoder, images) for images in clip.unbind(1))
    keys = [convolved(x, state, "kv_M_r4.Key") for x in past]
    read = read_by_formula(convolved(fused, state, "kv_Q_r4.Key"), keys, past, window)
    state_of = within(state, "memory_fusion.")
    narrow = convolved(fused, state_of, "conv_layer_1") + convolved(read, state_of, "conv_layer_1")
    narrow = batch_norm(narrow, state_of, "bn0", 1e-3).relu()
    total = fused * convolved(narrow, state_of, "conv_layer_3").sigmoid()
    total += read * convolved(narrow, state_of, "conv_layer_4").sigmoid()
    decoder = within(state, "decoder.") | {k: v for k, v in state.items() if k.startswith("ppm.")}
    fused = batch_norm(total, state_of, "bn", 1e-3).relu()
    return pspnet_decoder_by_formula(decoder, fused, (clip.shape[-2], clip.shape[-1]))
