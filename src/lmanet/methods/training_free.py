"""Memory without training: what was said of the frame before, found again by flow and local attention.

Of a frame are kept the probabilities of its patches (4×4 pixels), the label of each pixel, and a key for each cell of
2×2 patches: what the network says of it, and its colours. The optical flow from the present frame to the one before
leads to all of them. So there are three answers to what a patch shows:

    p    the network's, of the present frame
    q    of the frame before, carried along the flow
    m    of the cells: p c / p̄, where c is read by local attention in a small window around the flow's place

p̄ are the means of p over a cell, so that m keeps the detail of p. A gate (`gate.py`) weighs them, place by place:

    p' = a p + b q + c m,  a + b + c = 1

It sees how sure the answers are and how far they contradict each other, and how well the frame before is found:
whether the flow returns, here and around, whether colours, contrasts and features fit. It sees no class and so serves
any network; it was trained once (`tools/train_gate.py`). The less of a frame is found again, the less the frame before
counts, down to nothing (`Motion.trust`), unless it is a spoilt one among good ones (`spoilt.py`). The pixels P follow
their patches, and a label that is as good as another stays:

    P ← P + (p' - p) + β (1 - a) [label carried along the flow]
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lmanet.backbones.base import Backbone
from lmanet.methods.base import VideoModel, check_fits
from lmanet.methods.following import bytes_of, flows, places, ramp, read_at
from lmanet.methods.gate import Gate
from lmanet.methods.keys import COLOUR_GRID, by_cell, joined, projection, standardised
from lmanet.methods.memory import check_window
from lmanet.methods.spoilt import LONGEST, fallen, same_picture
from lmanet.nn.cells import upsampled
from lmanet.nn.place import place_of
from lmanet.ops import Backend, local_attention
from lmanet.ops.followed import followed
from lmanet.ops.patches import PATCH, patch_means, patch_probabilities, steadied

CELL = COLOUR_GRID
"""Patches to a side of a cell: they are the parts whose colours its key has."""

KEY_CLASSES = 32
"""Where there are more, their probabilities go through a fixed random projection, which keeps distances."""

REFINEMENTS = 2
"""Of the optical flow; more take half of its time again and change nothing."""

SURROUNDINGS = (0.5, 0.9)
"""Mean of the round trips around a place, up to which it is not followed, and from which on it is."""

FRAME = (0.2, 0.6)
"""Share of a frame that is followed, up to which nothing of the frame before counts, and from which on all does."""

MISFIT = (0.5, 0.9)
"""Of these contrasts, the share that the frame before does not explain: nothing of it counts from the second on."""

FOUND = 0.5
"""Trust from which on a frame counts as found."""

TEMPERATURE = 0.02
"""Of the softmax over the keys' cosines."""

KEPT = 0.25
"""β: by how much of its probability a label that was given before is preferred."""

LEAST = 1e-3
"""Added to the cells' probabilities where one is divided by another."""

UNLIKELY = 0.01
"""Added to the cells' probabilities where keys are made of their logarithms: below, differences say little."""


class SaidFrame(NamedTuple):
    """A frame and what was said of it.

    Attributes:
        images: (B, 3, H, W) uint8.
        labels: (B, H, W) uint8, the labels given.
        probabilities: (B, K, ⌈H/4⌉, ⌈W/4⌉) float32 (float64 of a float64 network), of the patches.
        keys: (B, Ck, h, w), of the cells: h = ⌈H/8⌉, w = ⌈W/8⌉, Ck = min(K, 32) + 12.
    """

    images: Tensor
    labels: Tensor
    probabilities: Tensor
    keys: Tensor


class FollowedState(NamedTuple):
    """What a stream remembers: the frame before, and the last good one, which was found in an earlier one.

    These are mostly the same frame; of a single stream then the same tensors. Of a frame that was labelled by the last
    good one the network's own answer is kept.

    Attributes:
        images: (B, 3, H, W) uint8, the frame before.
        labels: (B, H, W) uint8, the labels given.
        probabilities: (B, K, ⌈H/4⌉, ⌈W/4⌉) float32 (float64 of a float64 network), of the patches.
        keys: (B, Ck, h, w), of the cells: h = ⌈H/8⌉, w = ⌈W/8⌉, Ck = min(K, 32) + 12.
        good_images: the same of the last good frame.
        good_labels: of it.
        good_probabilities: of it.
        good_keys: of it.
        motion: (B, 2, ⌈H/4⌉, ⌈W/4⌉) float32, from it to the frame before it, in patches.
        age: (B,) float32, how many frames ago it was; 0 where there is none.
    """

    images: Tensor
    labels: Tensor
    probabilities: Tensor
    keys: Tensor
    good_images: Tensor
    good_labels: Tensor
    good_probabilities: Tensor
    good_keys: Tensor
    motion: Tensor
    age: Tensor

    @property
    def before(self) -> SaidFrame:
        """The frame before."""
        return SaidFrame(*self[:4])

    @property
    def good(self) -> SaidFrame:
        """The last good frame."""
        return SaidFrame(*self[4:8])


class SeenFrame(NamedTuple):
    """What the network alone says of a frame.

    Attributes:
        logits: (B, K, H, W).
        pixels: (B, 3, H, W) uint8.
        now: p, (B, K, h', w'), of the patches.
        key: (B, Ck, h, w), of the cells.
    """

    logits: Tensor
    pixels: Tensor
    now: Tensor
    key: Tensor

    def alone(self) -> SaidFrame:
        """It, and the network's own labels."""
        labels = self.logits.max(1).indices.byte()  # the same as by `argmax`, in a fifth of the time
        return SaidFrame(self.pixels, labels, self.now, self.key)


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
    needs_cut = False
    not_exportable = "its optical flow is computed by OpenCV, outside of PyTorch"

    projection: Tensor | None

    def __init__(self, backbone: Backbone, *, window: int = 3, attention: Backend = "auto") -> None:
        super().__init__(backbone)
        self.window = window
        self.attention: Backend = attention
        self.check_arguments()
        classes = backbone.num_classes
        # Not saved: it is the same for every network of so many classes.
        kept = projection(classes, KEY_CLASSES) if classes > KEY_CLASSES else None
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
        frame = self.seen(images)
        if state is None:
            alone = frame.alone()
            still = frame.now.new_zeros(len(images), 2, *frame.now.shape[-2:], dtype=torch.float32)
            return frame.logits, FollowedState(*alone, *alone, still, still.new_zeros(len(images)))
        check_fits(frame.pixels, state.images, "pixels")
        check_fits(frame.key, state.keys, "keys")
        each = [
            self._next(
                SeenFrame(*(x[i : i + 1] for x in frame)), FollowedState(*(x[i : i + 1] for x in state))
            )
            for i in range(len(images))
        ]
        if len(each) == 1:
            return each[0]
        logits, states = zip(*each, strict=True)
        return torch.cat(logits), FollowedState(*(torch.cat(parts) for parts in zip(*states, strict=True)))

    def _next(self, frame: SeenFrame, state: FollowedState) -> tuple[Tensor, FollowedState]:
        """`step` of one stream, B = 1, whose frame the network has seen."""
        age = int(state.age)
        source, passed, motion = self._source(frame, state, age)
        fused, past = self.fused(frame, source.probabilities, source.keys, motion)
        flow = motion.pixels
        less = fallen(frame.now, state.good.probabilities) if age else 0.0
        held = None
        if less > 0 and (not motion.found or passed < age):
            along = state.motion * age
            carried = read_at(state.good.probabilities, places(along)[0])
            share = less * same_picture(frame.now, carried) / 2
            if share > 0:
                held = frame.alone()
                source, flow = state.good, _pixels(along, frame.pixels)
                fused, past = torch.lerp(frame.now, carried, share), torch.full_like(past, share)
        change = torch.cat([fused - frame.now, KEPT * past], 1)
        logits, labels = steadied(frame.logits, change, source.labels, flow)
        said = held or SaidFrame(frame.pixels, labels, fused, frame.key)
        if motion.found and ((held is None and less < 1) or age >= LONGEST):
            return logits, FollowedState(*said, *said, motion.flow / passed, torch.ones_like(state.age))
        older = state.age + 1 if 0 < age < LONGEST else torch.zeros_like(state.age)
        return logits, FollowedState(*said, *state.good, state.motion, older)

    def _source(self, frame: SeenFrame, state: FollowedState, age: int) -> tuple[SaidFrame, int, Motion]:
        """The frame that one is followed to, how many frames ago it was, and the motion: the last good one first."""
        if age > 1:
            motion = Motion.between(frame.pixels, state.good.images)
            if motion.found:
                return state.good, age, motion
        return state.before, 1, Motion.between(frame.pixels, state.images)

    def seen(self, images: Tensor) -> SeenFrame:
        """What the network alone says of images (B, 3, H, W)."""
        logits = self.backbone.segment(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        pixels, now = bytes_of(images), patch_probabilities(logits)
        return SeenFrame(logits, pixels, now, self.key(now, pixels))

    def key(self, now: Tensor, pixels: Tensor) -> Tensor:
        """Keys (B, Ck, h, w) of the cells, of p (B, K, h', w') and pixels (B, 3, H, W) uint8."""
        said = standardised(torch.log(_in_cells(now) + UNLIKELY))
        if self.projection is not None:
            said = F.conv2d(said, self.projection.to(said.dtype))
        return joined(said, by_cell(_whole(patch_means(pixels))))

    def fused(self, frame: SeenFrame, before: Tensor, keys: Tensor, motion: Motion) -> tuple[Tensor, Tensor]:
        """p', (B, K, h', w'), and 1 - a, (B, 1, h', w').

        Args:
            frame: what the network says.
            before: p' of the frame before, (B, K, h', w').
            keys: of the frame before, (B, Ck, h, w).
            motion: from the frame to the one before.
        """
        now = frame.now
        carried = read_at(before, motion.grid)
        answer, match = self._cells(frame, before, keys, motion.flow)
        mixture, past = self.gate(now, carried, answer, torch.cat([motion.cues, match], 1).to(now.dtype))
        trust = motion.trust.to(now.dtype)
        return torch.lerp(now, mixture, trust), past * trust

    def _cells(self, frame: SeenFrame, before: Tensor, keys: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """m, (B, K, h', w'), and how far the keys are from those that they were matched with, (B, 1, h', w')."""
        now, key = frame.now, frame.key
        classes = now.shape[1]
        there, _ = places(_in_cells(flow) / CELL)
        past = read_at(torch.cat([_in_cells(before), keys], 1), there)
        read = local_attention(
            key,
            past[:, None, classes:],
            past[:, None],
            window=self.window,
            scale=1 / TEMPERATURE,
            backend=self.attention,
        )
        said, matched = read.split([classes, key.shape[1]], 1)
        change = (said / said.sum(1, keepdim=True) + LEAST) / (_in_cells(now) + LEAST)
        apart = (key - matched).square().sum(1, keepdim=True) / _beside(key)
        covered = (key.shape[-2] * CELL, key.shape[-1] * CELL)
        change = upsampled(torch.cat([change, apart], 1), covered)[..., : now.shape[-2], : now.shape[-1]]
        answer = now * change[:, :-1]
        return answer / answer.sum(1, keepdim=True), torch.log(change[:, -1:] + 0.05)


class Motion(NamedTuple):
    """How the patches of a frame are found in the frame before.

    Attributes:
        pixels: (B, 2, H, W), the optical flow to the right and down.
        flow: (B, 2, h', w'), the same in patches.
        grid: where it leads, for `read_at`.
        cues: (B, 10, h', w'), for the gate.
        trust: (B, 1, 1, 1), whether the frame is found at all, 0 to 1: at a cut 0, and then the labels are the
            network's own.
    """

    pixels: Tensor
    flow: Tensor
    grid: Tensor
    cues: Tensor
    trust: Tensor

    @property
    def found(self) -> bool:
        """Whether the frame is found, of one stream."""
        return bool(self.trust >= FOUND)

    @classmethod
    def between(cls, pixels: Tensor, before: Tensor) -> Motion:
        """From frames (B, 3, H, W) uint8 to earlier ones, by optical flow."""
        there, back = flows(pixels, before, refinements=REFINEMENTS)
        flow, returns = patch_means(there) / PATCH, patch_means(back) / PATCH
        grid, inside = places(flow)
        colours = patch_means(pixels)
        read = read_at(torch.cat([returns, patch_means(before)], 1), grid)
        within = inside.to(flow.dtype)
        error, squares, apart, trips, change, texture = followed(flow, within, colours, read).split(1, 1)
        texture = texture + 1
        near = ramp(trips, *SURROUNDINGS)
        share = near.mean((-2, -1), keepdim=True)
        usual = apart.flatten(1).median(1).values[:, None, None, None]
        misfit = change / texture
        whole = change.mean((-2, -1), keepdim=True) / texture.mean((-2, -1), keepdim=True)
        cues = [
            torch.log(error + 0.05),
            torch.log(squares + 0.1) / 2,
            torch.log(apart + 1) - 1.5,
            torch.log((apart + 1) / (usual + 1)),
            torch.log(texture) / 2 - 1.5,
            torch.log(misfit + 0.02) + 2,
            2 * near - 1,
            *((2 * x - 1).expand_as(near) for x in (share, whole)),
            within,
        ]
        return cls(there, flow, grid, torch.cat(cues, 1), ramp(share, *FRAME) * (1 - ramp(whole, *MISFIT)))


def _pixels(motion: Tensor, images: Tensor) -> Tensor:
    """The motion of patches (B, 2, h', w') as that of the pixels (B, 2, H, W) of images (B, 3, H, W)."""
    height, width = images.shape[-2:]
    whole = (motion.shape[-2] * PATCH, motion.shape[-1] * PATCH)
    return upsampled(motion * PATCH, whole)[..., :height, :width].contiguous()


def _beside(key: Tensor) -> Tensor:
    """Mean squared distance of keys (B, Ck, h, w) side by side, (B, 1, 1, 1)."""
    across = [key.diff(dim=d).square().sum(1).flatten(1) for d in (-2, -1)]
    return torch.cat(across, 1).mean(1).clamp_min(1e-6)[:, None, None, None]


def _in_cells(maps: Tensor) -> Tensor:
    """Maps (B, C, h', w') of patches to means over cells (B, C, h, w)."""
    maps = _whole(maps)
    rows = maps[..., ::CELL, :] + maps[..., 1::CELL, :]
    return (rows[..., ::CELL] + rows[..., 1::CELL]) / CELL**2


def _whole(maps: Tensor) -> Tensor:
    """Maps (…, h', w') of patches with the last row and column repeated where a cell is not whole."""
    for dim in (-2, -1):
        if maps.shape[dim] % CELL:
            maps = torch.cat([maps, maps.narrow(dim, -1, 1)], dim)
    return maps
