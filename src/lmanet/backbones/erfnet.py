"""ERFNet (Romera et al., IEEE T-ITS 2018): 2.07 million parameters at 20 classes, stride 8.

Module names follow the published checkpoints, so that `erfnet_pretrained.pth` loads after its `module.` prefix
is taken off; see `lmanet.zoo.official`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmanet.backbones.base import Backbone, Features
from lmanet.nn.convolution import fold_norm, split_norm

BATCH_NORM_EPS = 1e-3


class Downsampler(nn.Module):
    """Half the size: a strided 3×3 convolution beside a max pooling of the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        return F.relu_(self.bn(torch.cat([self.conv(x), self.pool(x)], 1)))

    def fold_norm(self) -> None:
        """Fold the norm into the convolution; what was pooled keeps its share of it."""
        of_conv, of_pool = split_norm(self.bn, self.conv.out_channels)
        self.bn = fold_norm(self.conv, of_conv)
        self.pool = nn.Sequential(PairwiseMax(), of_pool)


class PairwiseMax(nn.Module):
    """Max pooling by 2, for inference: `nn.MaxPool2d` also notes where each maximum was, which costs more."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2)."""
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


class NonBottleneck1d(nn.Module):
    """A residual block of two 3×3 convolutions, each factorised into 3×1 and 1×3; the second pair dilated."""

    def __init__(self, channels: int, dropout: float, dilation: int) -> None:
        super().__init__()
        d = dilation
        self.conv3x1_1 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)
        self.conv3x1_2 = nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), dilation=(d, 1))
        self.conv1x3_2 = nn.Conv2d(channels, channels, (1, 3), padding=(0, d), dilation=(1, d))
        self.bn2 = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        y = F.relu_(self.conv3x1_1(x))
        y = F.relu_(self.bn1(self.conv1x3_1(y)))
        y = F.relu_(self.conv3x1_2(y))
        y = self.dropout(self.bn2(self.conv1x3_2(y)))
        return F.relu_(y.add_(x))

    def fold_norm(self) -> None:
        """Fold both norms into the convolutions before them."""
        self.bn1 = fold_norm(self.conv1x3_1, self.bn1)
        self.bn2 = fold_norm(self.conv1x3_2, self.bn2)


class Upsampler(nn.Module):
    """Twice the size by a transposed convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, 2H, 2W)."""
        return F.relu_(self.bn(self.conv(x)))

    def fold_norm(self) -> None:
        """Fold the norm into the transposed convolution."""
        self.bn = fold_norm(self.conv, self.bn)


class Encoder(nn.Module):
    """Images (B, 3, H, W) to features (B, 128, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.initial_block = Downsampler(3, 16)
        dilated = [NonBottleneck1d(128, 0.3, d) for _ in range(2) for d in (2, 4, 8, 16)]
        self.layers = nn.ModuleList(
            [
                Downsampler(16, 64),
                *(NonBottleneck1d(64, 0.03, 1) for _ in range(5)),
                Downsampler(64, 128),
                *dilated,
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as the class says."""
        x = self.initial_block(x)
        for layer in self.layers:
            x = layer(x)
        return x


class Decoder(nn.Module):
    """Features (B, 128, h, w) to logits (B, K, 8h, 8w)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                Upsampler(128, 64),
                NonBottleneck1d(64, 0.0, 1),
                NonBottleneck1d(64, 0.0, 1),
                Upsampler(64, 16),
                NonBottleneck1d(16, 0.0, 1),
                NonBottleneck1d(16, 0.0, 1),
            ]
        )
        self.output_conv = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as the class says."""
        for layer in self.layers:
            x = layer(x)
        return self.output_conv(x)


class ERFNet(Backbone):
    """ERFNet as a backbone: 128 channels at stride 8 go through the memory.

    Takes RGB in [0, 1] without further normalisation, as the published checkpoint does. Weights are kept
    `channels_last`, which is twice as fast on a CPU.

    Args:
        num_classes: K, the number of classes.
    """

    channels = 128
    stride = 8

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = Encoder()
        self.decoder = Decoder(num_classes)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, H, W) in [0, 1], H and W multiples of 8, to a fused map (B, 128, H/8, W/8)."""
        return Features(self.encoder(images.contiguous(memory_format=torch.channels_last)))

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Fused map (B, 128, h, w) to logits (B, K, H, W)."""
        logits = self.decoder(features.fused)
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits

    def fold_norms(self) -> None:
        """Fold every BatchNorm into the convolution before it."""
        for module in self.modules():
            if isinstance(module, Downsampler | NonBottleneck1d | Upsampler):
                module.fold_norm()

    def encoder_parts(self) -> tuple[nn.Module, ...]:
        """The encoder."""
        return (self.encoder,)

    def decoder_parts(self) -> tuple[nn.Module, ...]:
        """The decoder."""
        return (self.decoder,)
