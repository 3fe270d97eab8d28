"""Drawing walkers and cyclists: rods for limbs, a disc for the head."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmanet.data.street.canvas import Canvas
from lmanet.data.street.look import Colour
from lmanet.data.street.things import Label, Person
from lmanet.data.street.view import View

FAR_M = 40.0
"""Beyond this distance arms, feet and bicycle frames are left out."""
STEPS_PER_S = 0.95
TURNS_PER_S = 1.1
CIRCLE = np.linspace(0, 2 * np.pi, 14, endpoint=False)
SHOE: Colour = (25, 22, 20)
TYRE: Colour = (22, 22, 24)

Point = tuple[float, float, float]
"""Metres in the person's own axes: ahead, up, to its right."""
Rod = tuple[Point, Point, float, float, Colour]
"""From, to, the radius at each end in metres, colour."""


def draw_person(canvas: Canvas, view: View, person: Person) -> None:
    """Draw a walker in mid step, or a cyclist on the bicycle, with a shadow."""
    x, z = view.locate(person.s, person.d)
    if z < 1.8 or not view.sees(x, z, 1.5):
        return
    bend = view.bend(person.s)
    sine, cosine = np.sin(bend), np.cos(bend)
    ahead = np.array(
        [person.along * sine + person.across * cosine, 0, person.along * cosine - person.across * sine]
    )
    right = np.array([ahead[2], 0, -ahead[0]])
    axes = np.array([ahead, [0, 1, 0], right]) * (person.height_m / 1.75)
    origin = np.array([x, 0.0, z])
    near = 1 if float(right @ origin) < 0 else -1
    rough = z > FAR_M
    label = Label.BICYCLIST if person.cycling else Label.PEDESTRIAN
    if not rough:
        ground = np.array([[0.35, 0, 0.25], [0.35, 0, -0.25], [-0.35, 0, -0.25], [-0.35, 0, 0.25]])
        canvas.shadow(view.project(ground @ axes + origin), 0.4)
    if person.cycling:
        _wheels(canvas, view, axes, origin, z)
    rods = _rider(person, near, rough) if person.cycling else _walker(person, near, rough)
    head: Point = (0.2, 1.62, 0.0) if person.cycling else (0.0, 1.62, 0.0)
    cap: Rod = ((head[0] - 0.03, 1.66, 0.0), (head[0] - 0.03, 1.76, 0.0), 0.118, 0.07, person.legs)
    face: Rod = ((head[0], 1.5, 0.0), (head[0], 1.74, 0.0), 0.1, 0.105, person.skin)
    _rods(canvas, view, axes, origin, [*rods[:-1], face, cap, rods[-1]], label)


def _rods(canvas: Canvas, view: View, axes: NDArray, origin: NDArray, rods: list[Rod], label: Label) -> None:
    """Draw `rods` in their order."""
    ends = np.array([rod[0] for rod in rods] + [rod[1] for rod in rods]) @ axes + origin
    radii = np.array([rod[2] for rod in rods] + [rod[3] for rod in rods])
    widths = np.maximum(radii * view.focal_px / ends[:, 2], 0.6)
    pixels, count = view.project(ends), len(rods)
    colours = [rod[4] for rod in rods]
    canvas.rods(
        pixels[:count], pixels[count:], widths[:count], widths[count:], colours, label, float(origin[2])
    )


def _walker(person: Person, near: int, rough: bool) -> list[Rod]:
    """A walker's limbs, the far ones first; the last one is the near arm, which may hide the face."""
    swing = 0.36 * np.sin(2 * np.pi * STEPS_PER_S * person.phase_s)
    torso: Rod = ((0.0, 0.82, 0.0), (0.0, 1.47, 0.0), 0.17, 0.2, person.coat)
    legs: list[Rod] = []
    arms: list[Rod] = []
    for sign in (-near, near):
        reach, out = swing * sign, 0.09 * sign
        foot: Point = (reach, 0.03, out)
        if rough:
            legs.append(((0.0, 0.9, 0.8 * out), foot, 0.09, 0.05, person.legs))
            continue
        knee: Point = (0.5 * reach + 0.07, 0.47, out)
        legs.append(((0.0, 0.9, 0.8 * out), knee, 0.095, 0.07, person.legs))
        legs.append((knee, foot, 0.07, 0.05, person.legs))
        legs.append(((reach - 0.07, 0.04, out), (reach + 0.17, 0.04, out), 0.05, 0.04, SHOE))
        arms.append(((0.0, 1.42, 0.2 * sign), (-0.7 * reach, 0.85, 0.25 * sign), 0.065, 0.045, person.coat))
    return [*legs, torso] if rough else [arms[0], *legs, torso, arms[1]]


def _rider(person: Person, near: int, rough: bool) -> list[Rod]:
    """A cyclist's limbs and the bicycle's frame; the last one is the near arm."""
    turn = 2 * np.pi * TURNS_PER_S * person.phase_s
    torso: Rod = ((-0.22, 0.92, 0.0), (0.12, 1.47, 0.0), 0.16, 0.19, person.coat)
    rods: list[Rod] = []
    arms: list[Rod] = []
    for sign in (-near, near):
        if sign == near and not rough:
            rods.extend(_frame(person))
        foot: Point = (-0.05 + 0.17 * np.cos(turn) * sign, 0.3 + 0.17 * np.sin(turn) * sign, 0.1 * sign)
        knee: Point = (0.22, 0.55 + 0.5 * foot[1], 0.1 * sign)
        rods.append(((-0.2, 0.95, 0.09 * sign), knee, 0.09, 0.07, person.legs))
        rods.append((knee, foot, 0.07, 0.05, person.legs))
        arms.append(((0.12, 1.4, 0.17 * sign), (0.42, 1.0, 0.22 * sign), 0.06, 0.045, person.coat))
    return [arms[0], *rods, torso, arms[1]]


def _frame(person: Person) -> list[Rod]:
    """The tubes of the bicycle, in some colour of its rider's."""
    joints: dict[str, Point] = {
        "hub": (-0.52, 0.34, 0.0),
        "seat": (-0.22, 0.9, 0.0),
        "crank": (-0.05, 0.3, 0.0),
        "head": (0.38, 0.85, 0.0),
        "bar": (0.4, 1.0, 0.0),
        "fork": (0.52, 0.34, 0.0),
    }
    tubes = (("hub", "seat"), ("hub", "crank"), ("seat", "crank"), ("seat", "head"), ("crank", "head"))
    colour = person.skin if person.legs[0] % 2 else person.coat
    frame: list[Rod] = [(joints[a], joints[b], 0.025, 0.025, colour) for a, b in tubes]
    bar_left, bar_right = (0.4, 1.0, -0.27), (0.4, 1.0, 0.27)
    return [
        *frame,
        (joints["bar"], joints["fork"], 0.025, 0.025, colour),
        (bar_left, bar_right, 0.02, 0.02, TYRE),
    ]


def _wheels(canvas: Canvas, view: View, axes: NDArray, origin: NDArray, z: float) -> None:
    """Both wheels as rings, as wide as the tyre but at least one pixel."""
    thick = max(1, round(0.05 * view.focal_px / z))
    for hub in (-0.52, 0.52):
        ring = np.stack([hub + 0.34 * np.cos(CIRCLE), 0.35 + 0.34 * np.sin(CIRCLE), 0 * CIRCLE], 1)
        canvas.ring(view.project(ring @ axes + origin), thick, TYRE, Label.BICYCLIST, z)
