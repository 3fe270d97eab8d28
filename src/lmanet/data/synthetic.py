"""The synthetic street drive: endless labelled video of streets, made by rule from a seed.

The frames are drawn with NumPy and OpenCV; the labels are exact and dense, and always those of the clean
scene, also where fog, noise or a drop hides it: what the present frame lacks, the frames before it may hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lmanet.classes import Classes
from lmanet.data.camvid import CAMVID_CLASSES
from lmanet.data.street.degrade import Degradation, Spoiler
from lmanet.data.street.render import Scene, render
from lmanet.data.street.world import World
from lmanet.errors import InputError

__all__ = ["Degradation", "Split", "StreetConfig", "StreetSequence", "SyntheticDrive"]

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SEEDS_PER_SPLIT = 1_000_000
DEFAULT_LENGTHS: dict[Split, tuple[int, int]] = {"train": (60, 24), "val": (10, 48), "test": (10, 48)}
"""Sequences and frames per sequence of each split."""
SMALLEST_SIDE_PX = 16


@dataclass(frozen=True)
class StreetConfig:
    """One sequence of the synthetic drive.

    Attributes:
        frames: how many frames it has, at least 1.
        size: (height, width) in pixels, each at least 16, odd ones too.
        fps: frames per second, above 0.
        seed: what makes this street and drive, 0 or more.
        degradation: what spoils the frames, and how strongly.
    """

    frames: int = 60
    size: tuple[int, int] = (360, 480)
    fps: float = 15.0
    seed: int = 0
    degradation: Degradation = field(default_factory=Degradation)

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InputError(f"frames is {self.frames}: a sequence has at least 1 frame")
        if len(self.size) != 2 or min(self.size) < SMALLEST_SIDE_PX:
            raise InputError(
                f"size is {self.size}: give (height, width), each at least {SMALLEST_SIDE_PX} pixels"
            )
        if not 0 < self.fps < float("inf"):
            raise InputError(f"fps is {self.fps}: give a frame rate above 0")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}: give 0 or more")


class StreetSequence:
    """A drive along one street; keeps the `Sequence` protocol.

    A frame depends on the configuration and its index alone, in whatever order frames are asked for. The
    street is made when the first frame is.

    Args:
        config: what to draw.
        name: the sequence's name; by default `street` and the seed.
    """

    def __init__(self, config: StreetConfig, *, name: str | None = None) -> None:
        self.config = config
        self._name = name or f"street{config.seed:07d}"
        self._world: World | None = None
        self._spoiler: Spoiler | None = None
        self._scene: tuple[int, Scene] | None = None

    @property
    def name(self) -> str:
        """The sequence's name."""
        return self._name

    @property
    def frame_names(self) -> tuple[str, ...]:
        """`000000`, `000001`, and so on."""
        return tuple(f"{i:06d}" for i in range(self.config.frames))

    @property
    def spacing_s(self) -> float:
        """Seconds between neighbouring frames."""
        return 1 / self.config.fps

    @property
    def labelled(self) -> tuple[bool, ...]:
        """Every frame is."""
        return (True,) * self.config.frames

    def image(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` as (H, W, 3) uint8 RGB, spoiled as configured.

        Raises:
            InputError: if there is no such frame.
        """
        scene = self._render(index)
        if self._spoiler is None:
            self._spoiler = Spoiler(self.config.degradation, self.config.seed, *self.config.size)
        image = self._spoiler.apply(scene.image, scene.depth, index, index * self.spacing_s)
        return image.copy() if image is scene.image else image

    def label(self, index: int) -> NDArray[np.uint8]:
        """Class ids of frame `index` as (H, W) uint8, those of the clean scene; no pixel is void.

        Raises:
            InputError: if there is no such frame.
        """
        return self._render(index).label.copy()

    def _render(self, index: int) -> Scene:
        if not 0 <= index < self.config.frames:
            raise InputError(
                f"frame {index} of a sequence of {self.config.frames}: give 0 to {self.config.frames - 1}"
            )
        if self._scene is None or self._scene[0] != index:
            if self._world is None:
                self._world = World(self.config.seed)
            self._scene = index, render(self._world, index * self.spacing_s, *self.config.size)
        return self._scene[1]


class SyntheticDrive:
    """The synthetic street drive as a data set; keeps the `VideoData` protocol.

    The splits share no seed, so no street either.

    Args:
        split: train (60 sequences of 24 frames), val or test (10 of 48).
        sequences: number of sequences, if not the split's own.
        frames: frames per sequence, if not the split's own.
        size: (height, width) in pixels.
        fps: frames per second.
        degradation: what spoils the frames; by default the data set's level.

    Raises:
        InputError: for an unknown split or values that `StreetConfig` refuses.
    """

    def __init__(
        self,
        *,
        split: Split = "train",
        sequences: int | None = None,
        frames: int | None = None,
        size: tuple[int, int] = (360, 480),
        fps: float = 15.0,
        degradation: Degradation | None = None,
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"split {split!r}: give one of {', '.join(SPLITS)}")
        count, length = DEFAULT_LENGTHS[split]
        count = count if sequences is None else sequences
        if not 1 <= count <= SEEDS_PER_SPLIT:
            raise InputError(f"{count} sequences: give 1 to {SEEDS_PER_SPLIT}")
        first = SPLITS.index(split) * SEEDS_PER_SPLIT
        self._name = f"synthetic/{split}"
        self._sequences = tuple(
            StreetSequence(
                StreetConfig(
                    frames=length if frames is None else frames,
                    size=size,
                    fps=fps,
                    seed=first + i,
                    degradation=degradation or Degradation(),
                )
            )
            for i in range(count)
        )

    @property
    def name(self) -> str:
        """Such as `synthetic/val`."""
        return self._name

    @property
    def classes(self) -> Classes:
        """The 11 classes of CamVid."""
        return CAMVID_CLASSES

    @property
    def sequences(self) -> tuple[StreetSequence, ...]:
        """The sequences, in the order of their seeds."""
        return self._sequences
