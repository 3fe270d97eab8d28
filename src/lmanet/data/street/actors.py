"""Drawing everything that stands or walks, apart from cars: walls, trees, posts, people."""

from __future__ import annotations

import numpy as np

from lmanet.data.street.canvas import Canvas
from lmanet.data.street.look import Colour, Look
from lmanet.data.street.view import NEAR_M, View, clipped
from lmanet.data.street.world import Block, Patch, Person, Post, Tree, World

BUILDING, POLE, TREE, SIGN, PEDESTRIAN, BICYCLIST = 1, 2, 5, 6, 9, 10
ROUND = np.linspace(0, 2 * np.pi, 12, endpoint=False)


def draw_block(canvas: Canvas, view: View, block: Block) -> None:
    """Draw a wall: its end towards the camera, its roof or top, its front."""
    corners = {
        (s, out): view.locate(s, block.d + out * block.depth_m)
        for s in (block.s0, block.s1)
        for out in (0, 1)
    }
    near, far = corners[block.s0, 0], corners[block.s1, 0]
    if max(z for _, z in corners.values()) < NEAR_M:
        return
    low, high = block.base_m, block.base_m + block.height_m
    right_hand = block.d > 0
    if block.roof is not None:
        top = high + block.roof_m
        ridge = [view.locate(s, block.d + block.depth_m / 2) for s in (block.s0, block.s1)]
        slope = [(near, high), (far, high), (ridge[1], top), (ridge[0], top)]
        _flat(canvas, view, slope, block.roof, block.label)
        gable = [(near, high), (ridge[0], top), (corners[block.s0, 1], high)]
        _flat(canvas, view, gable, block.roof, block.label, 0.85)
    elif block.depth_m and high < view.camera_m:
        lid = [(near, high), (far, high), (corners[block.s1, 1], high), (corners[block.s0, 1], high)]
        r, g, b = (int(c) for c in block.front[-1].reshape(-1, block.front[-1].shape[2]).mean(0)[:3])
        _flat(canvas, view, lid, (r, g, b), block.label)
    if block.depth_m:
        ends = (near, corners[block.s0, 1]) if right_hand else (corners[block.s0, 1], near)
        _standing(canvas, view, ends, low, high, block, flank=True)
    _standing(canvas, view, (far, near) if right_hand else (near, far), low, high, block, flank=False)


def _flat(
    canvas: Canvas,
    view: View,
    corners: list[tuple[tuple[float, float], float]],
    colour: Colour,
    label: int | None,
    shade: float = 1.0,
) -> None:
    points = clipped(np.array([(x, y, z) for (x, z), y in corners]))
    if len(points):
        r, g, b = (int(c * shade) for c in colour)
        canvas.polygon(view.project(points), (r, g, b), label, float(points[:, 2].mean()))


def _standing(
    canvas: Canvas,
    view: View,
    ends: tuple[tuple[float, float], tuple[float, float]],
    low: float,
    high: float,
    block: Block,
    *,
    flank: bool,
) -> None:
    """A textured quad over the ground line `ends` (left, right as its viewer sees them)."""
    left, right = np.array(ends[0]), np.array(ends[1])
    if max(left[1], right[1]) < NEAR_M or left[0] * right[1] >= right[0] * left[1]:
        return
    part = np.array([0.0, 1.0])
    if left[1] < NEAR_M:
        part[0] = (NEAR_M - left[1]) / (right[1] - left[1])
    if right[1] < NEAR_M:
        part[1] = (NEAR_M - left[1]) / (right[1] - left[1])
    a, b = left + (right - left) * part[0], left + (right - left) * part[1]
    points = np.array([[a[0], high, a[1]], [b[0], high, b[1]], [b[0], low, b[1]], [a[0], low, a[1]]])
    canvas.surface(
        view.project(points), part, block.flank if flank else block.front, block.label, (a[1], b[1])
    )


def draw_patch(canvas: Canvas, view: View, patch: Patch) -> None:
    """Draw a flat piece of ground, cut into strips so that it follows the road."""
    steps = np.linspace(patch.d0, patch.d1, 2 if patch.label is None else 9)
    near = [view.locate(patch.s0, d) for d in steps]
    far = [view.locate(patch.s1, d) for d in steps]
    outline = [(p, 0.0) for p in near] + [(p, 0.0) for p in reversed(far)]
    _flat(canvas, view, outline, patch.colour, patch.label)


def draw_tree(canvas: Canvas, view: View, tree: Tree, world: World) -> None:
    """Draw a tree: shadow, trunk, crown."""
    x, z = view.locate(tree.s, tree.d)
    if z < 1.5 or not view.sees(x, z, tree.crown_m):
        return
    disc = np.stack(
        [x + 0.45 * tree.crown_m * np.cos(ROUND), 0 * ROUND, z + 0.45 * tree.crown_m * np.sin(ROUND)], 1
    )
    shade = clipped(disc)
    if len(shade) and z < 40:
        canvas.shadow(view.project(shade), 0.15 + 0.3 * world.look.sun)
    bottom = tree.height_m - tree.crown_m
    radius = 0.025 * tree.height_m
    _limb(
        canvas,
        view,
        (x, 0.0, z),
        (x, bottom + 0.35 * tree.crown_m, z),
        radius,
        0.7 * radius,
        tree.trunk,
        TREE,
    )
    corner = view.project(np.array([[x - tree.crown_m / 2, tree.height_m, z]]))[0]
    size = view.focal_px * tree.crown_m / z
    canvas.sprite(corner, size, world.crowns[tree.crown], TREE, z, tree.mirrored)


def _limb(
    canvas: Canvas,
    view: View,
    a: tuple[float, float, float],
    b: tuple[float, float, float],
    radius_a: float,
    radius_b: float,
    colour: Colour,
    label: int,
) -> None:
    """A rod between two camera-space points, seen as a flat band; at least 1.2 pixels wide."""
    if min(a[2], b[2]) < NEAR_M:
        return
    p, q = view.project(np.array([a, b]))
    along = q - p
    length = float(np.hypot(*along))
    side = np.array([-along[1], along[0]]) / length if length > 1e-6 else np.array([1.0, 0.0])
    wide_a = max(radius_a * view.focal_px / a[2], 0.6) * side
    wide_b = max(radius_b * view.focal_px / b[2], 0.6) * side
    canvas.polygon(np.array([p - wide_a, p + wide_a, q + wide_b, q - wide_b]), colour, label, a[2])


def _disc(
    canvas: Canvas, view: View, centre: tuple[float, float, float], radius: float, colour: Colour, label: int
) -> None:
    p = view.project(np.array([centre]))[0]
    r = max(radius * view.focal_px / centre[2], 0.6)
    canvas.polygon(p + r * np.stack([np.cos(ROUND), np.sin(ROUND)], 1), colour, label, centre[2])


def draw_post(canvas: Canvas, view: View, post: Post, look: Look) -> None:
    """Draw a lamp post, a sign on its pole, or a traffic light."""
    x, z = view.locate(post.s, post.d)
    if z < 1.0 or not view.sees(x, z, 3.0):
        return
    top = post.height_m
    _limb(canvas, view, (x, 0.0, z), (x, top, z), post.radius_m, 0.7 * post.radius_m, post.colour, POLE)
    half = post.plate_m / 2
    if post.plate == "lamp":
        end = x + post.arm_m
        _limb(canvas, view, (x, top, z), (end, top + 0.25, z), 0.05, 0.05, post.colour, POLE)
        _limb(canvas, view, (end, top + 0.2, z), (end + 0.4 * np.sign(post.arm_m), top + 0.2, z), 0.09, 0.09,
              post.plate_colour, POLE)  # fmt: skip
        return
    y = top - half
    if post.plate == "disc":
        _disc(canvas, view, (x, y, z), half, post.plate_colour, SIGN)
        _disc(canvas, view, (x, y, z - 0.01), 0.7 * half, look.lit((225, 225, 220)), SIGN)
        return
    shapes: dict[str, list[tuple[float, float]]] = {
        "triangle": [(-half, -half), (half, -half), (0, half)],
        "board": [(-half, -0.7 * half), (half, -0.7 * half), (half, 0.7 * half), (-half, 0.7 * half)],
        "light": [(-0.18, -0.55), (0.18, -0.55), (0.18, 0.45), (-0.18, 0.45)],
    }
    outline = np.array([(x + dx, y + dy, z) for dx, dy in shapes[post.plate]])
    colour = (30, 32, 30) if post.plate == "light" else post.plate_colour
    canvas.polygon(view.project(outline), colour, SIGN, z)
    if post.plate == "light":
        lamp = int(post.s) % 2
        _disc(canvas, view, (x, y + (0.27 if lamp else -0.35), z), 0.11,
              (240, 60, 40) if lamp else (60, 230, 120), SIGN)  # fmt: skip
    else:
        middle = outline.mean(0)
        canvas.polygon(view.project(middle + 0.62 * (outline - middle)), look.lit((215, 215, 210)), SIGN, z)


def draw_person(canvas: Canvas, view: View, person: Person) -> None:
    """Draw a walker in mid step, or a cyclist on the bicycle."""
    x, z = view.locate(person.s, person.d)
    if z < 1.8 or not view.sees(x, z, 1.5):
        return
    angle = view.bend(person.s)
    forward = person.along * np.array([np.sin(angle), np.cos(angle)])
    forward += person.across * np.array([np.cos(angle), -np.sin(angle)])
    size = person.height_m / 1.75

    def at(ahead: float, up: float, out: float = 0.0) -> tuple[float, float, float]:
        return (
            x + size * (ahead * forward[0] + out * forward[1]),
            size * up,
            z + size * (ahead * forward[1] - out * forward[0]),
        )

    shade = np.array([at(0.35, 0, 0.25), at(0.35, 0, -0.25), at(-0.35, 0, -0.25), at(-0.35, 0, 0.25)])
    canvas.shadow(view.project(shade), 0.4)
    if person.cycling:
        _cyclist(canvas, view, person, at)
        return
    swing = np.sin(2 * np.pi * 0.95 * person.phase)

    def limb(a, b, ra, rb, colour) -> None:  # noqa: ANN001
        _limb(canvas, view, a, b, ra * size, rb * size, colour, PEDESTRIAN)

    for sign in (-1, 1):
        reach = 0.36 * swing * sign
        knee = at(0.5 * reach + 0.07, 0.47, 0.09 * sign)
        limb(at(0, 0.9, 0.08 * sign), knee, 0.09, 0.07, person.legs)
        limb(knee, at(reach, 0.05, 0.09 * sign), 0.07, 0.05, person.legs)
        limb(
            at(reach - 0.06, 0.04, 0.09 * sign), at(reach + 0.17, 0.04, 0.09 * sign), 0.05, 0.04, (25, 22, 20)
        )
        limb(at(0, 1.4, 0.2 * sign), at(-0.7 * reach, 0.85, 0.24 * sign), 0.06, 0.045, person.coat)
    limb(at(0, 0.82), at(0, 1.45), 0.17, 0.2, person.coat)
    _disc(canvas, view, at(0, 1.62), 0.115 * size, person.skin, PEDESTRIAN)
    limb(at(-0.02, 1.63), at(-0.02, 1.75), 0.115, 0.07, person.legs)


def _cyclist(canvas: Canvas, view: View, person: Person, at) -> None:  # noqa: ANN001
    def limb(a, b, ra, rb, colour) -> None:  # noqa: ANN001
        _limb(canvas, view, a, b, ra, rb, colour, BICYCLIST)

    frame = person.skin if person.legs[0] % 2 else (40, 40, 45)
    for hub in (-0.52, 0.52):
        ring = [at(hub + 0.34 * np.cos(a), 0.34 + 0.34 * np.sin(a)) for a in ROUND]
        for a, b in zip(ring, ring[1:] + ring[:1], strict=True):
            limb(a, b, 0.025, 0.025, (22, 22, 24))
    joints = {
        "hub": (-0.52, 0.34),
        "seat": (-0.22, 0.9),
        "pedal": (-0.05, 0.3),
        "head": (0.38, 0.85),
        "fork": (0.52, 0.34),
    }
    for a, b in (
        ("hub", "seat"),
        ("hub", "pedal"),
        ("seat", "pedal"),
        ("seat", "head"),
        ("pedal", "head"),
        ("head", "fork"),
    ):
        limb(at(*joints[a]), at(*joints[b]), 0.025, 0.025, frame)
    turn = 2 * np.pi * 1.1 * person.phase
    for sign in (-1, 1):
        foot = (-0.05 + 0.17 * np.cos(turn) * sign, 0.3 + 0.17 * np.sin(turn) * sign)
        knee = (0.22, 0.55 + 0.5 * foot[1])
        limb(at(-0.2, 0.95, 0.09 * sign), at(*knee, 0.1 * sign), 0.09, 0.07, person.legs)
        limb(at(*knee, 0.1 * sign), at(*foot, 0.1 * sign), 0.07, 0.05, person.legs)
        limb(at(0.12, 1.38, 0.17 * sign), at(0.42, 1.0, 0.22 * sign), 0.055, 0.045, person.coat)
    limb(at(-0.22, 0.92), at(0.12, 1.45), 0.16, 0.19, person.coat)
    _disc(canvas, view, at(0.2, 1.62), 0.12, person.skin, BICYCLIST)
    limb(at(0.17, 1.65), at(0.17, 1.76), 0.13, 0.08, person.coat)
