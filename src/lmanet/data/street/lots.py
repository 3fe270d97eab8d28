"""Building a stretch of street: plots with houses and gardens, the kerb, junctions, those who cross."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmanet.data.street.look import Look, hsv, thing_colour
from lmanet.data.street.textures import Image, facade, fence, leaves, pyramid
from lmanet.data.street.things import Block, Car, CarStyle, Label, Patch, Person, Plate, Post, Thing, Tree

STRETCH_M = 40.0
SIDE_STREET_M = 6.0
JUNCTION_M = 9.0
CROWNS = 4

Rng = np.random.Generator


@dataclass(frozen=True)
class Crosser:
    """Somebody who crosses the street, over and over, with long rests out of sight.

    Attributes:
        person: the person, at any place across.
        speed_mps: to the right, or negative to the left.
        offset_m: where it is at time 0.
    """

    person: Person
    speed_mps: float
    offset_m: float


@dataclass(frozen=True)
class Stretch:
    """The standing things of one stretch of street, its ground patches, and those who cross it."""

    things: tuple[Thing, ...]
    patches: tuple[Patch, ...]
    crossers: tuple[Crosser, ...]


def make_stretch(rng: Rng, look: Look, start: float) -> Stretch:
    """Furnish the street from `start` to `start` + 40 m."""
    things: list[Thing] = []
    junction = rng.random() < 0.3
    first, end = start + (JUNCTION_M if junction else 0.0), start + STRETCH_M
    for side in (-1, 1):
        s = first
        while s < end - 3:
            length = min(float(rng.uniform(7, 16)), end - s)
            things.extend(_plot(rng, look, side, s, s + length))
            s += length
        things.extend(_kerb(rng, look, side, first, end))
    crossers = []
    for _ in range(int(rng.integers(0, 4))):
        way, cycling = (1 if rng.random() < 0.5 else -1), bool(rng.random() < 0.3)
        person = make_person(rng, look, start + rng.uniform(0, STRETCH_M), 0.0, across=way, cycling=cycling)
        crossers.append(Crosser(person, way * (3.0 if cycling else 1.3), rng.uniform(0, 40)))
    return Stretch(tuple(things), tuple(_patches(rng, look, start, junction)), tuple(crossers))


def make_car(rng: Rng, look: Look, s: float, d: float, heading: int) -> Car:
    """A car of random make and paint."""
    styles: tuple[CarStyle, ...] = ("hatch", "saloon", "van", "truck")
    style = styles[int(rng.choice(4, p=(0.48, 0.34, 0.14, 0.04)))]
    return Car(s, d, heading, style, look.lit(thing_colour(rng)), rng.uniform(0.93, 1.07))


def make_person(
    rng: Rng,
    look: Look,
    s: float,
    d: float,
    *,
    along: int = 0,
    across: int = 0,
    cycling: bool,
    time_s: float = 0.0,
) -> Person:
    """A person of random size and clothes, `time_s` into the walk."""
    return Person(
        s,
        d,
        along,
        across,
        phase_s=rng.uniform(0, 6) + time_s,
        height_m=rng.uniform(1.5, 1.9),
        coat=look.lit(thing_colour(rng)),
        legs=look.lit(hsv(0.6, rng.uniform(0, 0.5), rng.uniform(0.1, 0.5))),
        skin=look.lit(hsv(0.06, rng.uniform(0.3, 0.55), rng.uniform(0.35, 0.9))),
        cycling=cycling,
    )


def _patches(rng: Rng, look: Look, start: float, junction: bool) -> list[Patch]:
    """The side street of a junction, and zebra crossings."""
    patches = []
    if junction:
        edge = look.road_half_m - 0.05
        for d0, d1 in ((-60.0, -edge), (edge, 60.0)):
            colour = look.lit(look.asphalt, 0.97)
            patches.append(Patch(start + 1.5, start + 1.5 + SIDE_STREET_M, d0, d1, colour, Label.ROAD))
    if junction or rng.random() < 0.2:
        s = start + (JUNCTION_M if junction else STRETCH_M / 2)
        paint = look.lit((205, 205, 200))
        for d in np.arange(-look.road_half_m + 0.4, look.road_half_m - 0.5, 1.0):
            patches.append(Patch(s, s + 2.6, float(d), float(d) + 0.5, paint, None))
    return patches


def _plot(rng: Rng, look: Look, side: int, s0: float, s1: float) -> list[Thing]:
    """One plot behind the pavement: a building, or a garden of trees; often fenced or hedged."""
    things: list[Thing] = []
    setback = 0.0 if rng.random() < 0.5 else float(rng.uniform(1.5, 4.0))
    d = side * look.plot_m
    if rng.random() < look.houses:
        things.append(_house(rng, look, side, s0, s1, d + side * setback))
    else:
        setback = max(setback, 2.5)
        for _ in range(int(rng.integers(3, 6))):
            things.append(_tree(rng, look, rng.uniform(s0, s1), d + side * rng.uniform(2.5, 9), 1.3))
    if setback >= 1.5:
        things.append(_border(rng, look, side, s0, s1, d))
        if rng.random() < 0.6:
            things.append(_tree(rng, look, rng.uniform(s0, s1), d + side * setback * 0.5, 0.9))
    return things


def _house(rng: Rng, look: Look, side: int, s0: float, s1: float, d: float) -> Block:
    height = float(rng.uniform(6.5, 16))
    shade = 1.0 + 0.25 * look.sun * float(np.cos(look.sun_angle + side * np.pi / 2))
    front = pyramid(facade(rng, look, s1 - s0, height, shade))
    flank = pyramid(facade(rng, look, 8.0, height, shade * 0.78))
    house = Block(s0, s1, d, height, 9.0 * side, front, flank, Label.BUILDING)
    if rng.random() < 0.6:
        tiles = hsv(rng.uniform(0, 0.08), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.5))
        house = replace(house, roof=look.lit(tiles), roof_m=float(rng.uniform(1.5, 3)))
    return house


def _border(rng: Rng, look: Look, side: int, s0: float, s1: float, d: float) -> Block:
    """The fence or hedge between a plot and the pavement."""
    height = float(rng.uniform(0.9, 1.7))
    if rng.random() < 0.6:
        sheet = pyramid(fence(rng, look, s1 - s0, height))
        return Block(s0, s1, d + side * 0.1, height, 0.0, sheet, sheet, Label.FENCE)
    front = leaves(rng, look, int(height * 24), int((s1 - s0) * 24))
    flank: Image = front[:, :20] // 2
    return Block(s0, s1, d + side * 0.2, height, 0.8 * side, pyramid(front), pyramid(flank), Label.TREE)


def _tree(rng: Rng, look: Look, s: float, d: float, scale: float) -> Tree:
    height = scale * float(rng.uniform(4.5, 9))
    trunk = look.lit(hsv(rng.uniform(0.05, 0.12), rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.4)))
    crown_m = height * float(rng.uniform(0.6, 0.85))
    return Tree(s, d, height, crown_m, int(rng.integers(CROWNS)), bool(rng.random() < 0.5), trunk)


def _kerb(rng: Rng, look: Look, side: int, s0: float, s1: float) -> list[Thing]:
    """What stands at the kerb: lamps, signs, lights, street trees, parked cars."""
    things: list[Thing] = []
    kerb = side * (look.road_half_m + 0.45)
    metal = look.lit(hsv(0.3, rng.uniform(0, 0.25), rng.uniform(0.2, 0.6)))
    for s in (s0 + 4.0, s0 + 24.0):
        if rng.random() < 0.75:
            height, reach = float(rng.uniform(5, 8)), -side * float(rng.uniform(0.8, 2.0))
            things.append(Post(s, kerb, height, 0.08, metal, "lamp", (235, 235, 225), reach))
    plates: tuple[Plate, ...] = ("disc", "triangle", "board", "light")
    for _ in range(int(rng.integers(1, 5))):
        plate = plates[int(rng.choice(4, p=(0.3, 0.2, 0.35, 0.15)))]
        colour = look.lit((190, 40, 40) if rng.random() < 0.4 else thing_colour(rng))
        s, height, size = rng.uniform(s0, s1), rng.uniform(2.4, 3.2), rng.uniform(0.65, 1.15)
        things.append(Post(s, kerb, height, 0.045, metal, plate, colour, size))
    for _ in range(int(rng.poisson(look.trees * STRETCH_M))):
        things.append(_tree(rng, look, rng.uniform(s0, s1), kerb + side * 0.4, 0.95))
    for s in np.arange(s0 + 3, s1 - 2, 6.2):
        if rng.random() < look.parked:
            d = side * (look.road_half_m - look.parking_m / 2 + rng.normal(0, 0.08))
            things.append(make_car(rng, look, float(s + rng.normal(0, 0.3)), d, side * look.side))
    return things
