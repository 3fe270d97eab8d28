"""Drawing cars, vans and trucks."""

from __future__ import annotations

import numpy as np

from lmanet.data.street.canvas import Canvas, depth_code, fixed
from lmanet.data.street.look import Colour, Look
from lmanet.data.street.meshes import Paint, mesh
from lmanet.data.street.things import Car, Label
from lmanet.data.street.view import NEAR_M, View, clipped

SMALL_M = 40.0
"""Beyond this distance details are left out."""

TRIM: dict[Paint, Colour] = {
    "glass": (52, 60, 70),
    "tail": (205, 40, 35),
    "head": (240, 240, 225),
    "plate": (215, 208, 160),
    "tyre": (22, 22, 22),
    "rim": (130, 130, 132),
    "under": (17, 17, 18),
}


def draw_car(canvas: Canvas, view: View, car: Car, look: Look) -> None:
    """Draw `car` with its shadow."""
    x, z = view.locate(car.s, car.d)
    if not view.sees(x, z, 4.0):
        return
    shape = mesh(car.style)
    angle = view.bend(car.s) + (0 if car.heading > 0 else np.pi)
    sine, cosine = np.sin(angle), np.cos(angle)
    # The rows are the car's axes (across, up, ahead) in camera axes.
    axes = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]]) * car.scale
    origin = np.array([x, 0.0, z])
    camera = axes @ (np.array([0, view.camera_m, 0]) - origin) / car.scale**2
    _shadow(canvas, view, axes, origin, shape.half_m, shape.length_m, look)
    points = shape.vertices @ axes + origin
    whole = bool(points[:, 2].min() > NEAR_M)
    pixels = fixed(view.project(points)) if whole else None
    offsets = camera - shape.centres
    seen = np.flatnonzero((shape.normals * offsets).sum(1) > 0)
    order = seen[np.argsort(-(offsets[seen] ** 2).sum(1))]
    sides = len(shape.panels) - 2
    # A side is long, so its middle says little: it comes after all panels that it may touch.
    order = [*order[order < sides], *order[order >= sides]]
    world_angle = angle + view.heading
    sun = np.array([np.sin(look.sun_angle - world_angle), 0.6, np.cos(look.sun_angle - world_angle)])
    shades = 0.74 + 0.22 * np.maximum(shape.normals[:, 1], 0) + 0.2 * look.sun * (shape.normals @ sun)
    depth = int(depth_code(max(z, NEAR_M)))
    for panel in order:
        for face in shape.panels[panel]:
            if z > SMALL_M and not face.far:
                continue
            base = car.colour if face.paint == "body" else look.lit(TRIM[face.paint])
            shade = 1.0 if face.paint in ("tail", "head") else float(shades[panel])
            r, g, b = (min(255, int(c * shade)) for c in base)
            if pixels is not None:
                canvas.fill(pixels[face.corners], (r, g, b), Label.CAR, depth)
            else:
                cut = clipped(points[face.corners])
                if len(cut):
                    canvas.fill(fixed(view.project(cut)), (r, g, b), Label.CAR, depth)


def _shadow(
    canvas: Canvas,
    view: View,
    axes: np.ndarray,
    origin: np.ndarray,
    half_m: float,
    length_m: float,
    look: Look,
) -> None:
    corners = np.array([[-1.08, 0, -1.02], [1.08, 0, -1.02], [1.08, 0, 1.02], [-1.08, 0, 1.02]])
    ground = clipped(corners * [half_m, 0, length_m] @ axes + origin)
    if len(ground):
        canvas.shadow(view.project(ground), 0.5 + 0.2 * look.sun)
