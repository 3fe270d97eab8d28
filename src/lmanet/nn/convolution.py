"""Convolutions that share their input run as one, and BatchNorm folded into them for inference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

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


@torch.no_grad()
def fold_in_sequences(network: nn.Module) -> None:
    """Fold every BatchNorm that follows a convolution in one of a network's `nn.Sequential`s, in place."""
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for i, (module, after) in enumerate(pairwise(list(sequence))):
            if isinstance(module, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                sequence[i + 1] = fold_norm(module, after)


def split_norm(norm: nn.Module, *places: int) -> tuple[nn.BatchNorm2d, ...]:
    """A BatchNorm in `eval` mode as several, each of the channels from one place up to the next."""
    assert isinstance(norm, nn.BatchNorm2d)
    parts = []
    for start, end in pairwise((0, *places, norm.num_features)):
        values = {name: value[start:end] for name, value in norm.state_dict().items() if value.ndim}
        part = nn.BatchNorm2d(end - start, eps=norm.eps).to(norm.weight).eval()
        part.load_state_dict(values, strict=False)
        parts.append(part)
    return tuple(parts)


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
