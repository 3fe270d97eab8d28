"""Memory without training: what was said of the frame before, found again by flow and local attention.

Three things are kept of a frame: the probabilities of its patches (4×4 pixels), the label of each pixel, and a key for
each cell of the network's fused map. The optical flow from the present frame to the one before leads to all of them.

    1. patches  p ← p + w (q - p)                  q: the probabilities carried along the flow
    2. cells    p ← p ((1 - t) + t m / p̄)          m: shares of the labels, by local attention around the flow's place
    3. pixels   P ← P + (p - p₀) + β w [label]      label: the one carried along the flow

p₀ are the network's own probabilities of the patches, P those of the pixels, p̄ the means of p over a cell. 1 averages
over time, at places as exact as the flow; 2 lets the cells around decide where p₀ and q contradict each other; 3 keeps
a label that is as good as another, and the outlines as fine as the network draws them.

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
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel, check_fits
from lmanet.methods.following import bytes_of, flows, places, read_at
from lmanet.methods.keys import joined, mean_colours, projection, standardised
from lmanet.methods.memory import check_window
from lmanet.nn.cells import upsampled
from lmanet.nn.place import place_of
from lmanet.ops import Backend, local_attention
from lmanet.ops.patches import PATCH, labelled, patch_means, patch_probabilities, steadied

KEY_FEATURES = 32
"""Features beyond these go through a fixed random projection, which keeps distances."""

ROUND_TRIP_PX = 2.0
"""τ: how far from its start the way there and back may end. Flow that errs by less still leads to the same thing."""

COLOUR_SCALE = 3.3
"""Difference of colours at which the frame before counts for 1/e, in units of the frame's median difference and 2."""

SURROUNDINGS_PX = 64
"""Side of the square whose round trips say whether a place is followed: one that fits by chance is not enough."""

SURROUNDINGS = (0.5, 0.9)
"""Mean of the round trips around a place, up to which it is not followed, and from which on it is."""

WHOLE = (0.1, 0.5)
"""Mean over the frame of how far places are followed, up to which none is, and from which on they count in full."""

TEMPERATURE = 0.02
"""Of the softmax over the keys' cosines."""

CONTRADICTION = 0.3
"""Half of the difference between what is said now and what was, at which the cells count for half."""

KEPT = 0.2
"""β: by how much of its probability a label that was given before is preferred."""

LEAST = 1e-4
"""Shares below it count as this in step 2."""


class FollowedState(NamedTuple):
    """What a stream remembers of the frame before.

    Attributes:
        images: (B, 3, H, W) uint8.
        labels: (B, H, W) uint8, the labels given.
        probabilities: (B, K, ⌈H/4⌉, ⌈W/4⌉) float32 (float64 of a float64 network), of the patches.
        keys: (B, Ck, h, w), of the cells of the fused map.
        shares: (B, K, h, w), of the labels given, by class, of the cells' pixels; of the keys' dtype.
    """

    images: Tensor
    labels: Tensor
    probabilities: Tensor
    keys: Tensor
    shares: Tensor


class TrainingFreeMemory(VideoModel):
    """A single-frame network steadied by what it said of the frame before, without training.

    The module's text has the rule.

    Args:
        backbone: the single-frame network, trained.
        weight: the most that carried probabilities count in step 1, 0 to below 1.
        strength: the most that the cells count in step 2, 0 to 1.
        window: R, side of the square of cells that is searched around the place where the flow leads, odd.
        attention: the backend of `lmanet.ops.local_attention`.

    Raises:
        InputError: the window, the weight or the strength is out of range.
    """

    method = "training-free"
    State = FollowedState
    adjustable = ("weight", "strength", "window", "attention")
    not_exportable = "its optical flow is computed by OpenCV, outside of PyTorch"

    projection: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        *,
        weight: float = 0.9,
        strength: float = 0.7,
        window: int = 3,
        attention: Backend = "auto",
    ) -> None:
        super().__init__(backbone)
        self.weight, self.strength, self.window = weight, strength, window
        self.attention: Backend = attention
        self.check_arguments()
        narrow = backbone.channels > KEY_FEATURES
        # Not saved: it is the same for every network of this width.
        kept = projection(backbone.channels, KEY_FEATURES) if narrow else None
        self.register_buffer("projection", kept, persistent=False)
        self.card = backbone.card
        self.to(place_of(backbone))

    def check_arguments(self) -> None:
        """Raise InputError unless weight, strength and window are in their ranges."""
        check_window(self.window)
        if not 0 <= self.weight < 1:
            raise InputError(f"weight {self.weight}: expected 0 to below 1, such as 0.9")
        if not 0 <= self.strength <= 1:
            raise InputError(f"strength {self.strength}: expected 0 to 1")

    @property
    def arguments(self) -> dict[str, Any]:
        """Weight, strength and R, as the constructor takes them."""
        return {"weight": self.weight, "strength": self.strength, "window": self.window}

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
        now, key = patch_probabilities(logits), self._key(features.fused, padded)
        pixels = bytes_of(images)
        if state is not None:
            check_fits(pixels, state.images, "pixels")
            check_fits(key, state.keys, "keys")
            flow, returns = flows(pixels, state.images)
            leading = patch_means(flow) / PATCH
            weight, followed, grid = _reliability(pixels, state.images, leading, patch_means(returns) / PATCH)
            weight = self.weight * weight.to(now.dtype)
            carried = read_at(state.probabilities, grid)
            fused = torch.lerp(now, carried, weight)
            apart = (now - carried).abs().sum(1, keepdim=True) / 2
            fused = self._decided(fused, apart, self._read(key, state, leading, whole), followed, whole)
            change = torch.cat([fused - now, KEPT * weight], 1)
            logits, labels, shares = steadied(logits, change, state.labels, flow)
            now = fused
        else:
            labels, shares = labelled(logits)
        cells = (key.shape[-2], key.shape[-1])
        shares = F.adaptive_avg_pool2d(_widened(shares, _patches(whole)), cells).to(key.dtype)
        return logits, FollowedState(pixels, labels, now, key, shares)

    def _key(self, fused: Tensor, padded: Tensor) -> Tensor:
        """Keys (B, Ck, h, w) of the cells, of features and padded images."""
        features = standardised(fused)
        if self.projection is not None:
            features = F.conv2d(features, self.projection)
        return joined(features, mean_colours(padded, (fused.shape[-2], fused.shape[-1])))

    def _read(self, key: Tensor, state: FollowedState, flow: Tensor, whole: tuple[int, int]) -> Tensor:
        """m: shares of the labels given (B, K, h, w) in the cells around the places where the flow leads, by match.

        The flow is that of the patches, (B, 2, h', w'), in patches.
        """
        cells, size = (key.shape[-2], key.shape[-1]), _patches(whole)
        patches = torch.tensor([size[1] / cells[1], size[0] / cells[0]], device=flow.device)[:, None, None]
        there, _ = places(F.adaptive_avg_pool2d(_widened(flow, size), cells) / patches)
        keys, shares = read_at(torch.cat([state.keys, state.shares], 1), there).split(
            [key.shape[1], state.shares.shape[1]], 1
        )
        return local_attention(
            key,
            keys[:, None],
            shares[:, None],
            window=self.window,
            scale=1 / TEMPERATURE,
            backend=self.attention,
        )

    def _decided(
        self, fused: Tensor, apart: Tensor, read: Tensor, followed: Tensor, whole: tuple[int, int]
    ) -> Tensor:
        """Step 2: probabilities of the patches (B, K, h', w'), after what the cells say, where that is wanted.

        Args:
            fused: (B, K, h', w'), after step 1.
            apart: (B, 1, h', w'), 0 to 1: how far what is said now and what was said contradict each other.
            read: m, (B, K, h, w).
            followed: ρ, (B, 1, h', w').
            whole: (H, W) in pixels that the cells cover.
        """
        cells, size = (read.shape[-2], read.shape[-1]), _patches(whole)
        both = F.adaptive_avg_pool2d(_widened(torch.cat([fused, followed.to(fused.dtype)], 1), size), cells)
        trust = self.strength * both[:, -1:]
        change = (1 - trust) + trust * (read.to(fused.dtype) + LEAST) / (both[:, :-1] + LEAST)
        change = upsampled(change.log(), size)[..., : fused.shape[-2], : fused.shape[-1]]
        decided = fused * change.exp()
        decided = decided / decided.sum(1, keepdim=True)
        return torch.lerp(fused, decided, apart / (apart + CONTRADICTION))


def _reliability(
    pixels: Tensor, before: Tensor, flow: Tensor, returns: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the patches: w by the weight (B, 1, h', w'), ρ (B, 1, h', w'), and where the flow leads, for `read_at`.

    Flow and that back are theirs, (B, 2, h', w'), in patches.
    """
    grid, inside = places(flow)
    colours = patch_means(pixels)
    read = read_at(torch.cat([returns, patch_means(before)], 1), grid)
    error = (flow + read[:, :2]).square().sum(1, keepdim=True)
    squares = (flow.square() + read[:, :2].square()).sum(1, keepdim=True)
    trip = torch.exp(-error / ((ROUND_TRIP_PX / PATCH) ** 2 + squares / 100)) * inside
    side = SURROUNDINGS_PX // PATCH + 1
    followed = _ramp(_around(trip, side), SURROUNDINGS)
    followed = followed * _ramp(followed.mean((-2, -1), keepdim=True), WHOLE)
    apart = (colours - read[:, 2:]).abs().mean(1, keepdim=True)
    usual = apart.flatten(1).median(1).values[:, None, None, None] + 2
    return followed * trip * torch.exp(-apart / (COLOUR_SCALE * usual)), followed, grid


def _around(maps: Tensor, side: int) -> Tensor:
    """Means over the squares of an odd side around each place, as far as they lie on the map."""
    for size, margin in (((side, 1), (side // 2, 0)), ((1, side), (0, side // 2))):
        maps = F.avg_pool2d(maps, size, 1, margin, count_include_pad=False)
    return maps


def _ramp(x: Tensor, ends: tuple[float, float]) -> Tensor:
    """0 up to the first end, 1 from the second on."""
    return ((x - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)


def _patches(size: tuple[int, int]) -> tuple[int, int]:
    """Patches to rows and columns of an image of a size (H, W)."""
    return -(-size[0] // PATCH), -(-size[1] // PATCH)


def _widened(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (…, h, w) with the last row and column repeated up to a size."""
    if (maps.shape[-2], maps.shape[-1]) == size:
        return maps
    rows, columns = (
        torch.arange(n, device=maps.device).clamp_max_(m - 1)
        for n, m in zip(size, maps.shape[-2:], strict=True)
    )
    return maps[..., rows, :][..., columns]
