"""The whole forward pass: encode, recall, fuse, decode, memorise."""

from __future__ import annotations

import copy
import math
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmanet.backbones.base import Backbone, Features
from lmanet.errors import InputError
from lmanet.methods.base import TrainableVideoModel
from lmanet.methods.fusion import FUSIONS, Convolutions, FusionName
from lmanet.methods.memory import KeyValue, MemoryState
from lmanet.ops import Backend, Border, local_attention

PROJECTION_SIDES: dict[Convolutions, int] = {"paper": 3, "fast": 1}
"""Side of the kernels that make keys and values."""

REACH_PX = 84
"""How far the memory is searched in each direction where no window is given: ±10 cells of stride 8, the paper's."""

LARGEST_WINDOW = 21
"""The default's, in cells: time grows by its square."""


def default_channels(fusion: FusionName, convolutions: Convolutions, channels: int) -> tuple[int, int]:
    """Ck and Cv for a map of C channels where nothing else is asked for.

    The paper's: 16 and 64 for ERFNet's 128 channels, 128 and the map itself for PSPNet; for other widths in proportion,
    within limits; with `fast` convolutions half the value channels.
    """
    if fusion == "bottleneck":
        return 128, channels
    value = min(128, max(32, channels // 2))
    return min(64, max(16, channels // 64 * 8)), value if convolutions == "paper" else value // 2


def default_window(stride: int) -> int:
    """R where nothing else is asked for: `REACH_PX` in each direction, at most `LARGEST_WINDOW` cells."""
    return min(LARGEST_WINDOW, 2 * (REACH_PX // stride) + 1)


class VideoSegmenter(TrainableVideoModel):
    """A single-frame network with a local memory attention module between its encoder and its decoder.

    Args:
        backbone: the single-frame network.
        key_channels: Ck; if not given, by the map's channels (`default_channels`): 16 for ERFNet's 128.
        value_channels: Cv; likewise, 64 for ERFNet, or 32 with `fast` convolutions; `bottleneck` takes the fused map
            itself as value.
        memory_size: S, frames remembered; may be changed between streams (`segmenter.memory_size = 8`).
        window: R, side of the square of cells that is searched in each remembered frame, odd; may be changed; if not
            given, by the map's stride (`default_window`): 21 at stride 8.
        fusion: `gated` (the paper's, equation 6), `concat`, or `bottleneck` (the paper's for PSPNet: for maps of many
            channels).
        convolutions: those that make keys, values and the fused map: `paper` (3×3) or `fast` (1×1).
        border: `mask` leaves places outside the image out of the attention; `zero` gives them score 0 and value
            0, as checkpoints of the original implementation expect.
        attention: the backend of `lmanet.ops.local_attention`.

    Attributes:
        classes: names and colours of the classes; set by `lmanet.load`.
        card: where the weights came from; set by `lmanet.load`.
        optimized: whether this is a copy that `optimize` made.

    Raises:
        InputError: a size is out of range or does not fit the backbone.
    """

    values = "features"

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
        super().__init__()
        for name, got, known in (
            ("fusion", fusion, FusionName),
            ("convolutions", convolutions, Convolutions),
        ):
            if got not in get_args(known):
                raise InputError(f"{name} {got!r}: expected one of {', '.join(get_args(known))}")
        default_key, default_value = default_channels(fusion, convolutions, backbone.channels)
        key_channels, value_channels = key_channels or default_key, value_channels or default_value
        self.backbone = backbone
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
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def step(self, images: Tensor, state: MemoryState | None = None) -> tuple[Tensor, MemoryState]:
        """Segment the next frame of a stream: see `VideoModel.step`."""
        features, size = encode_any_size(self.backbone, images)
        query, (key, value) = self.key_value(features.fused)
        if state is None:
            state = MemoryState.filled(key, value, self.memory_size)
        state = state.for_frame(key)
        logits = self._recall_and_decode(features, query, state, size)
        return logits, state.push(key, value)

    def decode(self, features: Features, state: MemoryState, size: tuple[int, int]) -> Tensor:
        """Features of the current frame and a memory to logits (B, K, *size): recall, fuse, decode."""
        query = self.key_value.query(features.fused)
        return self._recall_and_decode(features, query, state.for_frame(query[0]), size)

    def _recall_and_decode(
        self, features: Features, query: tuple[Tensor, Tensor], state: MemoryState, size: tuple[int, int]
    ) -> Tensor:
        key, value = query
        read = local_attention(
            key,
            state.keys,
            state.values,
            window=self.window,
            border=self.border,
            backend=self.attention,
        )
        fused = self.fusion(value, read)
        return decode_to_size(self.backbone, features.with_fused(fused), size)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the last frame of a clip (B, T, 3, H, W): equals `step` after `step`.

        Only the last S + 1 frames are encoded, each once. A clip shorter than that counts as a stream that
        begins with it.
        """
        if clip.ndim != 5 or clip.shape[1] < 1:
            raise InputError(f"clip {tuple(clip.shape)}: expected (B, T, 3, H, W) with at least one frame")
        clip = clip[:, -(self.memory_size + 1) :]
        batch, length = clip.shape[:2]
        features, size = encode_any_size(self.backbone, clip.flatten(0, 1))
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
    def arguments(self) -> dict[str, Any]:
        """What builds this model on its backbone again."""
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
        """As of every trainable model: the features."""
        return encode_any_size(self.backbone, images)[0]

    def observed_parts(self) -> tuple[nn.Module, ...]:
        """As of every trainable model: the encoder."""
        return self.backbone.encoder_parts()

    def from_observed(self, frame: Features, memory: Tensor | None, size: tuple[int, int]) -> Tensor:
        """As of every trainable model; attention over S equal copies equals attention over one."""
        memory = frame.fused.unsqueeze(1) if memory is None else memory
        key, value = self.key_value.memory(memory.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        state = MemoryState(key.unflatten(0, memory.shape[:2]), value.unflatten(0, memory.shape[:2]))
        return self.decode(frame, state, size)

    def optimize(self, dtype: torch.dtype | None = None) -> Self:
        """A copy for inference, as fast as it gets: BatchNorm folded into the convolutions around it.

        The logits are this model's up to rounding, and labels differ only where two classes are that close: in
        float32 logits within 1e-4 of their range (the bundled models: 1e-6), with bfloat16 weights within 3 % by norm
        (the bundled models: 0.6 %, as under autocast). What a stream's memory holds is the same too, so a stream may
        go on from one to the other. `Session` calls this by itself.

        Args:
            dtype: of the copy's weights, such as `torch.bfloat16`; this model's if not given.

        Returns:
            The copy, in `eval` mode, on the same device, without gradients. It can neither be trained nor saved.
            This model itself if it is such a copy already.
        """
        if self.optimized and dtype in (None, next(self.parameters()).dtype):
            return self
        # All but the backbone is copied, which makes its own copy.
        fast = copy.deepcopy(self, {id(self.backbone): self.backbone.optimize(dtype)})
        if not fast.optimized:
            fast.fusion.fold_norms(fast.key_value.query_value)
            fast.optimized = True
        fast.eval().requires_grad_(False)
        return fast if dtype is None else fast.to(dtype)


def encode_any_size(backbone: Backbone, images: Tensor) -> tuple[Features, tuple[int, int]]:
    """Encode images that `as_network_takes` made fit.

    Args:
        backbone: the network.
        images: (B, 3, H, W) RGB, uint8 or any float in [0, 1].

    Returns:
        The features of the padded images, and (H, W) before padding.

    Raises:
        InputError: not an image batch, or NaN or floats far outside of [0, 1] in it.
    """
    return backbone.encode(as_network_takes(backbone, images)), (images.shape[-2], images.shape[-1])


def as_network_takes(backbone: Backbone, images: Tensor) -> Tensor:
    """Check, scale to [0, 1], cast to the network's dtype, and pad right and below to `padded_length`.

    Arguments and errors are those of `encode_any_size`.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(f"images {tuple(images.shape)}: expected (B, 3, H, W), RGB")
    if images.dtype == torch.uint8:
        images = images.to(torch.get_default_dtype()).div_(255)
    elif not images.is_floating_point():
        raise InputError(f"images of {images.dtype}: expected uint8, or float in [0, 1]")
    elif not torch.compiler.is_compiling():
        _check_range(images)
    images = images.to(next(backbone.parameters()).dtype)
    height, width = images.shape[-2:]
    below, right = (backbone.padded_length(n) - n for n in (height, width))
    if below or right:
        images = F.pad(images, (0, right, 0, below), mode="replicate")
    return images


def _check_range(images: Tensor) -> None:
    low, high = (float(x) for x in images.aminmax())
    if math.isnan(low) or math.isinf(low) or math.isinf(high):
        raise InputError("images hold NaN or infinity: expected float in [0, 1]; mend or skip this frame")
    if low < -1 or high > 2:  # what interpolation leaves a little outside is taken
        raise InputError(
            f"images of {low:.3g} to {high:.3g}: expected uint8, or float in [0, 1]; divide by 255, or leave out the "
            f"normalisation, which the network does itself"
        )


def decode_to_size(backbone: Backbone, features: Features, size: tuple[int, int]) -> Tensor:
    """Decode features of padded images and cut the padding off: logits (B, K, *size)."""
    height, width = map(backbone.padded_length, size)
    return backbone.decode(features, (height, width))[..., : size[0], : size[1]]


def segment_single(backbone: Backbone, images: Tensor) -> Tensor:
    """The single-frame network on images of any size: (B, 3, H, W) to logits (B, K, H, W), as `step` does."""
    features, size = encode_any_size(backbone, images)
    return decode_to_size(backbone, features, size)
