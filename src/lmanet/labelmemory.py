"""What every memory of labels shares: the way of a frame, the keys, and what is remembered.

A cell of the present frame looks for itself in the frames before by local attention. What was said of the places that
it finds is set against what the network says now; how far it counts is what the models here differ in.

- Keys are features, standardised per channel over the frame, and colours, both of unit length.
- Values are the labels given before: of each cell the shares of its pixels by class. A pixel that was decided
  stays so until the network is sure of something else. That is where most of the steadiness comes from.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from lmanet.backbones.base import Backbone, Features
from lmanet.errors import InputError
from lmanet.memory import MemoryState
from lmanet.ops import Backend, local_attention
from lmanet.segmenter import as_network_takes
from lmanet.streaming import VideoModel

COLOUR_GRID = 2
"""Colours of a cell are the means of so many parts a side."""

COLOUR_CHANNELS = 3 * COLOUR_GRID**2

COLOUR_SHARE = 0.25
"""Of the keys' similarity that comes from colours, the rest from features."""

FOLLOWED, LOST = 0.25, 0.4
"""Error of the match, relative to the difference between neighbours, up to which the memory counts in full, and from
which on it does not count."""


class LabelMemory(VideoModel):
    """A single-frame network that remembers the labels given.

    Args:
        backbone: the single-frame network, trained. The finer its fused map the better: stride 4 to 8.
        memory_size: S, frames remembered; may be changed between streams.
        window: R, side of the square of cells that is searched in each remembered frame, odd; may be changed.
        key_features: keys hold at most so many features, projections of the map's channels: they cost by their width.
        temperature: of the softmax over the keys' cosines.
        attention: the backend of `lmanet.ops.local_attention`.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        memory_size: int,
        window: int,
        key_features: int,
        temperature: float,
        attention: Backend,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.memory_size, self.window = memory_size, window
        self.temperature = temperature
        self.attention: Backend = attention
        self.key_features = min(backbone.channels, key_features)
        self.key_channels = self.key_features + COLOUR_CHANNELS
        self.value_channels = backbone.num_classes + self.key_channels

    @abstractmethod
    def project(self, standardised: Tensor) -> Tensor:
        """Standardised features (B, C, h, w) to those of the keys (B, `key_features`, h, w)."""

    @abstractmethod
    def steadied(self, logits: Tensor, fused: Tensor, key: Tensor, shares: Tensor, matched: Tensor) -> Tensor:
        """Logits of the present frame to those with the memory's share.

        Args:
            logits: (B, K, H, W), float32 or float64.
            fused: (B, C, h, w), the frame's features.
            key: (B, Ck, h, w), the frame's keys.
            shares: (B, K, h, w), what was read: shares of the labels given, by class.
            matched: (B, Ck, h, w), the keys of the places where it was read.
        """

    def step(self, images: Tensor, state: MemoryState | None = None) -> tuple[Tensor, MemoryState]:
        """Label the next frame of a stream. The first frame's output is the network's without a memory.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in [0, 1]; any size.
            state: what the last step returned; None begins a new stream.

        Returns:
            Logits (B, K, H, W), float32 (float64 of a float64 network), and the state for the next frame: keys
            (B, S, Ck, h, w); values (B, S, K + Ck, h, w), shares of the labels given and keys again, by which the
            match is judged.

        Raises:
            InputError: not an image batch, NaN or infinity in it, or a frame that does not fit the state.
        """
        features, colours, logits = self.alone(images)
        cells = (colours.shape[-2], colours.shape[-1])
        key = self.key(features.fused, colours)
        if state is not None:
            state.check(key)
            logits = self.recall(logits, features.fused, key, state)
        value = torch.cat([label_shares(logits, cells).to(key.dtype), key], 1)
        if state is None:
            state = MemoryState.filled(key, value, self.memory_size)
        return logits[..., : images.shape[-2], : images.shape[-1]], state.push(key, value)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the last frame of a clip (B, T, 3, H, W), by `step` after `step`.

        All frames count, however small S is: the memory holds labels that the memory before them has steadied.
        """
        if clip.ndim != 5 or clip.shape[1] < 1:
            raise InputError(f"clip {tuple(clip.shape)}: expected (B, T, 3, H, W) with at least one frame")
        logits, state = self.step(clip[:, 0])
        for images in clip.unbind(1)[1:]:
            logits, state = self.step(images, state)
        return logits

    def alone(self, images: Tensor) -> tuple[Features, Tensor, Tensor]:
        """Frames without a memory: features, `mean_colours` of the cells, and logits; of the padded frames."""
        padded = as_network_takes(self.backbone, images)
        features = self.backbone.encode(padded)
        logits = self.backbone.decode(features, (padded.shape[-2], padded.shape[-1]))
        colours = mean_colours(padded, (features.fused.shape[-2], features.fused.shape[-1]))
        return features, colours, logits.to(torch.promote_types(logits.dtype, torch.float32))

    def key(self, fused: Tensor, colours: Tensor) -> Tensor:
        """Keys (B, Ck, h, w) of unit length, of features (B, C, h, w) and `mean_colours`."""
        features = self.project(_standardised(fused))
        parts = F.normalize(features, dim=1), F.normalize(colours.to(features.dtype), dim=1)
        return torch.cat([parts[0] * (1 - COLOUR_SHARE) ** 0.5, parts[1] * COLOUR_SHARE**0.5], 1)

    def recall(self, logits: Tensor, fused: Tensor, key: Tensor, state: MemoryState) -> Tensor:
        """Logits (B, K, H, W) of the present frame and a memory to `steadied` ones."""
        read = local_attention(
            key,
            state.keys,
            state.values,
            window=self.window,
            scale=1 / self.temperature,
            backend=self.attention,
        ).to(logits.dtype)
        shares, matched = read.split([logits.shape[1], key.shape[1]], 1)
        return self.steadied(logits, fused, key.to(logits.dtype), shares, matched)

    def optimize(self, dtype: torch.dtype | None = None) -> Self:
        """A copy for inference around the backbone's own; see `VideoSegmenter.optimize`."""
        if self.optimized and dtype in (None, next(self.parameters()).dtype):
            return self
        fast = copy.deepcopy(self, {id(self.backbone): self.backbone.optimize(dtype)})
        fast.optimized = True
        fast.eval().requires_grad_(False)
        return fast if dtype is None else fast.to(dtype)


def _standardised(fused: Tensor) -> Tensor:
    """Features (B, C, h, w) less their mean over the frame, by their deviation."""
    # Over rows of channels, which lie side by side in memory: ten times as fast as `torch.var_mean` over h and w.
    rows = fused.movedim(1, -1).flatten(1, 2)
    centred = rows - rows.mean(1, keepdim=True)
    scaled = centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + 1e-5)
    return scaled.unflatten(1, fused.shape[-2:]).movedim(-1, 1)


def mean_colours(images: Tensor, cells: tuple[int, int]) -> Tensor:
    """Images (B, 3, H, W) to the mean colours of each cell's parts (B, `COLOUR_CHANNELS`, h, w), around the frame's."""
    colour = F.adaptive_avg_pool2d(images, (cells[0] * COLOUR_GRID, cells[1] * COLOUR_GRID))
    return F.pixel_unshuffle(colour - colour.mean((-2, -1), keepdim=True), COLOUR_GRID)


def followed(key: Tensor, matched: Tensor) -> Tensor:
    """Whether the memory shows what the present frame does: (B, 1, 1, 1), from 1, it does, to 0.

    The squared distance of each cell's key (B, Ck, h, w) from what it was matched with, relative to that of
    neighbouring cells: 1 is a match as bad as one a cell beside. So it needs no scale of its own for each network.
    """
    error = (key - matched).square().sum(1).mean((-2, -1))
    across = [key.diff(dim=d).square().sum(1) for d in (-2, -1) if key.shape[d] > 1]
    neighbours = (
        torch.stack([x.mean((-2, -1)) for x in across]).mean(0) if across else torch.zeros_like(error)
    )
    relative = error / neighbours.clamp_min(1e-6)
    return ((LOST - relative) / (LOST - FOLLOWED)).clamp(0, 1)[:, None, None, None]


def label_shares(logits: Tensor, cells: tuple[int, int]) -> Tensor:
    """Logits (B, K, H, W) to the shares of each cell's pixels by label (B, K, h, w), float32."""
    batch, classes, height, width = logits.shape
    rows = torch.arange(height, device=logits.device) * cells[0] // height
    columns = torch.arange(width, device=logits.device) * cells[1] // width
    cell = rows[:, None] * cells[1] + columns
    count = cells[0] * cells[1]
    # Counted, not averaged over maps of each class, which would be K times the image.
    image = torch.arange(batch, device=logits.device)[:, None, None] * classes
    bins = (image + logits.max(1).indices) * count + cell
    shares = torch.bincount(bins.flatten(), minlength=batch * classes * count).view(batch, classes, count)
    return (shares / torch.bincount(cell.flatten(), minlength=count)).view(batch, classes, *cells)


def projection(channels: int, kept: int) -> Tensor:
    """A 1×1 convolution (kept, channels, 1, 1) with orthonormal rows, always the same: it keeps distances."""
    drawn = torch.randn(channels, kept, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(drawn).Q.T[:, :, None, None].float().contiguous()
