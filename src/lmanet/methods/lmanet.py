"""LMANet, the paper's memory of features: encode, recall, combine, decode, remember.

Local Memory Attention (Paul, Danelljan, Van Gool, Timofte, IROS 2021): keys and values are projections of the network's
fused map; around each cell, the keys of the last S frames are searched (equations 1 to 4), and what is read is fused
with the present frame's value (equation 6) before the network's own decoder.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn

from lmanet.backbones.base import Backbone, Features
from lmanet.errors import InputError
from lmanet.methods.base import TrainableVideoModel, check_clip
from lmanet.methods.fusion import FUSIONS, Convolutions, FusionName
from lmanet.methods.memory import KeyValue, MemoryState, check_memory, default_window
from lmanet.ops import Backend, Border, local_attention

PROJECTION_SIDES: dict[Convolutions, int] = {"paper": 3, "fast": 1}
"""Side of the kernels that make keys and values."""


def default_channels(fusion: FusionName, convolutions: Convolutions, channels: int) -> tuple[int, int]:
    """Ck and Cv for a map of C channels where nothing else is asked for.

    The paper's: 16 and 64 for ERFNet's 128 channels, 128 and the map itself for PSPNet; for other widths in proportion,
    within limits; with `fast` convolutions half the value channels.
    """
    if fusion == "bottleneck":
        return 128, channels
    value = min(128, max(32, channels // 2))
    return min(64, max(16, channels // 64 * 8)), value if convolutions == "paper" else value // 2


class LMANet(TrainableVideoModel):
    """The paper's method: a local memory attention module between a network's encoder and its decoder.

    Args:
        backbone: the single-frame network.
        key_channels: Ck; if not given, by the map's channels (`default_channels`): 16 for ERFNet's 128.
        value_channels: Cv; likewise, 64 for ERFNet, or 32 with `fast` convolutions; `bottleneck` takes the fused map
            itself as value.
        memory_size: S, frames remembered.
        window: R, side of the square of cells that is searched in each remembered frame, odd; if not given, by the
            map's stride (`default_window`): 21 at stride 8.
        fusion: `gated` (the paper's, equation 6), `concat`, or `bottleneck` (the paper's for PSPNet: for maps of many
            channels).
        convolutions: those that make keys, values and the fused map: `paper` (3×3) or `fast` (1×1).
        border: `mask` leaves places outside the image out of the attention; `zero` gives them score 0 and value
            0, as checkpoints of the original implementation expect.
        attention: the backend of `lmanet.ops.local_attention`.

    Raises:
        InputError: a size is out of range or does not fit the backbone.
    """

    method = "lmanet"
    State = MemoryState
    adjustable = ("memory_size", "window", "border", "attention")

    def __init__(
        self,
        backbone: Backbone,
        *,
        key_channels: int | None = None,
        value_channels: int | None = None,
        memory_size: int = 4,
        window: int | None = None,
        fusion: FusionName = "gated",
        convolutions: Convolutions = "paper",
        border: Border = "mask",
        attention: Backend = "auto",
    ) -> None:
        super().__init__(backbone)
        for name, got, known in (
            ("fusion", fusion, FusionName),
            ("convolutions", convolutions, Convolutions),
        ):
            if got not in get_args(known):
                raise InputError(f"{name} {got!r}: expected one of {', '.join(get_args(known))}")
        default_key, default_value = default_channels(fusion, convolutions, backbone.channels)
        key_channels, value_channels = key_channels or default_key, value_channels or default_value
        self.key_value = KeyValue(
            backbone.channels,
            key_channels,
            None if fusion == "bottleneck" else value_channels,
            side=PROJECTION_SIDES[convolutions],
        )
        self.fusion = FUSIONS[convolutions][fusion](value_channels, backbone.channels)
        self.key_channels, self.value_channels = key_channels, value_channels
        self.fusion_name: FusionName = fusion
        self.convolutions: Convolutions = convolutions
        self.memory_size = memory_size
        self.window = default_window(backbone.stride) if window is None else window
        self.border: Border = border
        self.attention: Backend = attention
        self.check_arguments()
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def check_arguments(self) -> None:
        """Raise InputError unless S, R and the border are ones that there are."""
        check_memory(self.memory_size, self.window)
        if self.border not in get_args(Border):
            raise InputError(f"border {self.border!r}: expected one of {', '.join(get_args(Border))}")

    def step(self, images: Tensor, state: MemoryState | None = None) -> tuple[Tensor, MemoryState]:
        """Label the next frame of a stream.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in [0, 1]; any size.
            state: what the last step returned; None begins a new stream, whose memory is its first frame S times.

        Returns:
            Logits (B, K, H, W), and keys (B, S, Ck, h, w) and values (B, S, Cv, h, w) of the last S frames.

        Raises:
            InputError: not an image batch, NaN or infinity in it, or a frame that does not fit the state.
        """
        features, size = self.backbone.encode_any_size(images)
        query, (key, value) = self.key_value(features.fused)
        if state is None:
            state = MemoryState.filled(key, value, self.memory_size)
        logits = self._decode(features, query, state.for_frame(key), size)
        return logits, state.push(key, value)

    def decode(self, features: Features, state: MemoryState, size: tuple[int, int]) -> Tensor:
        """Features of the current frame and a memory to logits (B, K, *size): recall, combine, decode."""
        query = self.key_value.query(features.fused)
        return self._decode(features, query, state.for_frame(query[0]), size)

    def recall(self, key: Tensor, state: MemoryState) -> Tensor:
        """What the present frame, of query keys (B, Ck, h, w), reads from a memory: (B, Cv, h, w)."""
        return local_attention(
            key, state.keys, state.values, window=self.window, border=self.border, backend=self.attention
        )

    def _decode(
        self, features: Features, query: tuple[Tensor, Tensor], state: MemoryState, size: tuple[int, int]
    ) -> Tensor:
        key, value = query
        fused = self.fusion(value, self.recall(key, state))
        return self.backbone.decode_to_size(features.with_fused(fused), size)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the last frame of a clip (B, T, 3, H, W): equals `step` after `step`.

        Only the last S + 1 frames are encoded, each once. A clip shorter than that counts as a stream that
        begins with it.

        Raises:
            InputError: not a clip, or see `step`.
        """
        check_clip(clip)
        clip = clip[:, -(self.memory_size + 1) :]
        batch, length = clip.shape[:2]
        features, size = self.backbone.encode_any_size(clip.flatten(0, 1))
        # (B T) to B, T; only the last frame's skip maps are needed.
        fused = features.fused.unflatten(0, (batch, length))
        rest = tuple(x.unflatten(0, (batch, length))[:, -1] for x in features.rest)
        past = fused[:, : max(1, length - 1)]
        key, value = self.key_value.memory(past.flatten(0, 1))
        keys, values = key.unflatten(0, past.shape[:2]), value.unflatten(0, past.shape[:2])
        missing = self.memory_size - past.shape[1]
        if missing:
            keys = torch.cat([keys[:, :1].expand(-1, missing, -1, -1, -1), keys], 1)
            values = torch.cat([values[:, :1].expand(-1, missing, -1, -1, -1), values], 1)
        return self.decode(Features(fused[:, -1], rest), MemoryState(keys, values), size)

    @property
    def past_frames(self) -> int:
        """S: the memory holds features of the last S frames, which do not depend on those before."""
        return self.memory_size

    @property
    def arguments(self) -> dict[str, Any]:
        """Channels, S, R, fusion, convolutions and border, as the constructor takes them."""
        return {
            "key_channels": self.key_channels,
            "value_channels": self.value_channels,
            "memory_size": self.memory_size,
            "window": self.window,
            "fusion": self.fusion_name,
            "convolutions": self.convolutions,
            "border": self.border,
        }

    def observe(self, images: Tensor) -> Features:
        """The features of frames (B, 3, H, W), which keys and values are projected from."""
        return self.backbone.encode_any_size(images)[0]

    def observed_parts(self) -> tuple[nn.Module, ...]:
        """The encoder."""
        return self.backbone.encoder_parts()

    def from_observed(self, frame: Features, memory: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Logits (B, K, *size) of frames whose features are known, and of those in their memories.

        Args:
            frame: features of the current frames.
            memory: fused maps (B, S, C, h, w) of the frames in their memories; None is the current frame, once, as
                attention over S equal copies equals attention over one.
            size: (H, W) of the logits.
        """
        memory = frame.fused.unsqueeze(1) if memory is None else memory
        key, value = self.key_value.memory(memory.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        state = MemoryState(key.unflatten(0, memory.shape[:2]), value.unflatten(0, memory.shape[:2]))
        return self.decode(frame, state, size)

    def fold_norms(self) -> None:
        """Fold the fusion's BatchNorm into the convolutions around it, in place."""
        self.fusion.fold_norms(self.key_value.query_value)
