"""Steps 1 and 2: a current frame and its memories, as features or as images."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lmanet.backbones.base import Features
from lmanet.data.protocols import VideoData, labelled_frames
from lmanet.errors import InputError
from lmanet.methods.base import TrainableVideoModel
from lmanet.training.augment import Augmentation, Draw, draw
from lmanet.training.features import FeatureCache, Views, observe

Memories = Literal["real", "pseudo", "mixed", "current"]
"""What a training sample's memory holds: the frames before it, warped noisy copies of the frame itself, either by
the toss of a coin, or the frame itself (the control, which sees no past)."""


@dataclass(frozen=True)
class PseudoMemory:
    """How pseudo-memories differ from the frame that they are made of: a hand-held guess at 1/15 s of driving.

    Attributes:
        zoom: lowest and highest.
        rotation_rad: largest rotation in either direction.
        shift: largest shift across and down, as shares of width and height.
        gain: largest relative change of brightness.
        noise: largest standard deviation of added noise, in grey levels.
        blur_px: largest standard deviation of a Gaussian blur, in pixels; half of the memories have none.
    """

    zoom: tuple[float, float] = (0.93, 1.03)
    rotation_rad: float = 0.02
    shift: tuple[float, float] = (0.05, 0.03)
    gain: float = 0.07
    noise: float = 8.0
    blur_px: float = 1.0


def make_views(
    augmentation: Augmentation,
    size: tuple[int, int],
    *,
    draws: int,
    pseudo: int,
    ranges: PseudoMemory,
    seed: int = 0,
) -> Views:
    """The fixed views for a training, in groups: each of a draw and of that draw's pseudo-memories.

    The first group is of the plain frame, the second of its mirror image if wanted, the others of random draws.

    Args:
        augmentation: what the draws are taken from, without a crop: features are of whole frames.
        size: (H, W) of the frames.
        draws: how many groups.
        pseudo: how many pseudo-memories each group has besides its draw.
        ranges: how far pseudo-memories differ from their frame.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 7])
    plain = Draw(size)
    mirrored = Draw(size, (-1, 0, size[1] - 1, 0, 1, 0))
    fixed = (plain, mirrored)[: 2 if augmentation.flip else 1]
    first = (fixed + tuple(draw(augmentation, size, rng) for _ in range(draws - len(fixed))))[:draws]
    return Views(tuple((one, *(pseudo_memory(one, ranges, rng) for _ in range(pseudo))) for one in first))


def pseudo_memory(current: Draw, ranges: PseudoMemory, rng: np.random.Generator) -> Draw:
    """A draw that looks like `current` seen a moment before, from a little elsewhere.

    Light and geometry follow the current draw; noise and blur are the memory's own, and it is neither shrunk nor
    hidden, so that it holds what a bad current frame lacks.
    """
    height, width = current.size
    zoom, angle = rng.uniform(*ranges.zoom), rng.uniform(-ranges.rotation_rad, ranges.rotation_rad)
    shift = rng.uniform(-1, 1, 2) * ranges.shift * np.array([width, height])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    small = np.eye(3)
    small[:2, :2], small[:2, 2] = turn, centre - turn @ centre + shift
    outer = np.vstack([np.array(current.matrix).reshape(2, 3), [0, 0, 1]])
    gain = 1 + rng.uniform(-ranges.gain, ranges.gain)
    return replace(
        current,
        matrix=tuple(float(x) for x in (outer @ small)[:2].ravel()),
        gain=tuple(float(g * gain) for g in current.gain),
        noise=float(rng.uniform(0, ranges.noise)),
        blur_px=float(rng.uniform(0, ranges.blur_px)) if rng.random() < 0.5 else 0.0,
        shrink=1.0,
        patch=(0, 0, 0, 0),
        seed=int(rng.integers(2**31)),
    )


class ClipSamples:
    """Samples of steps 1 and 2: every labelled frame once an epoch, its view and memories chosen anew.

    With a cache a sample's inputs are features: the fused map (C, h, w), the memories' fused maps (S, C, h, w),
    and the rest of the current frame's features. Without, they are images: (3, H, W) and (S, 3, H, W) uint8.
    """

    def __init__(
        self,
        data: VideoData,
        views: Views,
        *,
        memory_size: int,
        memories: Memories,
        cache: FeatureCache | None,
        seed: int = 0,
    ) -> None:
        if memories in ("pseudo", "mixed") and min(map(len, views.groups)) < 2:
            raise InputError(f"memories={memories!r} need pseudo-memories: make the views with pseudo >= 1")
        self.data, self.views, self.cache = data, views, cache
        self.memory_size, self.memories, self.seed = memory_size, memories, seed
        self.frames = labelled_frames(data)
        self._draws = views.all()

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, epoch: int, index: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """The inputs as the class says, and the label (H, W) uint8."""
        n, frame = self.frames[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        view = int(rng.integers(len(self._draws)))
        past = self._memories(n, frame, view, rng)
        label = self.data.sequences[n].label(frame)
        assert label is not None
        ids = torch.from_numpy(np.array(self._draws[view].label(label)))
        if self.cache is not None:
            memory = torch.stack([self.cache.fused(n, f, v) for f, v in past])
            return (self.cache.fused(n, frame, view), memory, *self.cache.rest(n, frame, view)), ids
        memory = torch.stack([self._image(n, f, v) for f, v in past])
        return (self._image(n, frame, view), memory), ids

    def _memories(self, n: int, frame: int, view: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """(frame, view) of each memory, oldest first."""
        size, kind = self.memory_size, self.memories
        if kind == "mixed":
            kind = "real" if rng.random() < 0.5 else "pseudo"
        if kind == "current":
            # Attention over S equal copies equals attention over one: the control costs a single copy.
            return [(frame, view)]
        if kind == "pseudo":
            others = self.views.others(view)
            return [(frame, int(v)) for v in rng.choice(others, size, replace=size > len(others))]
        # As in a stream: a memory that would lie before the first frame holds the first frame.
        return [(max(0, frame - age), view) for age in range(size, 0, -1)]

    def _image(self, n: int, frame: int, view: int) -> Tensor:
        pixels = self._draws[view].image(self.data.sequences[n].image(frame))
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


class FromFeatures(nn.Module):
    """The part of a video model that steps 1 and 2 train, from cached observations on.

    Args:
        model: the model.
        size: (H, W) of the logits.
        control: the memory holds the current frame, whatever is given.
    """

    def __init__(self, model: TrainableVideoModel, size: tuple[int, int], *, control: bool = False) -> None:
        super().__init__()
        self.model, self.size, self.control = model, size, control

    def forward(self, fused: Tensor, memory: Tensor, *rest: Tensor) -> Tensor:
        """Fused map (B, C, h, w), memories (B, S, C, h, w) and the rest to logits (B, K, H, W)."""
        if not torch.is_autocast_enabled(fused.device.type):
            # Observations are bfloat16; without autocast the module computes in its weights' precision.
            dtype = next(self.model.parameters()).dtype
            fused, memory = fused.to(dtype), memory.to(dtype)
            rest = tuple(x.to(dtype) for x in rest)
        frame = Features(fused.contiguous(memory_format=torch.channels_last), rest)
        return self.model.from_observed(frame, None if self.control else memory, self.size)


class FromImages(nn.Module):
    """A video model from images on, which observes frames each time: slower than `FromFeatures`, for small disks.

    What observes is a copy of the model as it is now, as with a cache.
    """

    def __init__(self, model: TrainableVideoModel, size: tuple[int, int], *, control: bool = False) -> None:
        super().__init__()
        self.inner = FromFeatures(model, size, control=control)
        # In a list, so that it is no part of this module: neither trained nor saved.
        self._observer = [copy.deepcopy(model).eval().requires_grad_(False)]

    @property
    def model(self) -> TrainableVideoModel:
        """The model that is trained."""
        return self.inner.model

    def forward(self, image: Tensor, memory: Tensor) -> Tensor:
        """Image (B, 3, H, W) and memories (B, S, 3, H, W), uint8, to logits (B, K, H, W)."""
        observer = self._observer[0].to(image.device)
        batch, size = memory.shape[:2]
        current = observe(observer, image)
        past = observe(observer, memory.flatten(0, 1))
        return self.inner(current.fused, past.fused.unflatten(0, (batch, size)), *current.rest)
