"""Surfaces painted once and warped into many frames: facades, fences, leaves, the ground and the sky.

All are RGB uint8; those that can be seen through carry alpha as a fourth channel.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lmanet.data.street.look import Colour, Look, hsv, thing_colour, wall_colour

Image = NDArray[np.uint8]
Pyramid = tuple[Image, ...]
"""One texture at full, half, quarter and eighth resolution, so that far surfaces do not shimmer."""

GROUND_PERIOD_M = 24.0
GROUND_HALF_M = 20.0
PIXELS_PER_M = 14
SKY_ROWS_PER_RAD = 360
SKY_RADIANS = 1.0


def image_of(array: np.ndarray) -> Image:
    """`array`, which holds uint8, laid out in one piece and typed as an image."""
    return np.ascontiguousarray(array, np.uint8)


def pyramid(texture: Image) -> Pyramid:
    """`texture` and three halvings of it."""
    levels = [texture]
    for _ in range(3):
        height, width = levels[-1].shape[:2]
        half = (max(1, width // 2), max(1, height // 2))
        levels.append(image_of(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA)))
    return tuple(levels)


def grain(rng: np.random.Generator, height: int, width: int, cell: int = 1) -> NDArray[np.float32]:
    """(height, width) float32 noise of mean 0 and deviation near 1, in blobs `cell` pixels wide."""
    coarse = rng.standard_normal((-(-height // cell) + 1, -(-width // cell) + 1), np.float32)
    if cell == 1:
        return coarse[:height, :width]
    size = (coarse.shape[1] * cell, coarse.shape[0] * cell)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[:height, :width] * 1.3


def painted(colour: Colour, relief: NDArray[np.floating]) -> Image:
    """An (H, W, 3) image of `colour` times 1 + `relief` (H, W)."""
    return np.clip(np.asarray(colour, np.float32) * (1 + relief[..., None]), 0, 255).astype(np.uint8)


def facade(rng: np.random.Generator, look: Look, width_m: float, height_m: float, shade: float) -> Image:
    """A building's front: wall with courses of stone or stains, floors of windows, a door or a shop."""
    wall = look.lit(wall_colour(rng), shade)
    px = PIXELS_PER_M
    height, width = max(8, int(height_m * px)), max(8, int(width_m * px))
    relief = 0.05 * grain(rng, height, width) + 0.07 * grain(rng, height, width, 24)
    if rng.random() < 0.5:
        relief[:: int(rng.integers(3, 8))] -= 0.1
    relief += np.linspace(0.05, -0.1, height, dtype=np.float32)[:, None]
    texture = painted(wall, relief)
    glass = look.lit(hsv(0.58, rng.uniform(0, 0.3), rng.uniform(0.12, 0.5)), shade)
    frame = look.lit(hsv(0.1, 0.05, rng.uniform(0.3, 0.95)), shade)
    floor_m, bay_m = rng.uniform(2.7, 3.4), rng.uniform(1.8, 3.2)
    tall, wide = rng.uniform(0.4, 0.65), rng.uniform(0.35, 0.7)
    floors, bays = max(1, round(height_m / floor_m)), max(1, round(width_m / bay_m))
    step_y, step_x = height / floors, width / bays
    shop = rng.random() < 0.35
    for row in range(floors):
        bottom = int(height - (row + 0.22) * step_y)
        top = int(bottom - tall * step_y)
        for column in range(bays):
            left = int((column + 0.5 - wide / 2) * step_x)
            right = int((column + 0.5 + wide / 2) * step_x)
            dark = float(rng.uniform(0.6, 1.3))
            pane = (int(glass[0] * dark), int(glass[1] * dark), int(glass[2] * dark))
            if row == 0 and not shop and column == bays // 2:
                cv2.rectangle(texture, (left, top), (right, height), look.lit(thing_colour(rng), shade), -1)
                continue
            cv2.rectangle(texture, (left - 1, top - 1), (right + 1, bottom + 2), frame, -1)
            cv2.rectangle(texture, (left, top), (right, bottom), pane, -1)
            middle = (left + right) // 2
            cv2.line(texture, (middle, top), (middle, bottom), frame, 1)
    if shop:
        top = int(height - 0.9 * step_y)
        cv2.rectangle(texture, (0, top), (width, height), look.lit(hsv(0.6, 0.1, 0.25), shade), -1)
        cv2.rectangle(
            texture, (0, top - px // 2), (width, top + px // 3), look.lit(thing_colour(rng), shade), -1
        )
        for x in range(0, width, max(6, int(step_x))):
            cv2.line(texture, (x, top), (x, height), frame, 2)
    cv2.rectangle(texture, (0, 0), (width, px // 3), look.lit(wall_colour(rng), shade), -1)
    return texture


def fence(rng: np.random.Generator, look: Look, width_m: float, height_m: float) -> Image:
    """A fence as RGBA: railings, boards, or a closed wall with a coping."""
    px = 30
    height, width = max(6, int(height_m * px)), max(8, int(width_m * px))
    colour = wall_colour(rng) if rng.random() < 0.5 else thing_colour(rng)
    texture = np.dstack(
        [
            painted(look.lit(colour, 0.9), 0.08 * grain(rng, height, width)),
            np.zeros((height, width), np.uint8),
        ]
    )
    kind = rng.random()
    if kind < 0.5:
        gap, bar = int(rng.integers(4, 9)), 2
        for x in range(0, width, gap):
            texture[:, x : x + bar, 3] = 255
        texture[: height // 12 + 2, :, 3] = 255
        texture[-height // 8 : -height // 16, :, 3] = 255
    else:
        texture[..., 3] = 255
        if kind < 0.8:
            texture[:, :: int(rng.integers(4, 8)), :3] //= 2
        else:
            texture[: height // 10 + 1, :, :3] = np.minimum(
                255, texture[: height // 10 + 1, :, :3].astype(int) * 4 // 3
            )
    return texture


def leaves(rng: np.random.Generator, look: Look, height: int, width: int) -> Image:
    """A closed surface of leaves, for hedges: (height, width, 3)."""
    value = look.leaf_value * rng.uniform(0.7, 1.2)
    colour = look.lit(hsv(look.leaf_hue + rng.normal(0, 0.02), rng.uniform(0.25, 0.6), value))
    return painted(colour, 0.22 * grain(rng, height, width, 3) + 0.12 * grain(rng, height, width, 16))


def crown(rng: np.random.Generator, look: Look, size: int = 112) -> Image:
    """A tree's crown as an RGBA sprite (size, size, 4): blobs of leaves, lit from above, holes between."""
    texture = np.dstack([leaves(rng, look, size, size), np.zeros((size, size), np.uint8)])
    alpha = np.zeros((size, size), np.uint8)
    shade = np.full((size, size), 0.62, np.float32)
    slim = rng.uniform(0.6, 1.0)
    centre = size / 2
    for i in range(26):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.34) * size
        x, y = centre + slim * reach * np.cos(angle), centre + reach * np.sin(angle)
        radius = int(rng.uniform(0.08, 0.17) * size)
        cv2.circle(alpha, (int(x), int(y)), radius, 255, -1)
        if i % 2:
            lift = float(np.clip(1.25 - 0.75 * y / size, 0.5, 1.2)) * rng.uniform(0.85, 1.15)
            cv2.circle(shade, (int(x), int(y - radius * 0.2)), int(radius * 0.8), lift, -1)
    holes = grain(rng, size, size, 5) - 0.6 * grain(rng, size, size, 2)
    distance = cv2.distanceTransform(alpha, cv2.DIST_L2, 3)
    alpha[holes * 4 > distance + 1.5] = 0
    shade = cv2.GaussianBlur(shade, (0, 0), 2.5)
    texture[..., :3] = np.clip(texture[..., :3] * (0.45 + 0.75 * shade[..., None]), 0, 255)
    texture[..., 3] = cv2.GaussianBlur(alpha, (3, 3), 0)
    return texture


def ground(rng: np.random.Generator, look: Look) -> Pyramid:
    """The street from above, one period long: columns run across the road, rows along it.

    Level n is finer across (5 cm, 5, 10, 20 cm a pixel) than along (5 cm, 40 cm, 1.6 m, 6 m), because that is
    how perspective shortens the far ground.
    """
    rows, columns = int(GROUND_PERIOD_M * 20), int(2 * GROUND_HALF_M * 20)
    across = (np.arange(columns) + 0.5) / 20 - GROUND_HALF_M
    base = np.empty((columns, 3), np.float32)
    edge, plot = look.road_half_m, look.plot_m
    base[:] = look.lit(look.ground)
    base[np.abs(across) < plot + 1.5] = look.lit(look.paving, 0.96)
    base[np.abs(across) < plot] = look.lit(look.paving)
    base[np.abs(across) < edge + 0.18] = look.lit(look.paving, 1.18)
    base[np.abs(across) < edge] = look.lit(look.asphalt)
    relief = 0.07 * grain(rng, rows, columns) + 0.04 * grain(rng, rows, columns, 20)
    lane = np.abs(np.abs(across) - look.lane_m / 2)
    relief -= (0.07 * np.exp(-(((lane - 0.75) / 0.35) ** 2))).astype(np.float32)
    paved = (np.abs(across) > edge) & (np.abs(across) < plot + 1.5)
    slab = int(rng.integers(10, 20))
    relief[::slab, paved] -= 0.14
    relief[:, paved & (np.arange(columns) % slab == 0)] -= 0.14
    along = np.arange(rows) / 20
    paint = np.asarray(look.lit((225, 225, 215)), np.float32)
    image = base[None] * (1 + relief[..., None])
    dashes = along % 8 < rng.uniform(2.5, 5)
    centre = np.abs(across) < 0.08
    image[np.ix_(dashes, centre)] = 0.85 * paint
    if rng.random() < 0.6:
        image[:, np.abs(np.abs(across) - look.lane_m) < 0.06] = 0.75 * paint
    if rng.random() < 0.4:
        image[:, np.abs(np.abs(across) - edge + 0.25) < 0.05] = np.asarray(look.lit((190, 160, 60)))
    # Where the sun stands over the houses of one side, they shade that side of the street.
    shaded = np.clip((across * np.sign(np.sin(look.sun_angle)) - 1.0) / 1.2 + 0.5, 0, 1)
    image *= (1 - 0.32 * look.sun * abs(np.sin(look.sun_angle)) * shaded)[:, None]
    full = np.clip(image, 0, 255).astype(np.uint8)
    sizes = ((columns, rows // 8), (columns // 2, rows // 32), (columns // 4, rows // 120))
    return (full, *(cv2.resize(full, size, interpolation=cv2.INTER_AREA) for size in sizes))


def sky(rng: np.random.Generator, look: Look) -> tuple[Image, Image]:
    """The far world all around: RGB (rows, 2π, 3) and class ids (rows, 2π): sky, far roofs and far trees.

    The last row is the horizon; a row is 1/360 rad, and so is a column.
    """
    rows, columns = int(SKY_RADIANS * SKY_ROWS_PER_RAD), int(2 * np.pi * SKY_ROWS_PER_RAD)
    blend = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 0.8
    low, top = (np.asarray(c, np.float32) for c in (look.sky_low, look.sky_top))
    small = grain(rng, rows // 4, columns // 4, 32) + 0.5 * grain(rng, rows // 4, columns // 4, 10)
    cover = cv2.resize(1 / (1 + np.exp(-3 * (small - 1.2 + 2.4 * look.clouds))), (columns, rows))[..., None]
    bright = np.float32(min(250.0, 1.1 * float(low.mean())))
    image = (top * (1 - blend) + low * blend) * (1 - 0.75 * cover) + 0.75 * cover * bright
    image = np.clip(image, 0, 255).astype(np.uint8)
    labels = np.zeros((rows, columns), np.uint8)
    haze = np.asarray(look.sky_low, np.float32)
    position = 0
    while position < columns:
        width = int(rng.integers(12, 60))
        houses = rng.random() < 0.55
        height = int(rng.uniform(10, 34))
        colour = wall_colour(rng) if houses else hsv(look.leaf_hue, 0.4, look.leaf_value)
        shown = 0.55 * np.asarray(look.lit(colour), np.float32) + 0.45 * haze
        where = slice(position, min(columns, position + width))
        span = where.stop - where.start
        tops = np.full(span, height)
        if not houses:
            tops = tops + (3 * np.sin(np.arange(span) * 0.7) + 4 * rng.random(span)).astype(int)
        mask = np.arange(rows)[:, None] >= rows - tops[None]
        image[:, where][mask] = (shown * rng.uniform(0.92, 1.05)).clip(0, 255)
        labels[:, where][mask] = 1 if houses else 5
        position += width
    return image, labels
