"""What every memory of labels shares: the way of a frame, the keys, and what is remembered.

A cell of the present frame looks for itself in the frames before by local attention. What was said of the places that
it finds is set against what the network says now; how far it counts is what the models here differ in.

- Keys are features, standardised per channel over the frame, and colours, both of unit length.
- Values are the labels given before: of each cell the shares of its pixels by class. A pixel that was decided
  stays so until the network is sure of something else. That is where most of the steadiness comes from.
- The memory counts for a frame that can be followed: where cells match well, or, in noise, where those side by side
  find themselves side by side. At one frame a second they do neither, and the memory does not count. The frames that
  were followed vouch for one that is not: a single bad frame is told what the good ones said. The price: so is the
  first frame after a cut.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from lmanet.backbones.base import Backbone, Features
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.methods.keys import COLOUR_CHANNELS, joined, mean_colours, standardised
from lmanet.methods.memory import MemoryState, check_memory
from lmanet.nn.cells import label_shares
from lmanet.ops import Backend, local_attention

ALIKE, UNLIKE = 0.25, 0.4
"""Error of the match, relative to the difference between neighbours, up to which a frame is followed for sure, and from
which on it is not by this measure."""

TOGETHER, APART = 0.26, 0.37
"""How far from side by side neighbouring cells find themselves, up to which a frame is followed for sure, and from
which on it is not by this measure. In squared cells, by the window's reach, as what matches anywhere is found the
further off the further it is looked for. Found at windows of 15 and 21 cells."""

BLURRED, SHARP = 0.91, 0.92
"""Mean length of the keys that were read, up to which the motion says nothing, and from which on it counts. Keys have
length 1; the mean of many that differ, as a high temperature gives, is shorter, and lies in place whatever moves."""


class Reading(NamedTuple):
    """What cells find in the memory.

    Attributes:
        shares: (B, K, h, w), of the labels given there, by class.
        vouched: (B, 1, h, w), 0 to 1: whether the present frame, or the one that was read, could be `followed`.
        matched: (B, Ck, h, w), the keys there.
    """

    shares: Tensor
    vouched: Tensor
    matched: Tensor


class RemembersLabels(VideoModel):
    """A single-frame network that remembers the labels given: what the memories of labels share.

    Args:
        backbone: the single-frame network, trained. The finer its fused map the better: stride 4 to 8.
        memory_size: S, frames remembered.
        window: R, side of the square of cells that is searched in each remembered frame, odd.
        key_features: keys hold at most so many features, projections of the map's channels: they cost by their width.
        temperature: of the softmax over the keys' cosines.
        persistence: how much of what is remembered is the labels given, 0 to 1, the rest being what the network said
            by itself.
        attention: the backend of `lmanet.ops.local_attention`.
    """

    State = MemoryState

    def __init__(
        self,
        backbone: Backbone,
        *,
        memory_size: int,
        window: int,
        key_features: int,
        temperature: float,
        persistence: float,
        attention: Backend,
    ) -> None:
        super().__init__(backbone)
        self.memory_size, self.window = memory_size, window
        self.temperature, self.persistence = temperature, persistence
        self.attention: Backend = attention
        self.key_features = min(backbone.channels, key_features)
        self.key_channels = self.key_features + COLOUR_CHANNELS
        self.value_channels = sum(self._value_parts)

    def check_arguments(self) -> None:
        """Raise InputError unless S, R, temperature and persistence are in their ranges."""
        check_memory(self.memory_size, self.window)
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature {self.temperature}: expected above 0, such as 0.03")
        if not 0 <= self.persistence <= 1:
            raise InputError(f"persistence {self.persistence}: expected 0 to 1")

    @abstractmethod
    def project(self, standardised: Tensor) -> Tensor:
        """Standardised features (B, C, h, w) to those of the keys (B, `key_features`, h, w)."""

    @abstractmethod
    def steadied(self, logits: Tensor, fused: Tensor, key: Tensor, read: Reading) -> Tensor:
        """Logits (B, K, H, W) of the present frame, float32 or float64, to those with the memory's share.

        Args:
            logits: the network's own; may be written over.
            fused: (B, C, h, w), the frame's features.
            key: (B, Ck, h, w), the frame's keys.
            read: what the memory says.
        """

    def step(self, images: Tensor, state: MemoryState | None = None) -> tuple[Tensor, MemoryState]:
        """Label the next frame of a stream. The first frame's output is the network's without a memory.

        What is remembered are labels that the memory before them has steadied: all frames of a stream count, however
        small S is.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in [0, 1]; any size.
            state: what the last step returned; None begins a new stream.

        Returns:
            Logits (B, K, H, W), float32 (float64 of a float64 network), and the state for the next frame: keys
            (B, S, Ck, h, w); values (B, S, K + Ck + 3, h, w), of each cell the shares of the labels given, its keys
            again, row and column, and whether the frame was followed.

        Raises:
            InputError: not an image batch, NaN or infinity in it, or a frame that does not fit the state.
        """
        features, colours, logits = self.alone(images)
        cells = (colours.shape[-2], colours.shape[-1])
        key = self.key(features.fused, colours)
        now = logits.new_zeros(len(logits), 1, 1, 1)
        if state is None:
            shares = label_shares(logits, cells)
        else:
            state = state.for_frame(key)
            now, reading = self.read(key, state)
            # Of a frame that was not followed the network's own labels are remembered, so that a cut costs one frame.
            # They are counted in any case: to look whether they are needed, a GPU would have to wait for the CPU.
            own = label_shares(logits, cells)
            logits = self.steadied(logits, features.fused, key, reading)
            shares = torch.lerp(
                own,
                label_shares(logits, cells),
                (self.persistence * now).float(),
            )
        value = self.value(shares, key, now)
        if state is None:
            state = MemoryState.filled(key, value, self.memory_size)
        return logits[..., : images.shape[-2], : images.shape[-1]], state.push(key, value)

    def alone(self, images: Tensor) -> tuple[Features, Tensor, Tensor]:
        """Frames without a memory: features, `mean_colours` of the cells, and logits; of the padded frames."""
        padded = self.backbone.prepared(images)
        features = self.backbone.encode(padded)
        logits = self.backbone.decode(features, (padded.shape[-2], padded.shape[-1]))
        colours = mean_colours(padded, (features.fused.shape[-2], features.fused.shape[-1]))
        return features, colours, logits.to(torch.promote_types(logits.dtype, torch.float32))

    def key(self, fused: Tensor, colours: Tensor) -> Tensor:
        """Keys (B, Ck, h, w) of unit length, of features (B, C, h, w) and `mean_colours`."""
        features = self.project(standardised(fused))
        return joined(features, colours)

    def value(self, shares: Tensor, key: Tensor, now: Tensor) -> Tensor:
        """What is remembered of a frame, (B, Cv, h, w) as its keys.

        Args:
            shares: (B, K, h, w), of labels by class.
            key: (B, Ck, h, w).
            now: (B, 1, 1, 1), whether the frame was `followed`.
        """
        places = _places(key).expand(len(key), -1, -1, -1)
        parts = shares.to(key.dtype), key, places, now.to(key.dtype).expand(-1, -1, *key.shape[-2:])
        return torch.cat(parts, 1)

    def read(self, key: Tensor, state: MemoryState) -> tuple[Tensor, Reading]:
        """How far the present frame, of keys (B, Ck, h, w), is `followed` (B, 1, 1, 1), and what the memory says."""
        read = local_attention(
            key,
            state.keys,
            state.values,
            window=self.window,
            scale=1 / self.temperature,
            backend=self.attention,
        )
        read = read.to(torch.promote_types(read.dtype, torch.float32))
        shares, matched, places, before = read.split(self._value_parts, 1)
        now = followed(key.to(read.dtype), matched, places, self.window // 2)
        return now, Reading(shares, torch.maximum(now, before), matched)

    @property
    def _value_parts(self) -> list[int]:
        """Channels of what `value` puts together."""
        return [self.backbone.num_classes, self.key_channels, 2, 1]


def _places(key: Tensor) -> Tensor:
    """Row and column of each cell (1, 2, h, w), from the middle of the map, where bfloat16 is finest."""
    rows, columns = (
        torch.arange(-(n // 2), n - n // 2, device=key.device, dtype=key.dtype)
        for n in (key.shape[-2], key.shape[-1])
    )
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]


def followed(key: Tensor, matched: Tensor, places: Tensor, reach: int) -> Tensor:
    """Whether the memory shows what the present frame does: (B, 1, 1, 1), from 1, it does, to 0.

    By the better of two measures, each of which a frame that shows something else fails, or the same a second ago. The
    match: the squared distance of keys from what they were matched with, relative to that of cells side by side; it
    needs no scale of its own for each network. The motion: what moves, moves together, so that cells side by side find
    themselves side by side; noise and changing light spoil the match, but not this.

    Args:
        key: (B, Ck, h, w), of the present frame.
        matched: (B, Ck, h, w), what it was matched with.
        places: (B, 2, h, w), where: rows and columns in cells, from the same origin as `_places`.
        reach: how many cells away places are looked for, in each direction; with 0 the motion says nothing.
    """
    error = (key - matched).square().sum(1).mean((-2, -1))
    relative = error / _across(key).clamp_min(1e-6)
    alike = (UNLIKE - relative) / (UNLIKE - ALIKE)
    apart = _across(places - _places(places)) / reach if reach else torch.full_like(error, APART)
    together = ((APART - apart) / (APART - TOGETHER)).clamp(0, 1)
    sharp = (matched.square().sum(1).sqrt().mean((-2, -1)) - BLURRED) / (SHARP - BLURRED)
    return torch.maximum(alike, together * sharp.clamp(0, 1)).clamp(0, 1)[:, None, None, None]


def _across(x: Tensor) -> Tensor:
    """Mean squared distance of cells side by side: (B, C, h, w) to (B,); 0 of a single cell."""
    across = [x.diff(dim=d).square().sum(1).mean((-2, -1)) for d in (-2, -1) if x.shape[d] > 1]
    return torch.stack(across).mean(0) if across else x.new_zeros(len(x))
