"""One clean frame of a street: sky, ground, then everything else from far to near."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from lmanet.data.street.canvas import Canvas, depth_code
from lmanet.data.street.fixtures import draw_block, draw_patch, draw_post, draw_tree
from lmanet.data.street.people import draw_person
from lmanet.data.street.textures import GROUND_HALF_M, GROUND_PERIOD_M, SKY_ROWS_PER_RAD, Image
from lmanet.data.street.things import Block, Car, Label, Person, Post, Thing, Tree
from lmanet.data.street.vehicles import draw_car
from lmanet.data.street.view import View
from lmanet.data.street.world import SEEN_M, World


@dataclass(frozen=True)
class Scene:
    """A frame before anything spoils it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 class ids.
        depth: (H, W) uint8 depth codes of `canvas.depth_code`.
    """

    image: Image
    label: Image
    depth: Image


def render(world: World, time_s: float, height: int, width: int) -> Scene:
    """The street at `time_s` seconds, as the camera sees it."""
    view = View(world, time_s, height, width)
    canvas = Canvas(height, width)
    _draw_sky(canvas, view, world)
    _draw_ground(canvas, view, world)
    things, patches = world.around(time_s, view.s)
    for patch in sorted(patches, key=lambda p: -p.s0):
        if -8 < patch.s0 - view.s < SEEN_M:
            draw_patch(canvas, view, patch)
    for thing in sorted(things, key=_far_end, reverse=True):
        if _far_end(thing)[0] - view.s < SEEN_M:
            _draw(canvas, view, world, thing)
    return Scene(canvas.image, np.ascontiguousarray(canvas.ids[..., 0]), canvas.ids[..., 1])


def _far_end(thing: Thing) -> tuple[float, float]:
    """Painter's order: by the far end along the road, and at one place from the outside inwards.

    A wall's far end counts, because all that stands before it along the road is between it and the camera.
    """
    return (thing.s1 if isinstance(thing, Block) else thing.s, abs(thing.d))


def _draw(canvas: Canvas, view: View, world: World, thing: Thing) -> None:
    match thing:
        case Block():
            draw_block(canvas, view, thing)
        case Tree():
            draw_tree(canvas, view, thing, world.crowns, world.look)
        case Post():
            draw_post(canvas, view, thing, world.look)
        case Car():
            draw_car(canvas, view, thing, world.look)
        case Person():
            draw_person(canvas, view, thing)


def _draw_sky(canvas: Canvas, view: View, world: World) -> None:
    """Fill the image above the horizon from the panorama, which turns with the camera."""
    rows, columns = world.sky_labels.shape
    below = min(canvas.height, int(np.ceil(view.horizon_y)) + 1)
    aside = np.arctan((np.arange(canvas.width) + 0.5 - view.centre_x) / view.focal_px)
    up = np.arctan((view.horizon_y - np.arange(below) - 0.5) / view.focal_px)
    x = ((aside + view.heading + np.pi) * SKY_ROWS_PER_RAD) % columns
    y = rows - 1 - np.maximum(up, 0) * SKY_ROWS_PER_RAD
    map_x = np.broadcast_to(x.astype(np.float32), (below, canvas.width))
    map_y = np.broadcast_to(y.astype(np.float32)[:, None], (below, canvas.width))
    canvas.image[:below] = cv2.remap(world.sky, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    canvas.ids[:below, :, 0] = world.sky_labels[y.astype(int)[:, None], x.astype(int)[None]]


def _draw_ground(canvas: Canvas, view: View, world: World) -> None:
    """Fill the image below the horizon; each row is a line of equal depth, so the road is looked up by rows."""
    first = max(0, int(np.ceil(view.horizon_y + 0.5)))
    if first >= canvas.height:
        return
    v = np.arange(first, canvas.height) + 0.5
    z = np.minimum(view.focal_px * view.camera_m / (v - view.horizon_y), 400.0)
    known_z = np.maximum.accumulate(view.table_z)
    centre, bend, s = (
        np.interp(z, known_z, table)[:, None] for table in (view.table_x, view.table_bend, view.table_s)
    )
    x = (np.arange(canvas.width) + 0.5 - view.centre_x) / view.focal_px * z[:, None]
    d = ((x - centre) * np.cos(bend)).astype(np.float32)
    s = (s + view.s % GROUND_PERIOD_M + (x - centre) * np.sin(bend)).astype(np.float32)
    column = np.clip(d + GROUND_HALF_M, 0.05, 2 * GROUND_HALF_M - 0.05) / (2 * GROUND_HALF_M)
    row = (s % GROUND_PERIOD_M) / GROUND_PERIOD_M
    stretch_m = z * z / (view.focal_px * view.camera_m)
    edges = [0, *(np.searchsorted(-stretch_m, -limit) for limit in (3.0, 0.8, 0.2)), len(z)]
    for level, (a, b) in zip((3, 2, 1, 0), pairwise(edges), strict=True):
        if a == b:
            continue
        texture = world.ground[level]
        map_x = column[a:b] * texture.shape[1] - 0.5
        map_y = row[a:b] * texture.shape[0] - 0.5
        canvas.image[first + a : first + b] = cv2.remap(
            texture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
    far = np.abs(d)
    ids = canvas.ids[first:]
    ids[..., 0] = Label.TREE
    ids[..., 0][far < world.look.plot_m + 1.5] = Label.PAVEMENT
    ids[..., 0][far < world.look.road_half_m] = Label.ROAD
    ids[..., 1] = depth_code(z)[:, None]
