"""The look of one sequence: light, palette and the widths of the street, all drawn from its seed."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]
"""RGB, each channel 0 to 255."""


@dataclass(frozen=True)
class Look:
    """What stays the same through one sequence.

    Attributes:
        light: overall brightness of every surface, 1 is full daylight.
        sun_angle: direction of the sun around the vertical, radians, 0 is the road's first heading.
        sun: how much faces turned to the sun stand out, 0 (overcast) to 1.
        tint: factor per channel of the light, near 1.
        sky_top: sky colour overhead.
        sky_low: sky colour at the horizon.
        clouds: share of the sky that clouds take, 0 to 1.
        asphalt: the road's colour.
        paving: the pavements' colour.
        ground: the colour of yards and lawns beyond the pavements.
        leaf_hue: mean hue of the leaves, 0 to 1 (0.28 is green, 0.08 autumn brown).
        leaf_value: mean brightness of the leaves, 0 to 1.
        lane_m: width of one lane.
        parking_m: width of the parking strip on each side.
        paving_m: width of the pavement on each side.
        side: +1 where traffic keeps to the right, -1 to the left.
        trees: trees per metre of kerb.
        houses: share of the plots that hold a building.
        parked: share of the parking places that are taken.
        traffic: share of the places in moving traffic that hold a car.
        people: share of the walkers' places that hold one.
    """

    light: float
    sun_angle: float
    sun: float
    tint: tuple[float, float, float]
    sky_top: Colour
    sky_low: Colour
    clouds: float
    asphalt: Colour
    paving: Colour
    ground: Colour
    leaf_hue: float
    leaf_value: float
    lane_m: float
    parking_m: float
    paving_m: float
    side: int
    trees: float
    houses: float
    parked: float
    traffic: float
    people: float

    @property
    def road_half_m(self) -> float:
        """Half the width of the carriageway, parking strips included."""
        return self.lane_m + self.parking_m

    @property
    def plot_m(self) -> float:
        """Distance from the road's middle to where the plots begin, behind the pavement."""
        return self.road_half_m + self.paving_m

    def lit(self, colour: Colour, shade: float = 1.0) -> Colour:
        """`colour` under this sequence's light, times `shade`."""
        k = self.light * shade
        r, g, b = (min(255, int(c * k * t)) for c, t in zip(colour, self.tint, strict=True))
        return r, g, b


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB colour of `hue` (wraps), `saturation` and `value` (both clipped to 0..1)."""
    clip = (min(1.0, max(0.0, x)) for x in (saturation, value))
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, *clip)
    return int(255 * r), int(255 * g), int(255 * b)


def wall_colour(rng: np.random.Generator) -> Colour:
    """A building's or fence's colour: plaster, brick, or a grey that road and pavement have as well."""
    kind = rng.random()
    if kind < 0.35:
        return hsv(rng.uniform(0.5, 0.7), rng.uniform(0, 0.12), rng.uniform(0.3, 0.8))
    if kind < 0.65:
        return hsv(rng.uniform(0.0, 0.07), rng.uniform(0.25, 0.6), rng.uniform(0.3, 0.65))
    if kind < 0.92:
        return hsv(rng.uniform(0.07, 0.15), rng.uniform(0.1, 0.45), rng.uniform(0.45, 0.9))
    return hsv(rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.4), rng.uniform(0.35, 0.7))


def thing_colour(rng: np.random.Generator) -> Colour:
    """The colour of a car, a coat or a sign: anything, greys and blacks most often."""
    if rng.random() < 0.5:
        return hsv(0.6, rng.uniform(0, 0.1), rng.uniform(0.08, 0.95))
    return hsv(rng.random(), rng.uniform(0.2, 0.85), rng.uniform(0.2, 0.85))


def draw_look(rng: np.random.Generator) -> Look:
    """Draw one sequence's look."""
    overcast = rng.random() < 0.5
    dusk = rng.random() < 0.2
    warm = rng.uniform(-0.08, 0.1) + (0.06 if dusk else 0)
    sky_value = rng.uniform(0.75, 0.95) * (0.65 if dusk else 1)
    sky_hue = rng.uniform(0.55, 0.62)
    grey = rng.uniform(0.27, 0.5)
    autumn = rng.random() < 0.3
    return Look(
        light=rng.uniform(0.5, 0.75) if dusk else rng.uniform(0.8, 1.1),
        sun_angle=rng.uniform(-np.pi, np.pi),
        sun=rng.uniform(0, 0.25) if overcast else rng.uniform(0.5, 1),
        tint=(1 + warm, 1.0, 1 - warm),
        sky_top=hsv(sky_hue, rng.uniform(0, 0.15) if overcast else rng.uniform(0.3, 0.65), sky_value * 0.9),
        sky_low=hsv(0.09 if dusk else sky_hue, rng.uniform(0.0, 0.2), sky_value * 1.08),
        clouds=rng.uniform(0.5, 1) if overcast else rng.uniform(0, 0.6),
        asphalt=hsv(rng.uniform(0, 1), rng.uniform(0, 0.08), grey),
        paving=hsv(rng.uniform(0.03, 0.15), rng.uniform(0, 0.18), grey + rng.uniform(0.0, 0.25)),
        ground=hsv(rng.uniform(0.15, 0.3), rng.uniform(0.15, 0.45), rng.uniform(0.3, 0.5)),
        leaf_hue=rng.uniform(0.06, 0.12) if autumn else rng.uniform(0.2, 0.34),
        leaf_value=rng.uniform(0.2, 0.42),
        lane_m=rng.uniform(2.7, 3.2),
        parking_m=rng.uniform(1.7, 2.0),
        paving_m=rng.uniform(2.8, 4.4),
        side=1 if rng.random() < 0.5 else -1,
        trees=rng.uniform(0.06, 0.2),
        houses=rng.uniform(0.75, 0.97),
        parked=rng.uniform(0.05, 0.4),
        traffic=rng.uniform(0.3, 0.85),
        people=rng.uniform(0.4, 0.9),
    )
