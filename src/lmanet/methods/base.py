"""What every model with a memory offers a stream, however it reads that memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from lmanet.backbones.base import Backbone, Features
from lmanet.errors import InputError
from lmanet.methods.memory import MemoryState

if TYPE_CHECKING:
    from lmanet.classes import Classes


class VideoModel(nn.Module, ABC):
    """A single-frame network with a memory of the frames before: what a `Session` runs.

    Attributes:
        backbone: the single-frame network.
        key_channels: Ck of what the memory holds.
        value_channels: Cv of it.
        classes: names and colours of the classes; set by `lmanet.load`.
        card: where the weights came from; set by `lmanet.load`.
        optimized: whether this is a copy that `optimize` made.
    """

    backbone: Backbone
    key_channels: int
    value_channels: int
    classes: Classes
    card: dict[str, Any]
    optimized: bool = False

    @property
    def memory_size(self) -> int:
        """S, frames remembered by streams that start from now on."""
        return self._memory_size

    @memory_size.setter
    def memory_size(self, size: int) -> None:
        if size < 1:
            raise InputError(
                f"memory size {size}: expected at least 1 frame; without memory, use the backbone"
            )
        self._memory_size = size

    @property
    def window(self) -> int:
        """R, the side of the search window in cells of the fused map."""
        return self._window

    @window.setter
    def window(self, side: int) -> None:
        if side < 1 or side % 2 == 0:
            raise InputError(f"window {side}: expected an odd number of cells, such as {max(1, side | 1)}")
        self._window = side

    @abstractmethod
    def step(self, images: Tensor, state: MemoryState | None = None) -> tuple[Tensor, MemoryState]:
        """Segment the next frame of a stream.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in [0, 1]; any size, padded inside to one that the network takes.
            state: what the last step returned; None begins a new stream.

        Returns:
            Logits (B, K, H, W), and the state for the next frame.

        Raises:
            InputError: not an image batch, NaN or infinity in it, or a frame that does not fit the state.
        """

    @abstractmethod
    def optimize(self, dtype: torch.dtype | None = None) -> Self:
        """A copy for inference, as fast as it gets; this model itself if it is such a copy already."""


Values = Literal["labels", "features"]
"""What a trained memory holds of a frame: the labels that it was given, or projected features (the paper's)."""


class TrainableVideoModel(VideoModel):
    """A video model whose memory is trained on frames that were each observed once, by a frozen network.

    Attributes:
        values: what its memory holds.
    """

    values: ClassVar[Values]

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """What builds this model on its backbone again, as JSON values."""

    @abstractmethod
    def observe(self, images: Tensor) -> Features:
        """What the training keeps of frames (B, 3, H, W): `fused` also as a memory, the rest as the current frame."""

    @abstractmethod
    def observed_parts(self) -> tuple[nn.Module, ...]:
        """The parts whose weights `observe` depends on."""

    @abstractmethod
    def from_observed(self, frame: Features, memory: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Logits (B, K, *size) of observed frames.

        Args:
            frame: the current frames.
            memory: the fused maps (B, S, C, h, w) of the frames in their memories; None makes the control, whose memory
                holds the current frame.
            size: (H, W).
        """
