"""Single labelled frames set in motion: clips of which every pixel of every frame has a label.

Labelled video is rare; labelled frames are not. A frame is taken apart by its label: what is small and of one piece (a
car, a sign, a person) is a thing, the rest the background, mended where the things were. The camera pans, zooms and
trembles; each thing moves by itself besides, before and behind the others. Noise and exposure are new in each frame. So
a clip has what a memory must cope with: motion that differs from place to place, and what appears and disappears.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lmanet.classes import VOID, Classes
from lmanet.data.protocols import Sequence, VideoData
from lmanet.errors import InputError

SMALLEST_THING_PX = 40
"""Pieces of fewer pixels move with the background."""

LARGEST_THING = 0.1
"""Pieces of more than this share of the frame are background."""

Matrix = NDArray[np.float64]
"""3×3, from pixel coordinates (x, y, 1) of the frame to those of a clip's frame."""


@dataclass(frozen=True)
class Animation:
    """How a frame is set in motion: the spreads that each clip's motion is drawn from, in pixels of its frames.

    Attributes:
        frames: of a clip.
        speed: factor on all motion from frame to frame; drawn for each clip, lowest and highest.
        zoom: of the first frame, so that the frame's edge stays outside.
        approach: largest growth of the picture from frame to frame.
        pan_px: largest motion of the picture across, a third of it down.
        tremor_px: standard deviation of the picture's place, from frame to frame.
        thing_px: standard deviation of a thing's own motion across, a quarter of it down.
        thing_scale: standard deviation of a thing's own growth.
        exposure: standard deviation of the relative change of brightness.
        noise: standard deviation of the noise, in grey levels; drawn for each clip up to this.
    """

    frames: int = 12
    speed: tuple[float, float] = (0.5, 2.0)
    zoom: float = 1.12
    approach: float = 0.012
    pan_px: float = 2.5
    tremor_px: float = 0.4
    thing_px: float = 2.0
    thing_scale: float = 0.006
    exposure: float = 0.015
    noise: float = 4.0

    def __post_init__(self) -> None:
        if self.frames < 1 or self.zoom < 1 or not 0 <= self.speed[0] <= self.speed[1]:
            raise InputError(
                f"frames {self.frames}, zoom {self.zoom}, speed {self.speed}: expected at least 1, at least 1, and "
                f"0 <= lowest <= highest"
            )


@dataclass(frozen=True)
class _Thing:
    """A piece of one class.

    Attributes:
        label: its class.
        mask: (H, W) float32, 1 where it is, soft at its edge.
        middle: x and y of where it stands, in pixels.
        velocity: (2,) pixels a frame, right and down.
        growth: relative, a frame.
    """

    label: int
    mask: NDArray[np.float32]
    middle: tuple[float, float]
    velocity: NDArray[np.float64]
    growth: float


@dataclass(frozen=True)
class AnimatedSequence:
    """A labelled frame set in motion; keeps the `Sequence` protocol.

    A frame of it depends on the source's frame, the animation, the seed and its index alone.

    Attributes:
        source: the sequence that the frame is of.
        frame: its index there.
        animation: how it moves.
        seed: of this clip.
    """

    source: Sequence
    frame: int
    animation: Animation
    seed: int

    @property
    def name(self) -> str:
        """The source's, and the frame's."""
        return f"{self.source.name}-{self.source.frame_names[self.frame]}-{self.seed}"

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Numbers."""
        return tuple(f"{n:03d}" for n in range(self.animation.frames))

    @property
    def spacing_s(self) -> float:
        """A fifteenth of a second: what the motion is meant to look like."""
        return 1 / 15

    @property
    def labelled(self) -> tuple[bool, ...]:
        """All are."""
        return (True,) * self.animation.frames

    def image(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` as (H, W, 3) uint8 RGB."""
        camera, picture, rng = self._cameras[index], self._background[0], self._noise_of(index)
        size = picture.shape[1::-1]
        image = cv2.warpAffine(
            picture, camera[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        ).astype(np.float32)
        frame = self.source.image(self.frame)
        for thing in self._things:
            place = camera @ _moved(thing, index)
            mask = cv2.warpAffine(thing.mask, place[:2], size, flags=cv2.INTER_LINEAR)[..., None]
            colours = cv2.warpAffine(
                frame, place[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
            image += mask * (colours - image)
        image *= 1 + rng.normal(0, self.animation.exposure)
        image += rng.normal(0, self._noise, image.shape)
        return np.rint(np.clip(image, 0, 255)).astype(np.uint8)

    def label(self, index: int) -> NDArray[np.uint8]:
        """Class ids of frame `index` as (H, W) uint8, void 255."""
        camera, ids = self._cameras[index], self._background[1]
        size = ids.shape[1::-1]
        label = cv2.warpAffine(
            ids, camera[:2], size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=VOID
        )
        for thing in self._things:
            place = camera @ _moved(thing, index)
            label[cv2.warpAffine(thing.mask, place[:2], size, flags=cv2.INTER_LINEAR) > 0.5] = thing.label
        return label  # pyright: ignore[reportReturnType]

    def _noise_of(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.frame, 1, index])

    @cached_property
    def _drawn(self) -> dict[str, Any]:
        """What is drawn for the clip: cameras, things, background and noise."""
        label = self.source.label(self.frame)
        assert label is not None
        rng = np.random.default_rng([self.seed, self.frame, 0])
        speed = rng.uniform(*self.animation.speed)
        things, hidden = _things(label, self.animation, speed, rng)
        return {
            "cameras": _cameras(label.shape, self.animation, speed, rng),
            "things": things,
            "background": _background(self.source.image(self.frame), label, hidden),
            "noise": rng.uniform(0, self.animation.noise),
        }

    @property
    def _cameras(self) -> list[Matrix]:
        return self._drawn["cameras"]

    @property
    def _things(self) -> list[_Thing]:
        return self._drawn["things"]

    @property
    def _background(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return self._drawn["background"]

    @property
    def _noise(self) -> float:
        return self._drawn["noise"]


@dataclass(frozen=True)
class AnimatedData:
    """Labelled frames set in motion, a clip of each; keeps the `VideoData` protocol. See `animated`."""

    name: str
    classes: Classes
    sequences: tuple[AnimatedSequence, ...]


def animated(
    data: VideoData, animation: Animation | None = None, *, every: int = 1, seed: int = 0
) -> AnimatedData:
    """Clips of the labelled frames of a data set, each frame set in motion.

    Args:
        data: labelled frames.
        animation: how they move; the default is driving at 15 frames a second, 480 pixels wide.
        every: take each frame of this count, 1 for all.
        seed: of all motion and noise.
    """
    frames = [
        (sequence, index)
        for sequence in data.sequences
        for index, labelled in enumerate(sequence.labelled)
        if labelled
    ][::every]
    clips = (
        AnimatedSequence(source, index, animation or Animation(), seed + n)
        for n, (source, index) in enumerate(frames)
    )
    return AnimatedData(f"{data.name}, set in motion", data.classes, tuple(clips))


def _things(
    label: NDArray[np.uint8], animation: Animation, speed: float, rng: np.random.Generator
) -> tuple[list[_Thing], NDArray[np.uint8]]:
    """The things of a label, the furthest first, and where they are (H, W) uint8, with a margin."""
    things, hidden = [], np.zeros(label.shape, np.uint8)
    for value in np.unique(label[label != VOID]).tolist():
        count, pieces, boxes, _ = cv2.connectedComponentsWithStats(
            (label == value).astype(np.uint8), connectivity=8
        )
        for piece in range(1, count):
            left, top, width, height, area = boxes[piece].tolist()
            if not SMALLEST_THING_PX <= area <= LARGEST_THING * label.size:
                continue
            mask = (pieces == piece).astype(np.float32)
            hidden |= cv2.dilate(mask, np.ones((5, 5))).astype(np.uint8)
            velocity = speed * rng.normal(0, animation.thing_px, 2) * (1, 0.25)
            growth = speed * rng.normal(0, animation.thing_scale)
            soft = cv2.GaussianBlur(mask, (0, 0), 0.7)
            things.append(
                (top + height, _Thing(value, soft, (left + width / 2, top + height), velocity, growth))  # pyright: ignore[reportArgumentType]
            )
    return [thing for _, thing in sorted(things, key=lambda pair: pair[0])], hidden


def _background(
    image: NDArray[np.uint8], label: NDArray[np.uint8], hidden: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and label without what is hidden: mended, and labelled as what is nearest."""
    if not hidden.any():
        return image, label
    if hidden.all():
        return image, np.full_like(label, VOID)
    mended = cv2.inpaint(image, hidden, 3, cv2.INPAINT_TELEA)
    _, numbers = cv2.distanceTransformWithLabels(hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest, seen = np.asarray(numbers, np.int32), hidden == 0
    of = np.zeros(nearest.max() + 1, np.uint8)
    of[nearest[seen]] = label[seen]
    return mended, np.where(seen, label, of[nearest])  # pyright: ignore[reportReturnType]


def _cameras(
    size: tuple[int, ...], animation: Animation, speed: float, rng: np.random.Generator
) -> list[Matrix]:
    height, width = size
    approach = speed * rng.uniform(0, animation.approach)
    pan = speed * rng.uniform(-1, 1, 2) * animation.pan_px * (1, 1 / 3)
    middle, cameras, place = np.array([(width - 1) / 2, 0.95 * (height - 1) / 2]), [], np.zeros(2)
    for index in range(animation.frames):
        zoom = animation.zoom * (1 + approach) ** index
        camera = np.diag([zoom, zoom, 1.0])
        camera[:2, 2] = middle * (1 - zoom) + place
        cameras.append(camera)
        place = place + pan + speed * rng.normal(0, animation.tremor_px, 2)
    return cameras


def _moved(thing: _Thing, index: int) -> Matrix:
    """From where a thing is in the source's frame to where it is then, before the camera."""
    scale = (1 + thing.growth) ** index
    moved = np.diag([scale, scale, 1.0])
    moved[:2, 2] = np.array(thing.middle) * (1 - scale) + index * thing.velocity
    return moved
