"""What spoils a frame: fog, motion blur, things on the lens, exposure, sensor noise.

Single frames are bad among good ones, each by its own luck: the last few frames are meant to
hold what the present one lacks. Everything follows from the seed and the frame's index.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from lmanet.data.street.canvas import depth_metres
from lmanet.data.street.occlusion import draw_occlusion
from lmanet.data.street.textures import Image, image_of
from lmanet.errors import InputError

NOISE_BANK = 48
NOISY_SHARE = 0.25
BLURRED_SHARE = 0.2
MISEXPOSED_SHARE = 0.25
"""Shares of the frames that are spoiled badly, each drawn by itself."""


@dataclass(frozen=True)
class Degradation:
    """How strongly frames are spoiled, each from 0 (not at all) to 1. The defaults make the data set's level.

    Attributes:
        noise: sensor noise, partly in blotches; a little of it always, a lot in a quarter of the frames.
        motion_blur: a little of it always, a lot in a fifth of the frames.
        exposure_flicker: gain and gamma that change from frame to frame; a quarter of the frames are far too
            dark or, more rarely, far too bright.
        fog: loss of contrast with distance, in drifting banks.
        occlusion: drops, wiper blades and glare, a fifth to two fifths of a second each.
    """

    noise: float = 0.5
    motion_blur: float = 0.5
    exposure_flicker: float = 0.5
    fog: float = 0.5
    occlusion: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise InputError(f"degradation {field.name} is {value}: give a strength from 0 to 1")

    @classmethod
    def none(cls) -> Degradation:
        """Frames as they were drawn."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0)


class Spoiler:
    """Applies a `Degradation` to the frames of one sequence.

    Args:
        degradation: the strengths.
        seed: the sequence's seed.
        height: image rows.
        width: image columns.
    """

    def __init__(self, degradation: Degradation, seed: int, height: int, width: int) -> None:
        self.degradation = degradation
        self.seed = seed
        self.shape = (height, width)
        self._depth_m = depth_metres()
        rng = self._rng(0, 0)
        self._fog_level = rng.uniform(0.4, 1.0)
        self._noise_level = rng.uniform(0.6, 1.0)
        self._fog_grey = rng.uniform(165, 225)
        self._bank = self._noise_bank(rng) if degradation.noise else None

    def _rng(self, kind: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, 100 + kind, number + 2**24])

    def _noise_bank(self, rng: np.random.Generator) -> NDArray[np.float32]:
        height, width = self.shape[0] + NOISE_BANK, self.shape[1] + NOISE_BANK
        fine = rng.standard_normal((height, width, 3), np.float32)
        blotches = cv2.resize(
            rng.standard_normal((height // 3 + 1, width // 3 + 1, 3), np.float32), (width, height)
        )
        bank = 0.8 * fine + 0.9 * blotches
        return bank / bank.std()

    def _swell(self, kind: int, time_s: float, rate_hz: float) -> float:
        """Smooth noise in 0..1 over time, about `rate_hz` turns a second."""
        at = time_s * rate_hz
        number = int(np.floor(at))
        a, b = (self._rng(kind, number + step).random() for step in (0, 1))
        share = at - number
        share = share * share * (3 - 2 * share)
        return a + (b - a) * share

    def apply(self, image: Image, depth: Image, index: int, time_s: float) -> Image:
        """Spoil one frame.

        Args:
            image: (H, W, 3) uint8 RGB, left as it is.
            depth: (H, W) uint8 depth codes.
            index: the frame's index, which seeds what changes from frame to frame.
            time_s: the frame's time, for what swells and moves.

        Returns:
            (H, W, 3) uint8; `image` itself where every strength is 0.
        """
        strength = self.degradation
        if strength.fog:
            image = self._fog(image, depth, time_s)
        if strength.motion_blur:
            image = self._blur(image, index)
        if strength.occlusion:
            image = draw_occlusion(image, self._rng, time_s, strength.occlusion)
        if strength.exposure_flicker:
            image = self._flicker(image, index, time_s)
        if strength.noise:
            image = self._noise(image, index, time_s)
        return image

    def _fog(self, image: Image, depth: Image, time_s: float) -> Image:
        bank = self._swell(1, time_s, 0.5)
        density = self.degradation.fog * self._fog_level * (0.012 + 0.075 * bank**2)
        clear = np.exp(-density * np.minimum(self._depth_m, 150)).astype(np.float32)
        weight = cv2.LUT(depth, clear)
        grey = np.full_like(image, round(self._fog_grey))
        return image_of(cv2.blendLinear(image, grey, weight, 1 - weight))

    def _blur(self, image: Image, index: int) -> Image:
        rng = self._rng(2, index)
        burst = rng.uniform(0.4, 1.0) if rng.random() < BLURRED_SHARE else 0.0
        length = self.degradation.motion_blur * (rng.uniform(0, 0.006) + 0.07 * burst) * self.shape[1]
        if length < 1:
            return image
        angle = rng.normal(0, 0.35) + (np.pi / 2 if rng.random() < 0.2 else 0)
        size = int(np.ceil(length)) | 1
        kernel = np.zeros((size, size), np.float32)
        reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
        a, b = ((size / 2 - 0.5 + sign * reach) * 16 for sign in (-1, 1))
        cv2.line(kernel, a.astype(int).tolist(), b.astype(int).tolist(), 1.0, 1, cv2.LINE_AA, 4)
        return image_of(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE))

    def _flicker(self, image: Image, index: int, time_s: float) -> Image:
        rng, strength = self._rng(4, index), self.degradation.exposure_flicker
        log_gain = strength * (0.35 * (self._swell(5, time_s, 0.7) - 0.5) + rng.normal(0, 0.12))
        if rng.random() < MISEXPOSED_SHARE:
            log_gain += strength * (rng.uniform(-4.0, -2.0) if rng.random() < 0.7 else rng.uniform(1.0, 2.0))
        gamma = np.exp(strength * rng.normal(0, 0.12))
        levels = (np.arange(256) / 255) ** gamma * np.exp(log_gain) * 255
        return image_of(cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8)))

    def _noise(self, image: Image, index: int, time_s: float) -> Image:
        assert self._bank is not None
        rng = self._rng(6, index)
        level = self._noise_level * (0.15 + 0.2 * self._swell(7, time_s, 1.2))
        if rng.random() < NOISY_SHARE:
            level += rng.uniform(0.6, 1.5)
        values = np.arange(256, dtype=np.float32)
        sigma = self.degradation.noise * level * (38 + 22 * np.sqrt(values / 255))
        y, x = rng.integers(0, NOISE_BANK, 2)
        height, width = self.shape
        noise = self._bank[y : y + height, x : x + width]
        if rng.random() < 0.5:
            noise = noise[::-1]
        if rng.random() < 0.5:
            noise = noise[:, ::-1]
        spread = cv2.LUT(image, sigma)
        np.multiply(spread, noise, out=spread)
        return image_of(cv2.add(image, spread, dtype=cv2.CV_8U))
