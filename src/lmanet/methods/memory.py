"""Keys and values, and the memory that holds those of the last frames (paper, section III-A)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lmanet.errors import InputError
from lmanet.methods.base import check_fits
from lmanet.nn.convolution import convolve_as_one

REACH_PX = 84
"""How far the memory is searched in each direction where no window is given: ±10 cells of stride 8, the paper's."""

LARGEST_WINDOW = 21
"""The default's, in cells: time grows by its square."""


def default_window(stride: int) -> int:
    """R where nothing else is asked for: `REACH_PX` in each direction, at most `LARGEST_WINDOW` cells."""
    return min(LARGEST_WINDOW, 2 * (REACH_PX // stride) + 1)


def check_memory(memory_size: int, window: int) -> None:
    """Raise InputError unless S is at least 1 frame and R an odd number of cells."""
    if not _whole(memory_size) or memory_size < 1:
        raise InputError(
            f"memory size {memory_size}: expected at least 1 frame; without memory, use the method single-frame"
        )
    check_window(window)


def check_window(window: int) -> None:
    """Raise InputError unless R is an odd number of cells."""
    if not _whole(window) or window < 1 or window % 2 == 0:
        raise InputError(
            f"window {window}: expected an odd number of cells, such as {max(1, window | 1) if _whole(window) else 21}"
        )


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


class MemoryState(NamedTuple):
    """Keys and values of the last S frames, oldest first: a plain value, always full.

    `filled` and `push` lay them out as the attention kernels read them: each frame's keys channel by channel, its
    values cell by cell (channels last). Any other layout is taken too.

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
        key, value = key.contiguous(), value.contiguous(memory_format=torch.channels_last)
        return cls(
            key.unsqueeze(1).expand(-1, size, -1, -1, -1), value.unsqueeze(1).expand(-1, size, -1, -1, -1)
        )

    @property
    def size(self) -> int:
        """S, the number of frames held."""
        return self.keys.shape[1]

    def push(self, key: Tensor, value: Tensor) -> MemoryState:
        """A new state with the newest frame's key (B, Ck, h, w) and value (B, Cv, h, w), the oldest dropped."""
        keys = torch.cat([self.keys[:, 1:], key.unsqueeze(1)], 1)
        # Seen as (B, S, h, w, Cv) this is a copy of whole frames: seven times as fast as letting `cat` find out.
        cells = self.values[:, 1:].movedim(2, -1), value.movedim(1, -1).unsqueeze(1)
        return MemoryState(keys, torch.cat(cells, 1).movedim(-1, 2))

    def for_frame(self, key: Tensor) -> MemoryState:
        """This memory, in the dtype of a frame's query key (B, Ck, h, w): a copy in bfloat16 may go on with it.

        Raises:
            InputError: the frame does not fit the memory.
        """
        check_fits(key, self.keys[:, 0], "keys")
        return MemoryState(self.keys.to(key.dtype), self.values.to(key.dtype))


class KeyValue(nn.Module):
    """Projects a fused map to a query's key and value and to a memory's, by one convolution each.

    What is wanted of the same map is computed as one. The two key convolutions start equal, so that similar places
    match from the first step on.

    Args:
        channels: C of the fused map.
        key_channels: Ck.
        value_channels: Cv; None makes the map itself the value of both, without a convolution.
        side: of the convolutions' kernels, odd.
    """

    def __init__(
        self, channels: int, key_channels: int, value_channels: int | None, *, side: int = 3
    ) -> None:
        super().__init__()

        def project(outputs: int) -> nn.Conv2d:
            return nn.Conv2d(channels, outputs, side, padding=side // 2)

        self.query_key = project(key_channels)
        self.query_value = None if value_channels is None else project(value_channels)
        self.memory_key = project(key_channels)
        self.memory_value = None if value_channels is None else project(value_channels)
        self.memory_key.load_state_dict(self.query_key.state_dict())

    def query(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Fused map (B, C, h, w) to K_Q (B, Ck, h, w) and V_Q (B, Cv, h, w)."""
        return self._key_and_value(_convolve(fused, self.query_key, self.query_value), fused)

    def memory(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Fused map (B, C, h, w) to K_M (B, Ck, h, w) and V_M (B, Cv, h, w)."""
        return self._key_and_value(_convolve(fused, self.memory_key, self.memory_value), fused)

    def forward(self, fused: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Fused map (B, C, h, w) to what `query` and `memory` give."""
        convolutions = (self.query_key, self.query_value, self.memory_key, self.memory_value)
        query, memory = _convolve(fused, *convolutions).chunk(2, 1)
        return self._key_and_value(query, fused), self._key_and_value(memory, fused)

    def _key_and_value(self, joint: Tensor, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Views of the channels of one map; the value is the fused map where no convolution makes it."""
        channels = self.query_key.out_channels
        return joint[:, :channels], fused if self.query_value is None else joint[:, channels:]


def _convolve(fused: Tensor, *convolutions: nn.Conv2d | None) -> Tensor:
    return convolve_as_one([one for one in convolutions if one is not None], fused)
