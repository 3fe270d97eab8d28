"""Convolutions that share their input run as one, and BatchNorm folded into them for inference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights


def convolve_as_one(convolutions: Sequence[nn.Conv2d], x: Tensor) -> Tensor:
    """What each of some convolutions makes of the same map, by one convolution with the outputs of all.

    Args:
        convolutions: alike in everything but their weights and number of outputs; all with a bias.
        x: (B, C, h, w).

    Returns:
        (B, the sum of their outputs, h, w), one after the other.
    """
    weight = torch.cat([convolution.weight for convolution in convolutions])
    bias = torch.cat([_bias(convolution) for convolution in convolutions])
    first = convolutions[0]
    return F.conv2d(x, weight, bias, first.stride, first.padding, first.dilation, first.groups)


@torch.no_grad()
def fold_norm(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module) -> nn.Identity:
    """Change a convolution's weights to do also what a BatchNorm after it does in `eval` mode.

    Returns:
        What takes the norm's place.
    """
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(convolution, nn.ConvTranspose2d),
    )
    return nn.Identity()


def split_norm(norm: nn.Module, channels: int) -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    """A BatchNorm as two in `eval` mode: that of the first channels, and that of the others."""
    assert isinstance(norm, nn.BatchNorm2d)
    parts = []
    for part in (slice(None, channels), slice(channels, None)):
        values = {name: value[part] for name, value in norm.state_dict().items() if value.ndim}
        half = nn.BatchNorm2d(len(values["weight"]), eps=norm.eps).to(norm.weight).eval()
        half.load_state_dict(values, strict=False)
        parts.append(half)
    return parts[0], parts[1]


class Shift(nn.Module):
    """What is left of a BatchNorm whose scale was folded away: adds a number to each channel, in place.

    Args:
        shift: (C,).
    """

    shift: Tensor

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w), changed and returned."""
        return x.add_(self.shift)


@torch.no_grad()
def fold_scale(convolutions: Sequence[nn.Conv2d], norm: nn.Module) -> Shift:
    """Scale convolutions as a BatchNorm after a sum of their outputs does in `eval` mode.

    For a weighted sum, where the norm's shift fits into no bias.

    Returns:
        What takes the norm's place.
    """
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    for convolution in convolutions:
        convolution.weight *= scale[:, None, None, None]
        _bias(convolution).mul_(scale)
    return Shift(norm.bias - norm.running_mean * scale)


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias
