"""The bodies of cars, vans and trucks: a side profile drawn out to the car's width.

A mesh is made once per style in the car's own axes: across (right), up, ahead, metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmanet.data.street.things import CarStyle

Paint = Literal["body", "glass", "tail", "head", "plate", "tyre", "rim", "under"]


@dataclass(frozen=True)
class Body:
    """The measures of one style.

    Attributes:
        profile: (ahead, up, share of the half width) from the rear bumper over the roof to the front bumper.
        half_m: half the width.
        wheel_m: the wheels' radius.
        axle_m: distance of the axles from the middle.
        panes: profile edges that are glass, with the share of them that is.
        windows: side windows, polygons of (ahead, up).
    """

    profile: tuple[tuple[float, float, float], ...]
    half_m: float
    wheel_m: float
    axle_m: float
    panes: dict[int, float]
    windows: tuple[tuple[tuple[float, float], ...], ...]


BODIES: dict[CarStyle, Body] = {
    "hatch": Body(
        (
            (-1.95, 0.24, 1.0), (-2.0, 0.62, 1.0), (-1.92, 0.95, 0.98), (-1.55, 1.45, 0.78), (0.3, 1.48, 0.78),
            (1.05, 0.98, 0.95), (1.85, 0.78, 0.94), (2.0, 0.58, 0.95), (1.95, 0.24, 1.0),
        ),
        0.86, 0.31, 1.25, {2: 0.85, 4: 0.92},
        (
            ((-1.6, 1.0), (-1.4, 1.38), (-0.55, 1.41), (-0.55, 0.98)),
            ((-0.48, 0.98), (-0.48, 1.41), (0.25, 1.41), (0.85, 1.0)),
        ),
    ),
    "saloon": Body(
        (
            (-2.25, 0.26, 1.0), (-2.3, 0.7, 1.0), (-2.2, 0.98, 0.96), (-1.55, 1.0, 0.94), (-0.95, 1.42, 0.76),
            (0.3, 1.43, 0.76), (1.1, 0.96, 0.94), (2.1, 0.76, 0.93), (2.3, 0.56, 0.95), (2.25, 0.26, 1.0),
        ),
        0.9, 0.32, 1.4, {3: 0.9, 5: 0.92},
        (
            ((-1.3, 1.02), (-0.9, 1.35), (-0.35, 1.37), (-0.35, 1.0)),
            ((-0.28, 1.0), (-0.28, 1.37), (0.25, 1.37), (0.9, 1.0)),
        ),
    ),
    "van": Body(
        (
            (-2.4, 0.3, 1.0), (-2.45, 0.8, 1.0), (-2.42, 1.1, 1.0), (-2.3, 2.0, 0.92), (1.2, 2.02, 0.92),
            (1.95, 1.15, 0.97), (2.35, 0.95, 0.95), (2.45, 0.6, 0.97), (2.4, 0.3, 1.0),
        ),
        0.98, 0.35, 1.55, {2: 0.7, 4: 0.92},
        (((0.3, 1.15), (0.3, 1.85), (1.15, 1.85), (1.75, 1.18)),),
    ),
    "truck": Body(
        (
            (-3.3, 0.5, 1.0), (-3.3, 0.95, 1.0), (-3.3, 1.4, 1.0), (-3.3, 2.7, 1.0), (2.9, 2.7, 1.0),
            (3.2, 1.5, 1.0), (3.25, 1.15, 1.0), (3.3, 0.8, 1.0), (3.3, 0.5, 1.0),
        ),
        1.15, 0.46, 2.2, {4: 0.9},
        (((2.0, 1.5), (2.0, 2.3), (2.8, 2.3), (3.0, 1.5)),),
    ),
}  # fmt: skip

RIM = np.linspace(0, 2 * np.pi, 10, endpoint=False)
INSET = 1.006
"""Decals on a side lie this little outside it."""


@dataclass(frozen=True)
class Face:
    """A polygon of the mesh: its vertices' numbers, what it is painted with, whether it matters far away."""

    corners: slice
    paint: Paint
    far: bool


@dataclass(frozen=True)
class Mesh:
    """A car's surface.

    Attributes:
        vertices: (V, 3) float64 metres in the car's axes.
        panels: the outer faces, each with what is painted on it; the last two are the left and right sides.
        normals: (P, 3) of the panels, unit length, outwards.
        centres: (P, 3) of the panels.
        length_m: half the length.
        half_m: half the width.
    """

    vertices: NDArray[np.float64]
    panels: tuple[tuple[Face, ...], ...]
    normals: NDArray[np.float64]
    centres: NDArray[np.float64]
    length_m: float
    half_m: float


class _Builder:
    """Collects vertices and the panels over them."""

    def __init__(self) -> None:
        self.vertices: list[NDArray[np.float64]] = []
        self.count = 0

    def face(self, points: NDArray[np.float64], paint: Paint, *, far: bool = False) -> Face:
        self.vertices.append(points)
        self.count += len(points)
        return Face(slice(self.count - len(points), self.count), paint, far)


@cache
def mesh(style: CarStyle) -> Mesh:
    """The mesh of `style`, made once."""
    body = BODIES[style]
    profile = np.array(body.profile)
    build = _Builder()
    left, right = (
        np.stack([sign * body.half_m * profile[:, 2], profile[:, 1], profile[:, 0]], 1) for sign in (-1, 1)
    )
    panels, normals, centres = [], [], []
    edges = len(profile) - 1
    for i in range(edges):
        quad = np.array([left[i], right[i], right[i + 1], left[i + 1]])
        panels.append((*_undercarriage(build, quad, i, edges), *_panel(build, quad, i, edges, body)))
        normal = np.cross(quad[2] - quad[1], quad[1] - quad[0])
        normals.append(normal / np.linalg.norm(normal))
        centres.append(quad.mean(0))
    for sign, outline in ((-1, left), (1, right)):
        panels.append(_side(build, outline, sign, body))
        normals.append(np.array([sign, 0.0, 0.0]))
        centres.append(np.array([sign * body.half_m, 0.8, 0.0]))
    return Mesh(
        np.concatenate(build.vertices),
        tuple(panels),
        np.array(normals),
        np.array(centres),
        float(profile[:, 0].max()),
        body.half_m,
    )


def _undercarriage(build: _Builder, quad: NDArray[np.float64], i: int, edges: int) -> tuple[Face, ...]:
    """The dark gap below a bumper."""
    if i not in (0, edges - 1):
        return ()
    low = quad[:2] if i == 0 else quad[[3, 2]]
    floor = low * [0.96, 0.5, 0.97]
    return (
        build.face(
            np.array([low[0] * [0.96, 1, 0.97], low[1] * [0.96, 1, 0.97], floor[1], floor[0]]), "under"
        ),
    )


def _panel(build: _Builder, quad: NDArray[np.float64], i: int, edges: int, body: Body) -> tuple[Face, ...]:
    """One strip of the body with its glass, lamps or number plate."""
    faces = [build.face(quad, "body", far=True)]
    middle = quad.mean(0)
    if i in body.panes:
        faces.append(build.face(middle + (quad - middle) * body.panes[i], "glass", far=True))
    if i in (1, edges - 2):
        for corner, other in ((0, 1), (1, 0)):
            outer = quad[corner] + 0.04 * (quad[other] - quad[corner])
            inner = quad[corner] + 0.22 * (quad[other] - quad[corner])
            up = quad[3 - corner] - quad[corner]
            lamp = np.array([outer, inner, inner + 0.75 * up, outer + 0.75 * up]) + 0.12 * up
            faces.append(build.face(lamp, "tail" if i == 1 else "head", far=True))
    if i in (0, edges - 1):
        faces.append(build.face(middle + (quad - middle) * [0.32, 0.35, 0.35], "plate"))
    return tuple(faces)


def _side(build: _Builder, outline: NDArray[np.float64], sign: int, body: Body) -> tuple[Face, ...]:
    """A side with its windows and wheels."""
    faces = [build.face(outline, "body", far=True)]
    roof = max(p[1] for p in body.profile)
    for window in body.windows:
        pane = np.array(window)
        across = np.interp(pane[:, 1], (1.0, roof), (0.96, body.profile[4][2] + 0.01))
        faces.append(
            build.face(np.stack([sign * body.half_m * across, pane[:, 1], pane[:, 0]], 1), "glass", far=True)
        )
    for axle in (-body.axle_m, body.axle_m):
        rings: tuple[tuple[float, Paint], ...] = ((1.0, "tyre"), (0.6, "rim"))
        for share, paint in rings:
            reach = share * body.wheel_m
            up, ahead = body.wheel_m + reach * np.sin(RIM), axle + reach * np.cos(RIM)
            ring = np.stack([np.full(len(RIM), sign * body.half_m * INSET), up, ahead], 1)
            faces.append(build.face(ring, paint, far=paint == "tyre"))
    return tuple(faces)
