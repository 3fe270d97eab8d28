"""Augmentation: one random draw, applied alike to every frame of a clip and to its label.

A draw is a plain value: the same draw gives the same pixels, whenever and in whichever process it is applied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lmanet.classes import VOID
from lmanet.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """The ranges that draws are taken from.

    Attributes:
        crop: (H, W) of the output; None keeps the frame's own size.
        scale: lowest and highest zoom.
        flip: mirror left and right in half of the draws.
        shift_px: largest translation in either direction, in whole pixels; for uncropped frames.
        gain: largest relative change of brightness, and half as much per colour channel.
        gamma: largest relative change of the exponent.
        noise: largest standard deviation of added Gaussian noise, in grey levels of 255.
        blur_px: largest standard deviation of a Gaussian blur, in pixels.
        shrink: largest factor by which a frame is made smaller and large again, 1 for not.
        occlusion: largest side of a grey patch, as a share of the frame's; half of the draws have one.
    """

    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    shift_px: int = 0
    gain: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur_px: float = 0.0
    shrink: float = 1.0
    occlusion: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"scale {self.scale}: expected 0 < lowest <= highest")
        if self.shrink < 1 or not 0 <= self.occlusion < 1:
            raise InputError(
                f"shrink {self.shrink}, occlusion {self.occlusion}: expected at least 1, and 0 to below 1"
            )


PAPER_AUGMENTATION = Augmentation(flip=True, shift_px=2)
"""Flip and a shift of up to two pixels: what the paper's training uses."""


@dataclass(frozen=True)
class Draw:
    """One augmentation.

    Attributes:
        size: (H, W) of the output.
        matrix: 2×3, row by row, from output pixel coordinates (x, y, 1) to input ones.
        gain: factor per RGB channel.
        gamma: exponent on values in [0, 1].
        noise: standard deviation of added noise, in grey levels.
        blur_px: standard deviation of a Gaussian blur, in pixels.
        shrink: factor by which the output is made smaller and large again.
        patch: what is grey: top, left, height and width in pixels of the output.
        seed: of the noise.
    """

    size: tuple[int, int]
    matrix: tuple[float, ...] = (1, 0, 0, 0, 1, 0)
    gain: tuple[float, float, float] = (1, 1, 1)
    gamma: float = 1.0
    noise: float = 0.0
    blur_px: float = 0.0
    shrink: float = 1.0
    patch: tuple[int, int, int, int] = (0, 0, 0, 0)
    seed: int = 0

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB to (h, w, 3) uint8; what lies outside the input mirrors its border."""
        out = self._warp(image, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)
        if self.shrink > 1:
            height, width = self.size
            small = (max(1, round(width / self.shrink)), max(1, round(height / self.shrink)))
            out = cv2.resize(cv2.resize(out, small, interpolation=cv2.INTER_AREA), (width, height))
        if self.patch[2]:
            top, left, height, width = self.patch
            out = out.copy()
            out[top : top + height, left : left + width] = 127
        if self.blur_px > 0.2:
            out = cv2.GaussianBlur(out, (0, 0), self.blur_px)
        if self.gain != (1, 1, 1) or self.gamma != 1:
            ramp = np.linspace(0, 1, 256, dtype=np.float32) ** self.gamma * 255
            table = np.clip(np.outer(ramp, np.array(self.gain, np.float32)), 0, 255).astype(np.uint8)
            out = cv2.LUT(out, table[None])
        if self.noise > 0:
            noise = np.empty(out.shape, np.int16)
            cv2.setRNGSeed(self.seed)
            cv2.randn(noise, (0,) * 4, (self.noise,) * 4)  # pyright: ignore[reportCallIssue, reportArgumentType]
            out = np.clip(out.astype(np.int16) + noise, 0, 255).astype(np.uint8)
        return out  # pyright: ignore[reportReturnType]

    def label(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) uint8 ids to (h, w); what lies outside the input is void."""
        return self._warp(label, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)

    def _warp(self, array: NDArray[np.uint8], interpolation: int, border: int) -> NDArray[np.uint8]:
        height, width = self.size
        if self.matrix == (1, 0, 0, 0, 1, 0) and array.shape[:2] == self.size:
            return array
        return cv2.warpAffine(
            array,
            np.array(self.matrix, np.float64).reshape(2, 3),
            (width, height),
            flags=interpolation | cv2.WARP_INVERSE_MAP,
            borderMode=border,
            borderValue=VOID,
        )  # pyright: ignore[reportReturnType]


def draw(ranges: Augmentation, size: tuple[int, int], rng: np.random.Generator) -> Draw:
    """One random draw.

    Args:
        ranges: what to draw from.
        size: (H, W) of the frames it will be applied to.
        rng: where the randomness comes from.
    """
    height, width = size
    out_height, out_width = ranges.crop or size
    zoom = float(np.exp(rng.uniform(*np.log(ranges.scale))))
    # The part of the input that the output shows, in input pixels, and where it lies.
    view_height, view_width = out_height / zoom, out_width / zoom
    top = rng.uniform(min(0, height - view_height), max(0, height - view_height))
    left = rng.uniform(min(0, width - view_width), max(0, width - view_width))
    if ranges.shift_px:
        top += rng.integers(-ranges.shift_px, ranges.shift_px + 1)
        left += rng.integers(-ranges.shift_px, ranges.shift_px + 1)
    # Pixel centres are at half-integers in continuous coordinates.
    a = 1 / zoom
    x0, y0 = left + 0.5 * a - 0.5, top + 0.5 * a - 0.5
    matrix = (a, 0.0, x0, 0.0, a, y0)
    if ranges.flip and rng.random() < 0.5:
        matrix = (-a, 0.0, x0 + a * (out_width - 1), 0.0, a, y0)
    brightness = 1 + rng.uniform(-ranges.gain, ranges.gain)
    red, green, blue = (brightness * (1 + rng.uniform(-ranges.gain, ranges.gain, 3) / 2)).tolist()
    drawn = Draw(
        size=(out_height, out_width),
        matrix=matrix,
        gain=(red, green, blue) if ranges.gain else (1, 1, 1),
        gamma=float(1 + rng.uniform(-ranges.gamma, ranges.gamma)),
        noise=float(rng.uniform(0, ranges.noise)),
        blur_px=float(rng.uniform(0, ranges.blur_px)) if rng.random() < 0.5 else 0.0,
        seed=int(rng.integers(2**31)),
    )
    # Drawn last, so that what has neither draws as ever.
    shrink = float(rng.uniform(1, ranges.shrink)) if ranges.shrink > 1 else 1.0
    patch = _patch(ranges.occlusion, drawn.size, rng) if ranges.occlusion else drawn.patch
    return replace(drawn, shrink=shrink, patch=patch)


def _patch(largest: float, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A patch somewhere in an output of (H, W), or, half of the time, none."""
    if rng.random() < 0.5:
        return 0, 0, 0, 0
    height, width = (max(1, round(n * rng.uniform(0, largest))) for n in size)
    return int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1)), height, width
