"""Fusion of the current frame's value with what was read from the memory: back to the decoder's channels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmanet.errors import InputError

BATCH_NORM_EPS = 1e-3

FusionName = Literal["gated", "concat"]


class Branch(nn.Sequential):
    """What both fusions do to each of their inputs first: BatchNorm, Dropout2d, ReLU."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__(nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS), nn.Dropout2d(dropout), nn.ReLU())


class GatedFusion(nn.Module):
    """Equation 6 of the paper: σ(A_Q(V_Q, V_M)) · E_Q(V_Q) + σ(A_M(V_Q, V_M)) · E_M(V_M), BatchNorm, ReLU.

    Args:
        value_channels: Cv of both inputs.
        channels: C of the output.
        dropout: share of channels dropped at each input in training.
    """

    def __init__(self, value_channels: int, channels: int, *, dropout: float = 0.3) -> None:
        super().__init__()
        self.query_in = Branch(value_channels, dropout)
        self.memory_in = Branch(value_channels, dropout)
        self.query_encode = nn.Conv2d(value_channels, channels, 3, padding=1)
        self.memory_encode = nn.Conv2d(value_channels, channels, 3, padding=1)
        self.query_gate = nn.Conv2d(2 * value_channels, channels, 3, padding=1)
        self.memory_gate = nn.Conv2d(2 * value_channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)

    def forward(self, query: Tensor, read: Tensor) -> Tensor:
        """Query value and memory reading, both (B, Cv, h, w), to a fused map (B, C, h, w)."""
        query, read = self.query_in(query), self.memory_in(read)
        both = torch.cat([query, read], 1)
        from_query = torch.sigmoid(self.query_gate(both)) * self.query_encode(query)
        from_memory = torch.sigmoid(self.memory_gate(both)) * self.memory_encode(read)
        return F.relu(self.norm(from_query + from_memory))


class ConcatFusion(nn.Module):
    """The paper's plain alternative (Table III): both normalised inputs side by side.

    Args:
        value_channels: Cv of both inputs; the output has 2 Cv channels, so the decoder must take 2 Cv = C.
        channels: C of the output.
        dropout: share of channels dropped at each input in training.
    """

    def __init__(self, value_channels: int, channels: int, *, dropout: float = 0.3) -> None:
        super().__init__()
        if 2 * value_channels != channels:
            raise InputError(
                f"concat fusion of two values of {value_channels} channels gives {2 * value_channels}, but the "
                f"decoder takes {channels}: give value_channels={channels // 2}, or use fusion='gated'"
            )
        self.query_in = Branch(value_channels, dropout)
        self.memory_in = Branch(value_channels, dropout)

    def forward(self, query: Tensor, read: Tensor) -> Tensor:
        """Query value and memory reading, both (B, Cv, h, w), to a fused map (B, 2 Cv, h, w)."""
        return torch.cat([self.query_in(query), self.memory_in(read)], 1)


FUSIONS: dict[FusionName, type[GatedFusion] | type[ConcatFusion]] = {
    "gated": GatedFusion,
    "concat": ConcatFusion,
}
