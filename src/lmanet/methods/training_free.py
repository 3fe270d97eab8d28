"""Memory without training: what was said of the frame before, found again by flow and local attention.

Three things are kept of a frame: the probabilities of its patches (4×4 pixels), the label of each pixel, and a key for
each cell of the network's fused map. The optical flow from the present frame to the one before leads to all of them.

    1. patches  p ← p + w (q - p)                  q: the probabilities carried along the flow
    2. cells    p ← p ((1 - t) + t m / p̄)          m: shares of the labels, by local attention around the flow's place
    3. pixels   P ← P + (p - p₀) + β w [label]      label: the one carried along the flow

p₀ are the network's own probabilities of the patches, P those of the pixels, p̄ the means of p over a cell. 1 averages
over time, at places as exact as the flow; 2 lets the cells around decide where p₀ and q contradict each other; 3 keeps a
label that is as good as another, and the outlines as fine as the network draws them.

    w = weight · ρ · exp(-|f + b|² / (τ² + (|f|² + |b|²) / 100)) · exp(-colours / scale)

f is the flow, b the one back from where it leads, |colours| how far the patches' colours differ; ρ, from 0 to 1, says
whether the surroundings are followed, and the frame as a whole: where they are not, as in a stream of one frame a
second, the network's own labels are left as they are. t is the strength times ρ.

How the constants were chosen: `docs/methods/training-free.md`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lmanet.backbones.base import Backbone
from lmanet.methods.base import VideoModel, check_fits
from lmanet.methods.following import bytes_of, flows, places, read_at
from lmanet.methods.gate import Gate
from lmanet.methods.keys import joined, mean_colours, projection, standardised
from lmanet.methods.memory import check_window
from lmanet.nn.cells import BAND_CELLS, rewritten, upsampled
from lmanet.nn.place import place_of
from lmanet.ops import Backend, local_attention

PATCH = 4
"""Pixels to a side of the patches, whose probabilities are carried along the flow."""

KEY_FEATURES = 32
"""Features beyond these go through a fixed random projection, which keeps distances."""

REFINEMENTS = 2
"""Of the optical flow; more take half of its time again and change nothing."""

ROUND_TRIP_PX = 2.0
"""τ: how far from its start the way there and back may end. Flow that errs by less still leads to the same thing."""

SURROUNDINGS_PX = 64
"""Side of the square whose round trips say whether a place is followed: one that fits by chance is not enough."""

SURROUNDINGS = (0.5, 0.9)
"""Mean of the round trips around a place, up to which it is not followed, and from which on it is."""

TEMPERATURE = 0.02
"""Of the softmax over the keys' cosines."""

KEPT = 0.1
"""β: by how much of its probability a label that was given before is preferred."""

LEAST = 1e-3
"""Shares below it count as this in step 2."""

TINY = 1e-30


class FollowedState(NamedTuple):
    """What a stream remembers of the frame before.

    Attributes:
        images: (B, 3, H, W) uint8.
        labels: (B, H, W) uint8, the labels given.
        probabilities: (B, K, ⌈H/4⌉, ⌈W/4⌉) float32 (float64 of a float64 network), of the patches.
        keys: (B, Ck, h, w), of the cells of the fused map.
    """

    images: Tensor
    labels: Tensor
    probabilities: Tensor
    keys: Tensor


class TrainingFreeMemory(VideoModel):
    """A single-frame network steadied by what it said of the frame before, without training.

    The module's text has the rule.

    Args:
        backbone: the single-frame network, trained.
        window: R, side of the square of cells that is searched around the place where the flow leads, odd.
        attention: the backend of `lmanet.ops.local_attention`.

    Raises:
        InputError: the window is no odd number of cells.
    """

    method = "training-free"
    State = FollowedState
    adjustable = ("window", "attention")
    not_exportable = "its optical flow is computed by OpenCV, outside of PyTorch"

    projection: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        *,
        window: int = 3,
        attention: Backend = "auto",
    ) -> None:
        super().__init__(backbone)
        self.window = window
        self.attention: Backend = attention
        self.check_arguments()
        narrow = backbone.channels > KEY_FEATURES
        # Not saved: it is the same for every network of this width.
        kept = projection(backbone.channels, KEY_FEATURES) if narrow else None
        self.register_buffer("projection", kept, persistent=False)
        self.gate = Gate()
        self.card = backbone.card
        self.to(place_of(backbone))

    def check_arguments(self) -> None:
        """Raise InputError unless R is an odd number of cells."""
        check_window(self.window)

    @property
    def arguments(self) -> dict[str, Any]:
        """R, as the constructor takes it."""
        return {"window": self.window}

    def step(self, images: Tensor, state: FollowedState | None = None) -> tuple[Tensor, FollowedState]:
        """Label the next frame of a stream. The first frame's labels are the network's own.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in [0, 1]; at least 16×16.
            state: what the last step returned; None begins a new stream.

        Returns:
            Logits (B, K, H, W), float32 (float64 of a float64 network), those of the second frame and later ones
            logarithms of probabilities; and the state for the next frame.

        Raises:
            InputError: not an image batch, NaN or infinity in it, or a frame that does not fit the state.
        """
        padded = self.backbone.prepared(images)
        whole = (padded.shape[-2], padded.shape[-1])
        features = self.backbone.encode(padded)
        logits = self.backbone.decode(features, whole)[..., : images.shape[-2], : images.shape[-1]]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        now, key = _probabilities(logits), self._key(features.fused, padded)
        pixels = bytes_of(images)
        if state is not None:
            check_fits(pixels, state.images, "pixels")
            check_fits(key, state.keys, "keys")
            flow, returns = flows(pixels, state.images, refinements=REFINEMENTS)
            motion = Motion.of(pixels, state.images, flow, returns)
            fused, past = self.fused(now, key, state, motion, whole)
            change = torch.cat([fused - now, KEPT * past], 1)
            logits = rewritten(logits, change, _steadied, _carried(state.labels, flow), factor=PATCH)
            now = fused
        labels = logits.max(1).indices
        return logits, FollowedState(pixels, labels.byte(), now, key)

    def fused(
        self, now: Tensor, key: Tensor, state: FollowedState, motion: Motion, whole: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Probabilities of the patches (B, K, h', w') with the memory's share, and how large that is, (B, 1, h', w')."""
        carried = read_at(state.probabilities, motion.grid)
        said, match = self._cells(now, key, state, motion.flow, whole)
        cues = torch.cat([motion.cues, match], 1).to(now.dtype)
        return self.gate(now, carried, said, cues)

    def _cells(
        self, now: Tensor, key: Tensor, state: FollowedState, flow: Tensor, whole: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """What the cells around the places where the flow leads say of the patches (B, K, h', w'), and how well they match.

        Args:
            now: (B, K, h', w').
            key: (B, Ck, h, w).
            state: of the frame before.
            flow: (B, 2, h', w'), in patches.
            whole: (H, W) in pixels that the cells cover.
        """
        cells, patches = (key.shape[-2], key.shape[-1]), (-(-whole[0] // PATCH), -(-whole[1] // PATCH))

        def to_cells(maps: Tensor) -> Tensor:
            return F.adaptive_avg_pool2d(_widened(maps, patches), cells)

        def to_patches(maps: Tensor) -> Tensor:
            return upsampled(maps, patches)[..., : now.shape[-2], : now.shape[-1]]

        px = torch.tensor([patches[1] / cells[1], patches[0] / cells[0]], device=flow.device)[:, None, None]
        there, _ = places(to_cells(flow) / px)
        keys, said = read_at(
            torch.cat([state.keys, to_cells(state.probabilities).to(key.dtype)], 1), there
        ).split([key.shape[1], now.shape[1]], 1)
        read = local_attention(
            key,
            keys[:, None],
            torch.cat([said, keys], 1)[:, None],
            window=self.window,
            scale=1 / TEMPERATURE,
            backend=self.attention,
        )
        read = read.to(now.dtype)
        said, matched = read[:, : now.shape[1]], read[:, now.shape[1] :]
        said = said / said.sum(1, keepdim=True)
        error = (key.to(now.dtype) - matched).square().sum(1, keepdim=True)
        beside = [key.to(now.dtype).diff(dim=d).square().sum(1).mean((-2, -1)) for d in (-2, -1)]
        relative = error / ((beside[0] + beside[1]) / 2)[:, None, None, None].clamp_min(1e-6)
        change = to_patches(torch.cat([(said + LEAST) / (to_cells(now) + LEAST), relative], 1))
        answer = now * change[:, :-1]
        return answer / answer.sum(1, keepdim=True), torch.log(change[:, -1:] + 0.05)

    def _key(self, fused: Tensor, padded: Tensor) -> Tensor:
        """Keys (B, Ck, h, w) of the cells, of features and padded images."""
        features = standardised(fused)
        if self.projection is not None:
            features = F.conv2d(features, self.projection)
        return joined(features, mean_colours(padded, (fused.shape[-2], fused.shape[-1])))


class Motion(NamedTuple):
    """How the patches of a frame are found in the frame before.

    Attributes:
        flow: (B, 2, h', w'), in patches.
        grid: where it leads, for `read_at`.
        cues: (B, 8, h', w').
    """

    flow: Tensor
    grid: Tensor
    cues: Tensor

    @classmethod
    def of(cls, pixels: Tensor, before: Tensor, flow: Tensor, returns: Tensor) -> Motion:
        """Of frames (B, 3, H, W) uint8, those before, and the flows there and back (B, 2, H, W)."""
        flow, returns = patches_of(flow) / PATCH, patches_of(returns) / PATCH
        grid, inside = places(flow)
        colours, colours_before = patches_of(torch.cat([pixels, before]).to(flow.dtype)).chunk(2)
        read = read_at(torch.cat([returns, colours_before], 1), grid)
        error = (flow + read[:, :2]).square().sum(1, keepdim=True) * PATCH**2
        squares = (flow.square() + read[:, :2].square()).sum(1, keepdim=True) * PATCH**2
        trip = torch.exp(-error / (ROUND_TRIP_PX**2 + squares / 100)) * inside
        side = SURROUNDINGS_PX // PATCH + 1
        followed = _ramp(F.avg_pool2d(trip, side, 1, side // 2, count_include_pad=False), SURROUNDINGS)
        apart = (colours - read[:, 2:]).abs().mean(1, keepdim=True)
        usual = apart.flatten(1).median(1).values[:, None, None, None]
        grey = pixels.to(flow.dtype).mean(1, keepdim=True)
        mean, square = patches_of(torch.cat([grey, grey.square()], 1)).chunk(2, 1)
        cues = [
            torch.log(error + 0.05),
            torch.log(squares + 0.1) / 2,
            torch.log(apart + 1) - 1.5,
            torch.log((apart + 1) / (usual + 1)),
            torch.log((square - mean.square()).clamp_min(0).sqrt() + 1) - 1.5,
            2 * followed - 1,
            (2 * followed.mean((-2, -1), keepdim=True) - 1).expand_as(followed),
            inside.to(flow.dtype),
        ]
        return cls(flow, grid, torch.cat(cues, 1))


def patches_of(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) to the means of their patches (B, C, ⌈H/4⌉, ⌈W/4⌉)."""
    return F.avg_pool2d(maps, PATCH, ceil_mode=True, count_include_pad=False)


def _ramp(x: Tensor, ends: tuple[float, float]) -> Tensor:
    """0 up to the first end, 1 from the second on."""
    return ((x - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)


def _probabilities(logits: Tensor) -> Tensor:
    """Logits (B, K, H, W) to the probabilities of the patches (B, K, ⌈H/4⌉, ⌈W/4⌉)."""
    # Some rows at a time: they lie in the cache from one operation to the next.
    rows = PATCH * BAND_CELLS if logits.device.type == "cpu" else logits.shape[-2]
    return torch.cat([patches_of(band.softmax(1)) for band in logits.split(rows, -2)], -2)


def _steadied(logits: Tensor, change: Tensor, labels: Tensor) -> Tensor:
    """Step 3, of some rows: logits (B, K, n, W), change and β w (B, K + 1, n, W), labels (B, 1, n, W) to log P."""
    said = logits.softmax(1) + change[:, :-1]
    return said.scatter_add_(1, labels, change[:, -1:]).clamp_min(TINY).log()


def _carried(labels: Tensor, flow: Tensor) -> Tensor:
    """The labels given (B, H, W) uint8 at the nearest pixels to where a flow (B, 2, H, W) leads: (B, 1, H, W) int64."""
    height, width = labels.shape[-2:]
    columns = (torch.arange(width, device=flow.device) + flow[:, 0]).round_().clamp_(0, width - 1)
    rows = (torch.arange(height, device=flow.device)[:, None] + flow[:, 1]).round_().clamp_(0, height - 1)
    index = torch.add(columns.long(), rows.long(), alpha=width)
    return labels.flatten(1).gather(1, index.flatten(1)).view_as(labels)[:, None].long()


def _widened(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (…, h, w) with the last row and column repeated up to a size."""
    if (maps.shape[-2], maps.shape[-1]) == size:
        return maps
    rows, columns = (
        torch.arange(n, device=maps.device).clamp_max_(m - 1)
        for n, m in zip(size, maps.shape[-2:], strict=True)
    )
    return maps[..., rows, :][..., columns]
