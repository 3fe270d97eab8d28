"""What stands along the street and how it moves.

Places are given in road coordinates: `s` metres along the road's middle, `d` metres to its right, height above
the ground. The street is endless: it is made stretch by stretch, each from the seed and its own number, so any
frame can be built without the ones before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmanet.data.street.look import Colour, Look, draw_look, hsv, thing_colour
from lmanet.data.street.textures import Image, Pyramid, crown, facade, fence, ground, leaves, pyramid, sky

STRETCH_M = 40.0
SEEN_M = 120.0

Car_STYLES = ("hatch", "saloon", "van", "truck")


@dataclass(frozen=True)
class Block:
    """A wall along the road from `s0` to `s1`, with a body behind it: building, hedge or fence.

    `front` is None for bodies of one plain colour; `flank` is the colour of the ends; `depth_m` 0 is a sheet.
    """

    s0: float
    s1: float
    d: float
    base_m: float
    height_m: float
    depth_m: float
    front: Pyramid
    flank: Pyramid
    roof: Colour | None
    roof_m: float
    label: int


@dataclass(frozen=True)
class Tree:
    """A trunk and a crown that always shows its front."""

    s: float
    d: float
    height_m: float
    crown_m: float
    crown: int
    mirrored: bool
    trunk: Colour


@dataclass(frozen=True)
class Post:
    """A pole; a lamp arm reaches `arm_m` sideways, a plate makes it a sign or a traffic light."""

    s: float
    d: float
    height_m: float
    radius_m: float
    colour: Colour
    arm_m: float
    plate: str
    plate_colour: Colour
    plate_m: float


@dataclass(frozen=True)
class Car:
    """A car, van or truck; `heading` is +1 along the road, -1 against it."""

    s: float
    d: float
    heading: float
    style: str
    colour: Colour
    scale: float


@dataclass(frozen=True)
class Person:
    """A walker or a cyclist; `along` and `across` are the direction it faces in road coordinates."""

    s: float
    d: float
    along: float
    across: float
    phase: float
    height_m: float
    coat: Colour
    legs: Colour
    skin: Colour
    cycling: bool


@dataclass(frozen=True)
class Patch:
    """A flat piece of ground: a side street or the bars of a crossing. `label` None leaves labels alone."""

    s0: float
    s1: float
    d0: float
    d1: float
    colour: Colour
    label: int | None


Thing = Block | Tree | Post | Car | Person


@dataclass(frozen=True)
class Stretch:
    """The standing things of 40 m of street, and the walkers who cross it."""

    things: tuple[Thing, ...]
    patches: tuple[Patch, ...]
    crossers: tuple[tuple[Person, float, float], ...]


class World:
    """One endless street, its traffic, and the drive through it; all of it follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = self._rng(0, 0)
        self.look: Look = draw_look(rng)
        self.ground: Pyramid = ground(rng, self.look)
        self.sky, self.sky_labels = sky(rng, self.look)
        self.crowns: tuple[Pyramid, ...] = tuple(pyramid(crown(rng, self.look)) for _ in range(4))
        self._bends = rng.uniform((0.1, 0.05), (0.4, 0.12)), rng.uniform(0, 2 * np.pi, 2)
        self._speed = rng.uniform(5, 11)
        self._pace = rng.uniform(0, 0.5), rng.uniform(0.3, 0.7), rng.uniform(0, 2 * np.pi)
        self._shake = rng.uniform(0, 2 * np.pi, 4)
        self._start = rng.uniform(0, 2000)
        self._leaders = rng.uniform(size=4)
        self._stretch = lru_cache(maxsize=16)(self._make_stretch)

    def _rng(self, kind: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, kind, number + 2**24])

    def heading(self, s: np.ndarray | float) -> np.ndarray:
        """The road's heading at `s`, radians to the right: two slow bends laid over each other."""
        (a, b), (p, q) = self._bends
        return a * np.sin(2 * np.pi * np.asarray(s) / 170 + p) + b * np.sin(
            2 * np.pi * np.asarray(s) / 61 + q
        )

    def camera_s(self, time_s: float) -> float:
        """How far the camera has come: a steady speed with slow swings."""
        swing, rate, phase = self._pace
        return self._start + self._speed * (time_s + swing / rate * float(np.sin(rate * time_s + phase)))

    def shake(self, time_s: float) -> tuple[float, float, float, float]:
        """Yaw and pitch off the road's direction (rad), lateral drift (m) and bob (m)."""
        a, b, c, d = self._shake
        yaw = 0.035 * np.sin(0.9 * time_s + a) + 0.004 * np.sin(7.3 * time_s + c)
        pitch = 0.006 * np.sin(1.3 * time_s + b) + 0.004 * np.sin(11 * time_s + d)
        return yaw, pitch, 0.25 * np.sin(0.6 * time_s + d), 0.02 * np.sin(11 * time_s + d + 1)

    def around(self, time_s: float, s: float) -> tuple[list[Thing], list[Patch]]:
        """All things and ground patches that may be seen from `s` at `time_s`."""
        things: list[Thing] = []
        patches: list[Patch] = []
        for number in range(int(np.floor((s - 10) / STRETCH_M)), int(np.floor((s + SEEN_M) / STRETCH_M)) + 1):
            stretch = self._stretch(number)
            things.extend(stretch.things)
            patches.extend(stretch.patches)
            for person, speed, offset in stretch.crossers:
                d = (offset + speed * time_s) % 40.0 - 20.0
                if abs(d) < self.look.plot_m:
                    things.append(_moved(person, person.s, d, person.phase + time_s))
        things.extend(self._traffic(time_s, s))
        return things, patches

    def _flow(self, kind: int, time_s: float, s: float, speed: float, gap: float) -> list[tuple]:
        """Places of an endless stream of movers: (s, its own generator) for each cell within sight."""
        first, last = s - 8 - speed * time_s, s + SEEN_M - speed * time_s
        cells = range(int(np.floor(first / gap)), int(np.floor(last / gap)) + 1)
        placed = []
        for cell in cells:
            rng = self._rng(kind, cell)
            placed.append(((cell + rng.uniform(0.1, 0.6)) * gap + speed * time_s, rng))
        return placed

    def _traffic(self, time_s: float, s: float) -> list[Thing]:
        look, things = self.look, []
        lane = look.side * look.lane_m / 2
        for place, rng in self._flow(10, time_s, s, -self._speed * 0.9, 19.0):
            if rng.random() < look.traffic:
                things.append(_car(rng, place, -lane + rng.normal(0, 0.15), -1.0, look))
        gap = 9.0
        for number, chance in enumerate(self._leaders):
            gap += 7 + 16 * chance
            if chance < look.traffic:
                sway = 3.0 * np.sin(0.4 * time_s + 6.28 * chance)
                rng = self._rng(11, number)
                things.append(_car(rng, s + gap + sway, lane + 0.2 * np.sin(time_s + number), 1.0, look))
        edge = look.side * (look.lane_m - 0.15)
        for side, kind, speed in ((1, 12, 3.4), (-1, 13, -4.2)):
            for place, rng in self._flow(kind, time_s, s, speed, 26.0):
                if rng.random() < 0.75 * look.people + 0.1:
                    d = side * (edge + rng.normal(0, 0.15))
                    things.append(_person(rng, place, d, float(np.sign(speed)), 0.0, time_s, look, True))
        for kind, speed in ((14, 1.3), (15, -1.4), (16, 1.1), (17, -1.2)):
            side = 1 if kind < 16 else -1
            for place, rng in self._flow(kind, time_s, s, speed, 14.0):
                if rng.random() < look.people:
                    d = side * rng.uniform(look.road_half_m + 0.5, look.plot_m - 0.2)
                    things.append(_person(rng, place, d, float(np.sign(speed)), 0.0, time_s, look, False))
        return things

    def _make_stretch(self, number: int) -> Stretch:
        rng, look = self._rng(1, number), self.look
        start = number * STRETCH_M
        things: list[Thing] = []
        patches: list[Patch] = []
        junction = rng.random() < 0.3
        for side in (-1, 1):
            begin = start + (9.0 if junction else 0.0)
            while begin < start + STRETCH_M - 3:
                length = min(rng.uniform(6, 15), start + STRETCH_M - begin)
                things.extend(_plot(rng, look, side, begin, begin + length))
                begin += length
            things.extend(_kerb(rng, look, side, start + (9.0 if junction else 0.0), start + STRETCH_M))
        if junction:
            patches.append(
                Patch(start + 1.5, start + 7.5, -60, -look.road_half_m, look.lit(look.asphalt, 0.97), 3)
            )
            patches.append(
                Patch(start + 1.5, start + 7.5, look.road_half_m, 60, look.lit(look.asphalt, 0.97), 3)
            )
        if junction or rng.random() < 0.2:
            at = start + (8.6 if junction else 20.0)
            for d in np.arange(-look.road_half_m + 0.4, look.road_half_m - 0.5, 1.0):
                patches.append(Patch(at, at + 2.6, d, d + 0.5, look.lit((205, 205, 200)), None))
        crossers = []
        for _ in range(int(rng.integers(0, 4))):
            direction = 1.0 if rng.random() < 0.5 else -1.0
            cycling = rng.random() < 0.3
            person = _person(rng, start + rng.uniform(0, STRETCH_M), 0, 0.0, direction, 0.0, look, cycling)
            crossers.append((person, direction * (3.0 if cycling else 1.3), rng.uniform(0, 40)))
        return Stretch(tuple(things), tuple(patches), tuple(crossers))


def _moved(person: Person, s: float, d: float, phase: float) -> Person:
    return Person(**{**vars(person), "s": s, "d": d, "phase": phase})


def _car(rng: np.random.Generator, s: float, d: float, heading: float, look: Look) -> Car:
    style = str(rng.choice(Car_STYLES, p=(0.45, 0.3, 0.17, 0.08)))
    return Car(s, d, heading, style, look.lit(thing_colour(rng)), float(rng.uniform(0.93, 1.07)))


def _person(
    rng: np.random.Generator,
    s: float,
    d: float,
    along: float,
    across: float,
    time_s: float,
    look: Look,
    cycling: bool,
) -> Person:
    skin = look.lit(hsv(0.06, rng.uniform(0.3, 0.55), rng.uniform(0.35, 0.9)))
    coat, legs = look.lit(thing_colour(rng)), look.lit(hsv(0.6, rng.uniform(0, 0.5), rng.uniform(0.1, 0.5)))
    phase = float(rng.uniform(0, 6)) + time_s
    return Person(s, d, along, across, phase, float(rng.uniform(1.5, 1.9)), coat, legs, skin, cycling)


def _block(
    s0: float, s1: float, d: float, height: float, depth: float, front: Image, flank: Image, label: int
) -> Block:
    return Block(s0, s1, d, 0.0, height, depth, pyramid(front), pyramid(flank), None, 0.0, label)


def _plot(rng: np.random.Generator, look: Look, side: int, s0: float, s1: float) -> list[Thing]:
    """One plot beside the pavement: a building, or a garden of trees and hedges; often fenced."""
    things: list[Thing] = []
    setback = 0.0 if rng.random() < 0.45 else float(rng.uniform(1.5, 4.0))
    length, d = s1 - s0, side * look.plot_m
    built = rng.random() < look.houses
    if built:
        height = float(rng.uniform(4.5, 13))
        shade = 1.0 + 0.25 * look.sun * float(np.cos(look.sun_angle - side * np.pi / 2))
        front = facade(rng, look, length, height, shade)
        flank = facade(rng, look, 8.0, height, shade * 0.75)
        house = _block(s0, s1, d + side * setback, height, 9.0 * side, front, flank, 1)
        if rng.random() < 0.6:
            tile = hsv(rng.uniform(0, 0.08), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.5))
            house = Block(**{**vars(house), "roof": look.lit(tile), "roof_m": float(rng.uniform(1.5, 3))})
        things.append(house)
    else:
        setback = max(setback, 2.5)
        for _ in range(int(rng.integers(2, 5))):
            things.append(_tree(rng, look, rng.uniform(s0, s1), d + side * rng.uniform(2.5, 9), 1.3))
    if setback >= 1.5:
        height = float(rng.uniform(0.9, 1.7))
        if rng.random() < 0.6:
            sheet = fence(rng, look, length, height)
            things.append(_block(s0, s1, d + side * 0.1, height, 0.0, sheet, sheet, 7))
        else:
            hedge = leaves(rng, look, int(height * 24), int(length * 24))
            things.append(_block(s0, s1, d + side * 0.2, height, 0.8 * side, hedge, hedge[:, :20] // 2, 5))
        if rng.random() < 0.5:
            things.append(_tree(rng, look, rng.uniform(s0, s1), d + side * setback * 0.5, 0.9))
    return things


def _tree(rng: np.random.Generator, look: Look, s: float, d: float, scale: float) -> Tree:
    height = scale * float(rng.uniform(4.5, 9))
    trunk = look.lit(hsv(rng.uniform(0.05, 0.12), rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.4)))
    crown_m = height * float(rng.uniform(0.6, 0.85))
    return Tree(float(s), float(d), height, crown_m, int(rng.integers(4)), rng.random() < 0.5, trunk)


def _kerb(rng: np.random.Generator, look: Look, side: int, s0: float, s1: float) -> list[Thing]:
    """What stands at the kerb: lamps, signs, lights, street trees, parked cars."""
    things: list[Thing] = []
    kerb = side * (look.road_half_m + 0.45)
    metal = look.lit(hsv(0.3, rng.uniform(0, 0.25), rng.uniform(0.2, 0.6)))
    for s in (s0 + 4.0, s0 + 24.0):
        if rng.random() < 0.85:
            reach = -side * float(rng.uniform(0.8, 2.0))
            things.append(
                Post(s, kerb, float(rng.uniform(5, 8)), 0.09, metal, reach, "lamp", (235, 235, 225), 0.5)
            )
    for _ in range(int(rng.integers(1, 4))):
        shape = str(rng.choice(("disc", "triangle", "board", "light"), p=(0.35, 0.2, 0.3, 0.15)))
        colour = look.lit((190, 40, 40) if rng.random() < 0.4 else thing_colour(rng))
        plate_m = float(rng.uniform(0.6, 1.0))
        place = float(rng.uniform(s0, s1))
        things.append(
            Post(place, kerb, float(rng.uniform(2.4, 3.2)), 0.045, metal, 0.0, shape, colour, plate_m)
        )
    for _ in range(int(rng.poisson(look.trees * STRETCH_M))):
        things.append(_tree(rng, look, rng.uniform(s0, s1), kerb + side * 0.4, 0.85))
    for s in np.arange(s0 + 3, s1 - 2, 6.2):
        if rng.random() < 0.45 * look.traffic + 0.1:
            offset = look.road_half_m - look.parking_m / 2 + rng.normal(0, 0.08)
            heading = float(side * look.side)
            things.append(_car(rng, float(s + rng.normal(0, 0.3)), side * offset, heading, look))
    return things
