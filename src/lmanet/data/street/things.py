"""The things of a street as plain values.

Places are in road coordinates: `s` metres along the road's middle, `d` metres to its right; heights are above
the ground. Colours are RGB under the sequence's light. Class ids are those of
`lmanet.data.camvid.CAMVID_CLASSES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from lmanet.data.street.look import Colour
from lmanet.data.street.textures import Pyramid

CarStyle = Literal["hatch", "saloon", "van", "truck"]
Plate = Literal["lamp", "disc", "triangle", "board", "light"]


class Label(IntEnum):
    """The class ids, by name."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10


@dataclass(frozen=True)
class Block:
    """A wall along the road with a body behind it: a building, a hedge, a fence.

    Attributes:
        s0: where it begins, the end towards the camera.
        s1: where it ends.
        d: its front's distance from the road's middle.
        height_m: height of the front.
        depth_m: how far the body goes, with the sign of `d`; 0 for a mere sheet.
        front: the front's texture.
        flank: the ends' texture.
        roof: the roof's colour; None for a flat one.
        roof_m: height of the ridge above the front.
        label: class id.
    """

    s0: float
    s1: float
    d: float
    height_m: float
    depth_m: float
    front: Pyramid
    flank: Pyramid
    label: Label
    roof: Colour | None = None
    roof_m: float = 0.0


@dataclass(frozen=True)
class Tree:
    """A trunk and a crown, which always shows the camera its front.

    Attributes:
        s: place along the road.
        d: place across it.
        height_m: height of the top.
        crown_m: width and height of the crown.
        crown: which of the world's crowns it bears.
        mirrored: whether left and right of the crown are swapped.
        trunk: the trunk's colour.
    """

    s: float
    d: float
    height_m: float
    crown_m: float
    crown: int
    mirrored: bool
    trunk: Colour


@dataclass(frozen=True)
class Post:
    """A pole with a lamp, a sign or a traffic light.

    Attributes:
        s: place along the road.
        d: place across it.
        height_m: height of the pole.
        radius_m: radius of the pole at its foot.
        colour: the pole's colour.
        plate: what it bears.
        plate_colour: the colour of the sign's rim or the lamp.
        plate_m: size of the sign; for a lamp, how far its arm reaches to the right (negative: to the left).
    """

    s: float
    d: float
    height_m: float
    radius_m: float
    colour: Colour
    plate: Plate
    plate_colour: Colour
    plate_m: float


@dataclass(frozen=True)
class Car:
    """A car, van or truck.

    Attributes:
        s: place of its middle along the road.
        d: place across it.
        heading: +1 along the road, -1 against it.
        style: which body.
        colour: its paint.
        scale: factor on the body's size.
    """

    s: float
    d: float
    heading: int
    style: CarStyle
    colour: Colour
    scale: float


@dataclass(frozen=True)
class Person:
    """A walker or a cyclist.

    Attributes:
        s: place along the road.
        d: place across it.
        along: +1 or -1 if it goes along the road or against it, else 0.
        across: +1 or -1 if it crosses to the right or to the left, else 0.
        phase_s: time within its gait.
        height_m: body height.
        coat: colour of the upper body.
        legs: colour of the trousers and the hair.
        skin: colour of the face.
        cycling: whether it rides a bicycle.
    """

    s: float
    d: float
    along: int
    across: int
    phase_s: float
    height_m: float
    coat: Colour
    legs: Colour
    skin: Colour
    cycling: bool


@dataclass(frozen=True)
class Patch:
    """A flat piece of ground: a side street, or a bar of a crossing.

    Attributes:
        s0: where it begins along the road.
        s1: where it ends.
        d0: its left edge.
        d1: its right edge.
        colour: its colour.
        label: class id, or None where only the image changes.
    """

    s0: float
    s1: float
    d0: float
    d1: float
    colour: Colour
    label: Label | None


Thing = Block | Tree | Post | Car | Person
