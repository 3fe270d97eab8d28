"""Drawing what stands: walls with roofs, ground patches, trees, posts."""

from __future__ import annotations

import numpy as np

from lmanet.data.street.canvas import Canvas
from lmanet.data.street.look import Colour, Look
from lmanet.data.street.textures import Pyramid
from lmanet.data.street.things import Block, Label, Patch, Plate, Post, Tree
from lmanet.data.street.view import NEAR_M, Points, View, clipped

CIRCLE = np.linspace(0, 2 * np.pi, 14, endpoint=False)
DISC = np.stack([np.cos(CIRCLE), np.sin(CIRCLE)], 1)
LIGHT_HALF_M = np.array([0.18, 0.5])
OUTLINES: dict[Plate, np.ndarray] = {
    "disc": DISC,
    "triangle": np.array([[-1.0, -0.9], [1.0, -0.9], [0.0, 0.9]]),
    "board": np.array([[-1.0, -0.7], [1.0, -0.7], [1.0, 0.7], [-1.0, 0.7]]),
}
"""Signs about their middle, in half sizes."""
PATCH_STEPS = 9

Ground = tuple[float, float]
"""Camera x and z of a point on the ground."""


def draw_block(canvas: Canvas, view: View, block: Block) -> None:
    """Draw a wall: roof or top, the end towards the camera, the front."""
    near, far, near_back, far_back = (
        view.locate(s, d) for d in (block.d, block.d + block.depth_m) for s in (block.s0, block.s1)
    )
    if max(p[1] for p in (near, far, near_back, far_back)) < NEAR_M:
        return
    _draw_top(canvas, view, block, near, far)
    right_hand = block.d > 0
    if block.depth_m:
        ends = (near, near_back) if right_hand else (near_back, near)
        _draw_standing(canvas, view, ends, block.height_m, block.flank, block.label)
    ends = (far, near) if right_hand else (near, far)
    _draw_standing(canvas, view, ends, block.height_m, block.front, block.label)


def _draw_top(canvas: Canvas, view: View, block: Block, near: Ground, far: Ground) -> None:
    """A ridged roof, or the flat top of what is lower than the camera."""
    high = block.height_m
    if block.roof is not None:
        top, middle = high + block.roof_m, block.d + block.depth_m / 2
        ridge_near, ridge_far = (view.locate(s, middle) for s in (block.s0, block.s1))
        back = view.locate(block.s0, block.d + block.depth_m)
        slope = [(near, high), (far, high), (ridge_far, top), (ridge_near, top)]
        _draw_flat(canvas, view, slope, block.roof, block.label)
        r, g, b = (int(0.8 * c) for c in block.roof)
        _draw_flat(canvas, view, [(near, high), (ridge_near, top), (back, high)], (r, g, b), block.label)
    elif block.depth_m and high < view.camera_m:
        backs = (view.locate(s, block.d + block.depth_m) for s in (block.s1, block.s0))
        r, g, b = (int(c) for c in block.front[-1].mean((0, 1))[:3])
        lid = [(near, high), (far, high), *((back, high) for back in backs)]
        _draw_flat(canvas, view, lid, (r, g, b), block.label)


def _draw_flat(
    canvas: Canvas, view: View, corners: list[tuple[Ground, float]], colour: Colour, label: Label | None
) -> None:
    """Fill the polygon of `corners`, each a place on the ground and a height."""
    points = clipped(np.array([(x, y, z) for (x, z), y in corners]))
    if len(points):
        canvas.polygon(view.project(points), colour, label, float(points[:, 2].mean()))


def _draw_standing(
    canvas: Canvas, view: View, ends: tuple[Ground, Ground], high: float, texture: Pyramid, label: Label
) -> None:
    """Draw a textured wall over the ground line `ends`: left and right as one who faces the wall sees them."""
    left, right = np.array(ends[0]), np.array(ends[1])
    turned_away = left[0] * right[1] >= right[0] * left[1]
    if turned_away or max(left[1], right[1]) < NEAR_M:
        return
    shares = np.array([0.0, 1.0])
    cut = (NEAR_M - left[1]) / (right[1] - left[1]) if left[1] != right[1] else 0.0
    if left[1] < NEAR_M:
        shares[0] = cut
    if right[1] < NEAR_M:
        shares[1] = cut
    (ax, az), (bx, bz) = left + (right - left) * shares[0], left + (right - left) * shares[1]
    points = np.array([[ax, high, az], [bx, high, bz], [bx, 0, bz], [ax, 0, az]])
    canvas.surface(view.project(points), shares, texture, label, (az, bz))


def draw_patch(canvas: Canvas, view: View, patch: Patch) -> None:
    """Draw a flat piece of ground; a long one follows the road's bend in steps."""
    steps = np.linspace(patch.d0, patch.d1, 2 if patch.label is None else PATCH_STEPS)
    near = [view.locate(patch.s0, d) for d in steps]
    far = [view.locate(patch.s1, d) for d in steps]
    _draw_flat(canvas, view, [(p, 0.0) for p in near + far[::-1]], patch.colour, patch.label)


def draw_tree(canvas: Canvas, view: View, tree: Tree, crowns: tuple[Pyramid, ...], look: Look) -> None:
    """Draw a tree: shadow, trunk, crown."""
    x, z = view.locate(tree.s, tree.d)
    if z < 1.5 or not view.sees(x, z, tree.crown_m):
        return
    if z < 35:
        ground = np.stack(
            [x + 0.45 * tree.crown_m * DISC[:, 0], 0 * CIRCLE, z + 0.45 * tree.crown_m * DISC[:, 1]], 1
        )
        seen = clipped(ground)
        if len(seen):
            canvas.shadow(view.project(seen), 0.15 + 0.3 * look.sun)
    stem = tree.height_m - 0.65 * tree.crown_m
    radius = 0.025 * tree.height_m
    _draw_rod(
        canvas, view, np.array([[x, 0, z], [x, stem, z]]), (radius, 0.7 * radius), tree.trunk, Label.TREE
    )
    corner = view.project(np.array([[x - tree.crown_m / 2, tree.height_m, z]]))[0]
    size_px = view.focal_px * tree.crown_m / z
    canvas.sprite(corner, size_px, crowns[tree.crown], Label.TREE, z, tree.mirrored)


def _draw_rod(
    canvas: Canvas, view: View, ends: Points, radii: tuple[float, float], colour: Colour, label: Label
) -> None:
    """A straight rod between two points (2, 3), no thinner than 1.2 pixels."""
    a, b = view.project(ends)
    wide = np.maximum(np.array(radii) * view.focal_px / ends[:, 2], 0.6)
    canvas.rods(a[None], b[None], wide[:1], wide[1:], [colour], label, float(ends[0, 2]))


def draw_post(canvas: Canvas, view: View, post: Post, look: Look) -> None:
    """Draw a lamp post, a sign on its pole, or a traffic light."""
    x, z = view.locate(post.s, post.d)
    if z < 1.0 or not view.sees(x, z, 3.0):
        return
    pole = np.array([[x, 0, z], [x, post.height_m, z]])
    _draw_rod(canvas, view, pole, (post.radius_m, 0.7 * post.radius_m), post.colour, Label.POLE)
    if post.plate == "lamp":
        _draw_lamp(canvas, view, post, pole[1])
    elif post.plate == "light":
        _draw_light(canvas, view, post, pole[1], look)
    else:
        half = post.plate_m / 2
        outline = OUTLINES[post.plate] * half
        centre = np.array([x, post.height_m - half])
        for share, colour in ((1.0, post.plate_colour), (0.66, look.lit((218, 218, 212)))):
            points = np.column_stack([centre + share * outline, np.full(len(outline), z)])
            canvas.polygon(view.project(points), colour, Label.SIGN, z)


def _draw_lamp(canvas: Canvas, view: View, post: Post, top: np.ndarray) -> None:
    end = top + np.array([post.plate_m, 0.25, 0.0])
    _draw_rod(canvas, view, np.array([top, end]), (0.05, 0.05), post.colour, Label.POLE)
    head = np.array([end, end + np.array([0.45 * np.sign(post.plate_m), 0.0, 0.0])])
    _draw_rod(canvas, view, head, (0.09, 0.07), post.plate_colour, Label.POLE)


def _draw_light(canvas: Canvas, view: View, post: Post, top: np.ndarray, look: Look) -> None:
    """A dark box with one lamp lit; which one, its place decides."""
    z = float(top[2])
    box = top[:2] + [0, -0.4] + LIGHT_HALF_M * [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    points = np.column_stack([box, np.full(4, z)])
    canvas.polygon(view.project(points), look.lit((30, 32, 30)), Label.SIGN, z)
    red = int(post.s) % 2 == 0
    lamp = top[:2] + [0, -0.1 if red else -0.7] + 0.11 * DISC
    points = np.column_stack([lamp, np.full(len(lamp), z)])
    canvas.polygon(view.project(points), (240, 60, 40) if red else (60, 230, 120), Label.SIGN, z)
