"""What hides parts of the frame for a moment: rain drops and a wiper blade on the glass, glare."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from lmanet.data.street.textures import Image, image_of

Draw = Callable[[int, int], np.random.Generator]
SLOT_S = 0.6


def draw_occlusion(image: Image, rng_of: Draw, time_s: float, strength: float) -> Image:
    """Put on `image` what hides it at `time_s`.

    Time is cut into slots of 0.6 s; each slot's generator says what begins in it and when.

    Args:
        image: (H, W, 3) uint8 RGB, left as it is.
        rng_of: gives the generator of (kind, number).
        time_s: the frame's time.
        strength: 0 to 1; scales how often something comes and how much it hides.

    Returns:
        (H, W, 3) uint8; `image` itself where nothing hides it.
    """
    now = int(np.floor(time_s / SLOT_S))
    painters = {20: _drops, 21: _wiper, 22: _glare}
    chances = {20: 0.9, 21: 0.6, 22: 0.5}
    for kind, paint in painters.items():
        for number in (now - 1, now):
            rng = rng_of(kind, number)
            if rng.random() > chances[kind] * min(1.0, 0.3 + strength):
                continue
            age_s = time_s - (number + rng.uniform(0, 1)) * SLOT_S
            life_s = rng.uniform(0.2, 0.4)
            if 0 <= age_s < life_s:
                image = paint(image, rng, age_s / life_s, strength)
    return image


def _drops(image: Image, rng: np.random.Generator, age: float, strength: float) -> Image:
    """A few drops that run down; each shows a blurred, upside-down bit of the scene."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(1, width // 12), max(1, height // 12)), interpolation=cv2.INTER_AREA)
    soup = cv2.resize(cv2.blur(small[::-1], (3, 3)), (width, height))
    mask = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(3, 9))):
        radius = rng.uniform(0.03, 0.075) * (0.6 + 0.8 * strength) * width
        x, y = rng.uniform(0, width), rng.uniform(-0.1, 1) * height
        y += age * rng.uniform(0.0, 0.35) * height
        axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(1.0, 1.5))))
        cv2.ellipse(mask, (int(x), int(y)), axes, 0, 0, 360, 255, -1)
    weight = cv2.blur(mask, (5, 5)).astype(np.float32) * np.float32(1 / 255)
    shine = cv2.convertScaleAbs(soup, alpha=float(rng.uniform(0.7, 1.05)), beta=float(rng.uniform(0, 25)))
    return image_of(cv2.blendLinear(shine, image, weight, 1 - weight))


def _wiper(image: Image, rng: np.random.Generator, age: float, strength: float) -> Image:
    """A dark blade that sweeps once across, turning about a point under the frame."""
    height, width = image.shape[:2]
    pivot = np.array([rng.uniform(0.2, 0.8) * width, 1.15 * height])
    angle = np.pi * (0.08 + 0.84 * (age if rng.random() < 0.5 else 1 - age))
    along = np.array([np.cos(angle), -np.sin(angle)])
    across = np.array([-along[1], along[0]]) * width * 0.035 * (0.5 + strength)
    end = pivot + 1.3 * height * along
    blade = np.array([pivot - 1.2 * across, pivot + 1.2 * across, end + 0.7 * across, end - 0.7 * across])
    out = image.copy()
    cv2.fillPoly(out, [(blade * 16).astype(np.int32)], (16, 16, 18), cv2.LINE_AA, 4)
    return out


def _glare(image: Image, rng: np.random.Generator, age: float, strength: float) -> Image:
    """A bright spot that drifts, blooms and fades."""
    height, width = image.shape[:2]
    x = (rng.uniform(0.1, 0.9) + 0.25 * (age - 0.5) * rng.uniform(-1, 1)) * width
    y = (rng.uniform(0.05, 0.6) + 0.1 * (age - 0.5)) * height
    radius = rng.uniform(0.12, 0.24) * (0.5 + strength) * width
    power = 520 * float(np.sin(np.pi * min(max(age, 0.02), 0.98))) ** 0.5
    dx = np.exp(-(((np.arange(width) - x) / radius) ** 2))
    dy = np.exp(-(((np.arange(height) - y) / radius) ** 2))
    light = np.minimum(power * dy[:, None] * dx[None], 255).astype(np.uint8)
    return image_of(cv2.add(image, cv2.cvtColor(light, cv2.COLOR_GRAY2RGB)))
