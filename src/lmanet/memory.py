"""Keys and values, and the memory that holds those of the last frames (paper, section III-A)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lmanet.errors import InputError


class MemoryState(NamedTuple):
    """Keys and values of the last S frames, oldest first: a plain value, always full.

    Attributes:
        keys: (B, S, Ck, h, w).
        values: (B, S, Cv, h, w).
    """

    keys: Tensor
    values: Tensor

    @classmethod
    def filled(cls, key: Tensor, value: Tensor, size: int) -> MemoryState:
        """A new stream's memory: its first frame, `size` times.

        Attention over equal copies equals attention over one of them, so there is no empty case.

        Args:
            key: (B, Ck, h, w).
            value: (B, Cv, h, w).
            size: S, at least 1.
        """
        return cls(
            key.unsqueeze(1).expand(-1, size, -1, -1, -1), value.unsqueeze(1).expand(-1, size, -1, -1, -1)
        )

    @property
    def size(self) -> int:
        """S, the number of frames held."""
        return self.keys.shape[1]

    def push(self, key: Tensor, value: Tensor) -> MemoryState:
        """A new state with the newest frame's key (B, Ck, h, w) and value (B, Cv, h, w), the oldest dropped."""
        return MemoryState(
            torch.cat([self.keys[:, 1:], key.unsqueeze(1)], 1),
            torch.cat([self.values[:, 1:], value.unsqueeze(1)], 1),
        )

    def check(self, key: Tensor) -> None:
        """Raise InputError unless a frame with this query key (B, Ck, h, w) fits the memory."""
        batch, _, *cell = self.keys.shape
        if [batch, *cell] != list(key.shape):
            raise InputError(
                f"a frame with keys {tuple(key.shape)} (B, Ck, h, w) came to a memory of "
                f"{(batch, *cell)}: the frame size, batch size or network changed within a stream; "
                f"start a new one with state None (Session.reset())"
            )


class KeyValue(nn.Module):
    """Projects a fused map to a query's key and value and to a memory's, by one 3×3 convolution each.

    The two key convolutions start equal, so that similar places match from the first step on.

    Args:
        channels: C of the fused map.
        key_channels: Ck.
        value_channels: Cv.
    """

    def __init__(self, channels: int, key_channels: int, value_channels: int) -> None:
        super().__init__()
        self.query_key = nn.Conv2d(channels, key_channels, 3, padding=1)
        self.query_value = nn.Conv2d(channels, value_channels, 3, padding=1)
        self.memory_key = nn.Conv2d(channels, key_channels, 3, padding=1)
        self.memory_value = nn.Conv2d(channels, value_channels, 3, padding=1)
        self.memory_key.load_state_dict(self.query_key.state_dict())

    def query(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Fused map (B, C, h, w) to K_Q (B, Ck, h, w) and V_Q (B, Cv, h, w)."""
        return self.query_key(fused), self.query_value(fused)

    def memory(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Fused map (B, C, h, w) to K_M (B, Ck, h, w) and V_M (B, Cv, h, w)."""
        return self.memory_key(fused), self.memory_value(fused)
