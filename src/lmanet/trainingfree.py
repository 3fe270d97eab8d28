"""Memory without training: any single-frame network, steadied by what it said of the frames before.

A cell of the present frame looks for itself in the frames before by local attention. What the network said of the
places that it finds is set against what it says now, at the resolution of the cells, so that the present frame's
fine detail stays:

    probabilities + strength · (read from the memory - probabilities at feature resolution, upsampled)

- Keys are the features, standardised per channel over the frame, and colours, both of unit length.
- Values are the labels given before: of each cell the shares of its pixels by class. A pixel that was decided
  stays so until the network is sure of something else. That is where most of the steadiness comes from.
- Probabilities of a network that is surer than usual are flattened for this; its logits' scale is put back at the end.
- Where the present frame is sure and the memory says something else, the present frame counts for more.
- Where the places found are no better a match than a cell's own neighbours, the frame is not followed at all: it is
  labelled as by the single-frame network. That is so at one frame a second, across cuts, and for frames too spoilt
  to be matched.

The defaults were chosen on CamVid's val clip with one ERFNet (15 frames a second) and held against frames one second
apart and against the synthetic drive; see `docs/training-free.md`.
"""

from __future__ import annotations

import copy
import math
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

MOST_FEATURES = 64
"""Features beyond these go through a fixed random projection, which keeps distances: keys cost by their width."""

COLOUR_GRID = 2
"""Colours of a cell are the means of so many parts a side."""

COLOUR_SHARE = 0.25
"""Of the keys' similarity that comes from colours, the rest from features."""

USUAL_MARGIN = 5.0
"""Logits whose `_margin` is larger are divided so that it is this: a network that is sure of all it says, by its loss
or a long training, would not listen to the memory."""

SURE_AGAINST_MEMORY = 0.5
"""How far a present frame that is sure holds its own against a memory that contradicts it, 0 to 1."""

FOLLOWED, LOST = 0.25, 0.4
"""Error of the match, relative to the difference between neighbours, up to which the memory counts in full, and from
which on it does not count."""

TINY = 1e-30


class TrainingFreeSegmenter(VideoModel):
    """A single-frame network steadied by a memory that needs no training. See the module's text for the method.

    Args:
        backbone: the single-frame network, trained. The finer its fused map the better: stride 4 to 8.
        memory_size: S, frames remembered; may be changed between streams.
        window: R, side of the square of cells that is searched in each remembered frame, odd; may be changed.
        temperature: of the softmax over the keys' cosines.
        strength: how much of the difference between memory and present frame is added, 0 to 1; 0 gives the
            single-frame network's output.
        attention: the backend of `lmanet.ops.local_attention`.

    Attributes:
        classes: names and colours of the classes, if the backbone has them.
        card: where the weights came from, if the backbone says so.

    Raises:
        InputError: a size, the temperature or the strength is out of range.
    """

    projection: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        *,
        memory_size: int = 2,
        window: int = 21,
        temperature: float = 0.02,
        strength: float = 0.75,
        attention: Backend = "auto",
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise InputError(f"temperature {temperature}: expected above 0, such as 0.02")
        if not 0 <= strength <= 1:
            raise InputError(f"strength {strength}: expected 0 to 1")
        self.backbone = backbone
        self.memory_size, self.window = memory_size, window
        self.temperature, self.strength = temperature, strength
        self.attention: Backend = attention
        features = min(backbone.channels, MOST_FEATURES)
        self.key_channels = features + 3 * COLOUR_GRID**2
        self.value_channels = backbone.num_classes + self.key_channels
        # Not saved: it is the same for every network of this width.
        projection = _projection(backbone.channels, features) if features < backbone.channels else None
        self.register_buffer("projection", projection, persistent=False)
        for name in ("classes", "card"):
            if hasattr(backbone, name):
                setattr(self, name, getattr(backbone, name))
        self.to(next(backbone.parameters()))
        self.train(backbone.training)

    def step(self, images: Tensor, state: MemoryState | None = None) -> tuple[Tensor, MemoryState]:
        """Label the next frame of a stream. The first frame's output is the single-frame network's.

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
        padded = as_network_takes(self.backbone, images)
        features = self.backbone.encode(padded)
        logits = self.backbone.decode(features, (padded.shape[-2], padded.shape[-1]))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        key = self._key(features, padded)
        if state is not None:
            state.check(key)
            logits = self._steadied(logits, key, state)
        cells = (key.shape[-2], key.shape[-1])
        value = torch.cat([_label_shares(logits, cells).to(key.dtype), key], 1)
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

    def optimize(self, dtype: torch.dtype | None = None) -> Self:
        """A copy for inference around the backbone's own; see `VideoSegmenter.optimize`."""
        if self.optimized and dtype in (None, next(self.parameters()).dtype):
            return self
        fast = copy.deepcopy(self, {id(self.backbone): self.backbone.optimize(dtype)})
        fast.optimized = True
        fast.eval().requires_grad_(False)
        return fast if dtype is None else fast.to(dtype)

    def _key(self, features: Features, images: Tensor) -> Tensor:
        """Keys (B, Ck, h, w) of unit length, of features and the images (B, 3, H, W) that they were made from."""
        variance, mean = torch.var_mean(features.fused, (-2, -1), correction=0, keepdim=True)
        fused = (features.fused - mean) * torch.rsqrt(variance + 1e-5)
        if self.projection is not None:
            fused = F.conv2d(fused, self.projection)
        height, width = fused.shape[-2:]
        colour = F.adaptive_avg_pool2d(images, (height * COLOUR_GRID, width * COLOUR_GRID))
        colour = F.pixel_unshuffle(colour - colour.mean((-2, -1), keepdim=True), COLOUR_GRID)
        parts = F.normalize(fused, dim=1), F.normalize(colour, dim=1)
        return torch.cat([parts[0] * (1 - COLOUR_SHARE) ** 0.5, parts[1] * COLOUR_SHARE**0.5], 1)

    def _steadied(self, logits: Tensor, key: Tensor, state: MemoryState) -> Tensor:
        """Logits (B, K, H, W) of the present frame to those with the memory's share."""
        read = local_attention(
            key,
            state.keys,
            state.values,
            window=self.window,
            scale=1 / self.temperature,
            backend=self.attention,
        ).to(logits.dtype)
        remembered, matched = read.split([logits.shape[1], key.shape[1]], 1)
        cells = (key.shape[-2], key.shape[-1])
        scale = (_margin(logits, cells) / USUAL_MARGIN).clamp_min(1)
        probabilities = (logits / scale).softmax(1)
        present = F.adaptive_avg_pool2d(probabilities, cells)
        trust = self.strength * _followed(key.to(logits.dtype), matched) * _open(present, remembered)
        change = F.interpolate(
            trust * (remembered - present), logits.shape[-2:], mode="bilinear", align_corners=False
        )
        # As a factor on the probabilities: without a change the logits stay what they are, to the bit.
        factor = (change / probabilities.clamp_min(TINY)).add_(1).clamp_min_(1e-6)
        return logits + scale * factor.log_()


def _margin(logits: Tensor, cells: tuple[int, int]) -> Tensor:
    """By how much the label's logit exceeds the next one, mean over the cells (B, 1, 1, 1): how sure the network is."""
    first, second = F.adaptive_avg_pool2d(logits, cells).topk(2, 1).values.unbind(1)
    return (first - second).mean((-2, -1))[:, None, None, None]


def _followed(key: Tensor, matched: Tensor) -> Tensor:
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


def _open(present: Tensor, remembered: Tensor) -> Tensor:
    """How far each cell is open to the memory: (B, 1, h, w), lower where it is sure of something else."""
    first, second = present.topk(2, 1).values.unbind(1)
    agreement = (present * remembered.clamp_min(0)).sqrt().sum(1)
    return (1 - SURE_AGAINST_MEMORY * (first - second) * (1 - agreement)).clamp(0, 1)[:, None]


def _label_shares(logits: Tensor, cells: tuple[int, int]) -> Tensor:
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


def _projection(channels: int, kept: int) -> Tensor:
    """A 1×1 convolution (kept, channels, 1, 1) with orthonormal rows, always the same."""
    drawn = torch.randn(channels, kept, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(drawn).Q.T[:, :, None, None].float().contiguous()
