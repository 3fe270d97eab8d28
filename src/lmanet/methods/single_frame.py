"""No memory: every frame by itself, by the single-frame network."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lmanet.methods.base import VideoModel, check_clip


class NoState(NamedTuple):
    """What a stream of single frames remembers: nothing."""


class SingleFrame(VideoModel):
    """A network that labels every frame by itself. Frames of a stream may differ in size.

    Args:
        backbone: the single-frame network.
    """

    method = "single-frame"
    State = NoState
    needs_cut = False

    def step(self, images: Tensor, state: NoState | None = None) -> tuple[Tensor, NoState]:
        """Label frames by the network alone: images (B, 3, H, W) to logits (B, K, H, W) and the empty state.

        Args:
            images: RGB, uint8 or float in [0, 1]; any size.
            state: of no effect.

        Raises:
            InputError: not an image batch, or NaN or infinity in it.
        """
        return self.backbone.segment(images), NoState()

    @property
    def past_frames(self) -> int:
        """None: every frame is labelled by itself."""
        return 0

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the last frame of a clip (B, T, 3, H, W); the others are not looked at."""
        check_clip(clip)
        return self.backbone.segment(clip[:, -1])
