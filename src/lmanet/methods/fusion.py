"""Fusion of the current frame's value with what was read from the memory: back to the decoder's channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmanet.errors import InputError
from lmanet.nn.convolution import convolve_as_one, fold_norm, fold_scale

BATCH_NORM_EPS = 1e-3

FusionName = Literal["gated", "concat", "bottleneck"]
Convolutions = Literal["paper", "fast"]
"""Those that make keys, values and the fused map: the paper's 3×3, or 1×1."""


class Branch(nn.Sequential):
    """What gated and concat fusion do to each of their inputs first: BatchNorm, Dropout2d; a ReLU follows."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__(nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS), nn.Dropout2d(dropout))

    def fold_norm(self, convolution: nn.Conv2d) -> None:
        """Fold the norm into the convolution whose output is the input here."""
        self[0] = fold_norm(convolution, self[0])


class Fusion(nn.Module, ABC):
    """What the memory is fused by: query value and reading to the map that the decoder takes."""

    @abstractmethod
    def forward(self, query: Tensor, read: Tensor) -> Tensor:
        """Query value and memory reading, both (B, Cv, h, w), to a fused map (B, C, h, w)."""

    @abstractmethod
    def fold_norms(self, query_value: nn.Conv2d | None) -> None:
        """Fold BatchNorm into the convolutions around it, in place: same output in `eval` mode, no training.

        What is done to the reading first stays: folded into the memory's values, it would change what a stream's
        memory holds.

        Args:
            query_value: the convolution that makes the query values; None where they are the map itself.
        """


class BranchFusion(Fusion):
    """Fusion of inputs that are normalised first, each by itself.

    Args:
        value_channels: Cv of both inputs.
        dropout: share of channels dropped at each input in training.
    """

    def __init__(self, value_channels: int, dropout: float) -> None:
        super().__init__()
        self.query_in = Branch(value_channels, dropout)
        self.memory_in = Branch(value_channels, dropout)

    def side_by_side(self, query: Tensor, read: Tensor) -> Tensor:
        """Both inputs (B, Cv, h, w), normalised and rectified, as one map (B, 2 Cv, h, w)."""
        return F.relu_(torch.cat([self.query_in(query), self.memory_in(read)], 1))

    def fold_norms(self, query_value: nn.Conv2d | None) -> None:
        """Fold BatchNorm in place, the query's own into the convolution `query_value` that makes it."""
        if query_value is not None:
            self.query_in.fold_norm(query_value)


class GatedFusion(BranchFusion):
    """Equation 6 of the paper: σ(A_Q(V_Q, V_M)) · E_Q(V_Q) + σ(A_M(V_Q, V_M)) · E_M(V_M), BatchNorm, ReLU.

    Args:
        value_channels: Cv of both inputs.
        channels: C of the output.
        dropout: share of channels dropped at each input in training.
    """

    def __init__(self, value_channels: int, channels: int, *, dropout: float = 0.3) -> None:
        super().__init__(value_channels, dropout)
        self.query_encode = nn.Conv2d(value_channels, channels, 3, padding=1)
        self.memory_encode = nn.Conv2d(value_channels, channels, 3, padding=1)
        self.query_gate = nn.Conv2d(2 * value_channels, channels, 3, padding=1)
        self.memory_gate = nn.Conv2d(2 * value_channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)

    def forward(self, query: Tensor, read: Tensor) -> Tensor:
        """Query value and memory reading, both (B, Cv, h, w), to a fused map (B, C, h, w)."""
        query, read = F.relu(self.query_in(query)), F.relu(self.memory_in(read))
        gates = convolve_as_one((self.query_gate, self.memory_gate), torch.cat([query, read], 1))
        for_query, for_memory = gates.sigmoid_().chunk(2, 1)
        total = torch.addcmul(for_query * self.query_encode(query), for_memory, self.memory_encode(read))
        return F.relu_(self.norm(total))

    def fold_norms(self, query_value: nn.Conv2d | None) -> None:
        """Fold BatchNorm in place; of the norm after the gated sum a shift remains."""
        super().fold_norms(query_value)
        self.norm = fold_scale((self.query_encode, self.memory_encode), self.norm)


class FastGatedFusion(BranchFusion):
    """Gated fusion by two 1×1 convolutions: E(σ(A(V_Q, V_M)) · (V_Q, V_M)), BatchNorm, ReLU.

    Equation 6 with the gates before the encoders: there are gates for the 2 Cv channels of the inputs in place of
    twice the C of the output, and one convolution encodes both inputs and sums them.

    Args:
        value_channels: Cv of both inputs.
        channels: C of the output.
        dropout: share of channels dropped at each input in training.
    """

    def __init__(self, value_channels: int, channels: int, *, dropout: float = 0.3) -> None:
        super().__init__(value_channels, dropout)
        self.gate = nn.Conv2d(2 * value_channels, 2 * value_channels, 1)
        self.encode = nn.Conv2d(2 * value_channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)

    def forward(self, query: Tensor, read: Tensor) -> Tensor:
        """Query value and memory reading, both (B, Cv, h, w), to a fused map (B, C, h, w)."""
        both = self.side_by_side(query, read)
        gated = self.gate(both).sigmoid_() * both
        return F.relu_(self.norm(self.encode(gated)))

    def fold_norms(self, query_value: nn.Conv2d | None) -> None:
        """Fold BatchNorm in place, the norm at the end into the encoding convolution."""
        super().fold_norms(query_value)
        self.norm = fold_norm(self.encode, self.norm)


class ConcatFusion(BranchFusion):
    """The paper's plain alternative (Table III): both normalised inputs side by side.

    Args:
        value_channels: Cv of both inputs; the output has 2 Cv channels, so the decoder must take 2 Cv = C.
        channels: C of the output.
        dropout: share of channels dropped at each input in training.
    """

    def __init__(self, value_channels: int, channels: int, *, dropout: float = 0.3) -> None:
        if 2 * value_channels != channels:
            raise InputError(
                f"concat fusion of two values of {value_channels} channels gives {2 * value_channels}, but the "
                f"decoder takes {channels}: give value_channels={channels // 2}, or use fusion='gated'"
            )
        super().__init__(value_channels, dropout)

    def forward(self, query: Tensor, read: Tensor) -> Tensor:
        """Query value and memory reading, both (B, Cv, h, w), to a fused map (B, 2 Cv, h, w)."""
        return self.side_by_side(query, read)


class BottleneckFusion(Fusion):
    """The paper's for PSPNet: σ(G_Q(Z)) · Q + σ(G_M(Z)) · M, BatchNorm, ReLU; Z = ReLU(BatchNorm(D(Q) + D(M))).

    D goes from the many channels of the inputs to few, G_Q and G_M back, all by 1×1; the inputs themselves are gated.

    Args:
        value_channels: Cv of both inputs, which is C: the values are the map itself.
        channels: C of the output.
        width: channels of Z.
    """

    def __init__(self, value_channels: int, channels: int, *, width: int = 256) -> None:
        if value_channels != channels:
            raise InputError(
                f"bottleneck fusion of values of {value_channels} channels into a map of {channels}: it gates the map "
                f"itself, so leave value_channels out, or use fusion='gated'"
            )
        super().__init__()
        self.down = nn.Conv2d(channels, width, 1)
        self.down_norm = nn.BatchNorm2d(width, eps=BATCH_NORM_EPS)
        self.query_gate = nn.Conv2d(width, channels, 1)
        self.memory_gate = nn.Conv2d(width, channels, 1)
        self.norm = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)

    def forward(self, query: Tensor, read: Tensor) -> Tensor:
        """Query value and memory reading, both (B, C, h, w), to a fused map (B, C, h, w)."""
        assert self.down.bias is not None
        # One convolution of the sum is the sum of two.
        narrow = F.relu_(self.down_norm(F.conv2d(query + read, self.down.weight, 2 * self.down.bias)))
        total = self.query_gate(narrow).sigmoid_() * query
        total = torch.addcmul(total, self.memory_gate(narrow).sigmoid_(), read)
        return F.relu_(self.norm(total))

    @torch.no_grad()
    def fold_norms(self, query_value: nn.Conv2d | None) -> None:
        """Fold BatchNorm in place; the norm after the gated sum stays, as no convolution makes what is gated."""
        assert self.down.bias is not None
        self.down.bias *= 2
        self.down_norm = fold_norm(self.down, self.down_norm)
        self.down.bias /= 2


FUSIONS: dict[
    Convolutions,
    dict[FusionName, type[GatedFusion | FastGatedFusion | ConcatFusion | BottleneckFusion]],
] = {
    "paper": {"gated": GatedFusion, "concat": ConcatFusion, "bottleneck": BottleneckFusion},
    "fast": {"gated": FastGatedFusion, "concat": ConcatFusion, "bottleneck": BottleneckFusion},
}
