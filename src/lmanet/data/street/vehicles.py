"""Cars, vans and trucks: a side profile drawn out to the car's width, with glass, lights and wheels."""

from __future__ import annotations

import numpy as np

from lmanet.data.street.canvas import Canvas
from lmanet.data.street.look import Colour, Look
from lmanet.data.street.view import NEAR_M, View, clipped
from lmanet.data.street.world import Car

CAR = 8

PROFILES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "hatch": (
        (-1.95, 0.24, 1.0), (-2.0, 0.62, 1.0), (-1.92, 0.95, 0.98), (-1.55, 1.45, 0.78), (0.3, 1.48, 0.78),
        (1.05, 0.98, 0.95), (1.85, 0.78, 0.94), (2.0, 0.58, 0.95), (1.95, 0.24, 1.0),
    ),
    "saloon": (
        (-2.25, 0.26, 1.0), (-2.3, 0.7, 1.0), (-2.2, 0.98, 0.96), (-1.55, 1.0, 0.94), (-0.95, 1.42, 0.76),
        (0.3, 1.43, 0.76), (1.1, 0.96, 0.94), (2.1, 0.76, 0.93), (2.3, 0.56, 0.95), (2.25, 0.26, 1.0),
    ),
    "van": (
        (-2.4, 0.3, 1.0), (-2.45, 0.8, 1.0), (-2.42, 1.1, 1.0), (-2.3, 2.0, 0.92), (1.2, 2.02, 0.92),
        (1.95, 1.15, 0.97), (2.35, 0.95, 0.95), (2.45, 0.6, 0.97), (2.4, 0.3, 1.0),
    ),
    "truck": (
        (-3.6, 0.5, 1.0), (-3.6, 1.0, 1.0), (-3.6, 1.5, 1.0), (-3.6, 2.9, 1.0), (3.2, 2.9, 1.0),
        (3.5, 1.6, 1.0), (3.55, 1.2, 1.0), (3.6, 0.8, 1.0), (3.6, 0.5, 1.0),
    ),
}  # fmt: skip
"""Points (z ahead, height, share of the half width), metres, from the rear bumper over the roof to the front."""

HALF_WIDTH_M = {"hatch": 0.86, "saloon": 0.9, "van": 0.98, "truck": 1.2}
WHEEL_M = {"hatch": 0.31, "saloon": 0.32, "van": 0.35, "truck": 0.48}
AXLES_M = {"hatch": 1.25, "saloon": 1.4, "van": 1.55, "truck": 2.4}
RIM = np.linspace(0, 2 * np.pi, 12, endpoint=False)


def _glass_edges(style: str) -> dict[int, float]:
    """Edges of the profile that are windows, with the share of the width that is glass."""
    return {
        "hatch": {2: 0.85, 4: 0.92},
        "saloon": {3: 0.9, 5: 0.92},
        "van": {2: 0.7, 4: 0.92},
        "truck": {4: 0.9},
    }[style]


def _side_windows(style: str) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Side windows as polygons of (z, height)."""
    return {
        "hatch": (
            ((-1.5, 1.0), (-1.35, 1.38), (-0.55, 1.41), (-0.55, 0.98)),
            ((-0.48, 0.98), (-0.48, 1.41), (0.25, 1.41), (0.85, 1.0)),
        ),
        "saloon": (
            ((-1.3, 1.02), (-0.9, 1.35), (-0.35, 1.37), (-0.35, 1.0)),
            ((-0.28, 1.0), (-0.28, 1.37), (0.25, 1.37), (0.9, 1.0)),
        ),
        "van": (((0.3, 1.15), (0.3, 1.85), (1.15, 1.85), (1.75, 1.18)),),
        "truck": (((2.2, 1.6), (2.2, 2.5), (3.1, 2.5), (3.3, 1.6)),),
    }[style]


def _scaled(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, max(0, int(c * factor))) for c in colour)
    return r, g, b


def draw_car(canvas: Canvas, view: View, car: Car, look: Look) -> None:
    """Draw `car` with its shadow."""
    x, z = view.locate(car.s, car.d)
    if not view.sees(x, z, 4.0):
        return
    angle = view.bend(car.s) + (0 if car.heading > 0 else np.pi)
    ahead = np.array([np.sin(angle), 0, np.cos(angle)])
    right = np.array([np.cos(angle), 0, -np.sin(angle)])
    origin = np.array([x, 0, z])
    half = HALF_WIDTH_M[car.style] * car.scale

    def place(points: np.ndarray) -> np.ndarray:
        """From (across, up, ahead) metres of the car to camera axes."""
        return (
            origin
            + points[:, :1] * right
            + points[:, 1:2] * car.scale * [0, 1, 0]
            + points[:, 2:] * car.scale * ahead
        )

    def paint(points: np.ndarray, colour: Colour, label: int | None = CAR) -> None:
        seen = clipped(points)
        if len(seen):
            canvas.polygon(view.project(seen), colour, label, max(z, NEAR_M))

    profile = np.array(PROFILES[car.style])
    count = len(profile)
    flat = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]])
    ground = clipped(place(flat * [half * 1.08, 0, profile[:, 0].max() * 1.02]))
    if len(ground):
        canvas.shadow(view.project(ground), 0.62)
    skin = np.empty((2 * count, 3))
    for row, sign in ((0, -1), (count, 1)):
        skin[row : row + count] = np.stack([sign * half * profile[:, 2], profile[:, 1], profile[:, 0]], 1)
    body = place(skin)
    left, over = body[:count], body[count:]
    toward_right = origin @ right < 0
    near_side, sign = (over, 1) if toward_right else (left, -1)
    sun = look.sun * np.cos(look.sun_angle - angle)
    glass = look.lit((52, 60, 70))
    small = z > 45
    underside = np.array([[-1, 0.18, -1.0], [1, 0.18, -1.0], [1, 0.18, 1.0], [-1, 0.18, 1.0]])
    ends = underside * [half * 0.96, 1, profile[:, 0].max() * 0.95]
    for i in ((0, 1), (2, 3)):
        low = place(ends[list(i)])
        paint(np.concatenate([low, low[::-1] + [0, 0.14, 0]]), (18, 18, 18))
    panes = _glass_edges(car.style)
    quads = []
    for i in range(count - 1):
        quad = np.array([left[i], over[i], over[i + 1], left[i + 1]])
        normal = np.cross(quad[1] - quad[0], quad[2] - quad[1])
        centre = quad.mean(0)
        if normal @ (centre - [0, view.camera_m, 0]) <= 0:
            continue
        quads.append((float(centre @ centre), i, quad, normal / (np.linalg.norm(normal) + 1e-9)))
    side = max(float((near_side.mean(0) ** 2).sum()), 0.0)
    for _, i, quad, normal in sorted(quads, key=lambda q: -q[0]):
        shade = 0.72 + 0.4 * max(normal[1], 0) + 0.22 * sun * float(normal @ ahead)
        paint(quad, _scaled(car.colour, shade))
        if i in panes and not small:
            middle = quad.mean(0)
            paint(middle + (quad - middle) * panes[i], _scaled(glass, 1.0 + 0.5 * max(normal[1], 0)))
        if i == 1 or i == count - 3:
            _lights(paint, quad, (205, 40, 35) if i == 1 else (240, 240, 225), look)
        if i == 0 or i == count - 2:
            middle = quad.mean(0)
            paint(
                middle + (quad - middle) * [0.35, 0.35, 0.35],
                look.lit((215, 205, 120) if i else (215, 210, 190)),
            )
    del side
    paint(
        near_side, _scaled(car.colour, 0.82 + 0.2 * sign * look.sun * float(np.sin(look.sun_angle - angle)))
    )
    if not small:
        for window in _side_windows(car.style):
            pane = np.array(window)
            slope = np.interp(pane[:, 1], (1.0, profile[:, 1].max()), (0.96, profile[4, 2] + 0.01))
            paint(place(np.stack([sign * half * slope, pane[:, 1], pane[:, 0]], 1)), glass)
    _wheels(paint, place, car.style, sign * half, small)


def _lights(paint, quad: np.ndarray, colour: Colour, look: Look) -> None:  # noqa: ANN001
    """A lamp at each end of a front or rear panel, whose corners are left, right, right, left."""
    for near, far in ((0, 1), (1, 0)):
        low = quad[near] + 0.04 * (quad[far] - quad[near])
        low_in = quad[near] + 0.24 * (quad[far] - quad[near])
        up = 0.8 * (quad[3 - near] - quad[near])
        paint(np.array([low, low_in, low_in + up, low + up]) + 0.1 * up, look.lit(colour))


def _wheels(paint, place, style: str, across: float, small: bool) -> None:  # noqa: ANN001
    radius = WHEEL_M[style]
    for axle in (-AXLES_M[style], AXLES_M[style]):
        for share, colour in ((1.0, (20, 20, 20)), (0.6, (130, 130, 130))):
            if share < 1 and small:
                continue
            ring = np.stack(
                [
                    np.full(12, across * 1.005),
                    radius + share * radius * np.sin(RIM),
                    axle + share * radius * np.cos(RIM),
                ],
                1,
            )
            paint(place(ring), colour)
