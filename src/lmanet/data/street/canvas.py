"""What is drawn on: an image, its class ids and its depths, kept in step."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lmanet.data.street.look import Colour
from lmanet.data.street.textures import Image, Pyramid, image_of

SUBPIXEL = 4
HALF_DEPTH_M = 30.0
FAR = 255


def depth_code(z: NDArray | float) -> NDArray[np.uint8]:
    """Metres as uint8: 255 · z / (z + 30), so that near depths are finer; 255 is the sky."""
    z = np.maximum(z, 0)
    return np.asarray(255 * z / (z + HALF_DEPTH_M)).astype(np.uint8)


def depth_metres() -> NDArray[np.float32]:
    """The (256,) table that undoes `depth_code`; the sky is infinitely far."""
    share = np.arange(256, dtype=np.float32) / 255
    with np.errstate(divide="ignore"):
        return (HALF_DEPTH_M * share / (1 - share)).astype(np.float32)


def fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Pixels (..., 2) as OpenCV's fixed-point numbers; its pixel centres are whole, ours are at the half."""
    return (points * 2**SUBPIXEL - 2 ** (SUBPIXEL - 1)).astype(np.int32)


class Canvas:
    """An image (H, W, 3) uint8 RGB and, per pixel, a class id and a depth code, (H, W, 2) uint8.

    The image is drawn with smooth edges, ids and depths with hard ones. Later draws cover earlier ones.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.image: Image = np.zeros((height, width, 3), np.uint8)
        self.ids: Image = np.zeros((height, width, 2), np.uint8)
        self.ids[..., 1] = FAR

    def fill(self, corners: NDArray[np.int32], colour: Colour, label: int | None, depth: int) -> None:
        """Fill a polygon given in `fixed` pixels (N, 2); `label` None changes the image alone."""
        cv2.fillPoly(self.image, [corners], colour, cv2.LINE_AA, SUBPIXEL)
        if label is not None:
            cv2.fillPoly(self.ids, [corners], (int(label), depth), cv2.LINE_8, SUBPIXEL)

    def polygon(self, points: NDArray[np.float64], colour: Colour, label: int | None, z: float) -> None:
        """Fill the polygon `points` (N, 2) pixels at depth `z` metres."""
        self.fill(fixed(points), colour, label, int(depth_code(z)))

    def ring(self, points: NDArray[np.float64], thick_px: int, colour: Colour, label: int, z: float) -> None:
        """Draw the closed line through `points` (N, 2)."""
        corners = [fixed(points)]
        cv2.polylines(self.image, corners, True, colour, thick_px, cv2.LINE_AA, SUBPIXEL)
        cv2.polylines(
            self.ids, corners, True, (int(label), int(depth_code(z))), thick_px, cv2.LINE_8, SUBPIXEL
        )

    def rods(
        self,
        starts: NDArray[np.float64],
        ends: NDArray[np.float64],
        start_px: NDArray[np.float64],
        end_px: NDArray[np.float64],
        colours: list[Colour],
        label: int,
        z: float,
    ) -> None:
        """Draw straight bands in their order.

        Args:
            starts: (N, 2) pixels.
            ends: (N, 2) pixels.
            start_px: (N,) half widths at the starts.
            end_px: (N,) half widths at the ends.
            colours: N of them.
            label: class id of all.
            z: depth of all, metres.
        """
        along = ends - starts
        length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)
        side = np.stack([-along[:, 1], along[:, 0]], 1) / length[:, None]
        wide, narrow = side * start_px[:, None], side * end_px[:, None]
        corners = fixed(np.stack([starts - wide, starts + wide, ends + narrow, ends - narrow], 1))
        depth = int(depth_code(z))
        for quad, colour in zip(corners, colours, strict=True):
            self.fill(quad, colour, label, depth)

    def box(self, points: NDArray) -> tuple[int, int, int, int] | None:
        """The bounds (x0, y0, x1, y1) of `points` inside the image, or None if they miss it."""
        x0, y0 = np.floor(points.min(0)).astype(int)
        x1, y1 = np.ceil(points.max(0)).astype(int) + 1
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, self.width), min(y1, self.height)
        return None if x0 >= x1 or y0 >= y1 else (int(x0), int(y0), int(x1), int(y1))

    def shadow(self, points: NDArray, strength: float) -> None:
        """Darken the polygon `points` (N, 2) of the image; labels and depths stay."""
        box = self.box(points)
        if box is None:
            return
        x0, y0, x1, y1 = box
        keep = np.ones((y1 - y0, x1 - x0), np.float32)
        cv2.fillPoly(keep, [fixed(points - (x0, y0))], 1 - strength, cv2.LINE_8, SUBPIXEL)
        size = max(1, (x1 - x0) // 24) * 2 + 1
        keep = cv2.blur(keep, (size, min(size, 2 * (y1 - y0) - 1)), borderType=cv2.BORDER_REPLICATE)
        part = self.image[y0:y1, x0:x1]
        part[:] = part * keep[..., None]

    def surface(
        self, quad: NDArray, part: NDArray, texture: Pyramid, label: int, z: tuple[float, float]
    ) -> None:
        """Warp `texture` onto a standing quad.

        Args:
            quad: corners (4, 2) in pixels: top left, top right, bottom right, bottom left of the surface.
            part: the share of the texture's width between the left and the right corners, two of 0..1.
            texture: RGB, or RGBA where the surface can be seen through (its label covers it all the same).
            label: class id.
            z: depth at the left and at the right corners.
        """
        box = self.box(quad)
        if box is None:
            return
        x0, y0, x1, y1 = box
        shown = max(np.abs(quad[3, 1] - quad[0, 1]), np.abs(quad[2, 1] - quad[1, 1]))
        level = 0
        while level < 3 and texture[level].shape[0] > 1.6 * shown:
            level += 1
        source = texture[level]
        height, width = source.shape[:2]
        left, right = part[0] * width, part[1] * width
        corners = np.array([[left, 0], [right, 0], [right, height], [left, height]], np.float32)
        matrix = cv2.getPerspectiveTransform(corners - 0.5, (quad - (x0, y0)).astype(np.float32) - 0.5)
        size = (x1 - x0, y1 - y0)
        patch = cv2.warpPerspective(
            source, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        corners = fixed(quad - (x0, y0))
        hard, soft = np.zeros(size[::-1], np.uint8), np.zeros(size[::-1], np.uint8)
        cv2.fillConvexPoly(hard, corners, 255, cv2.LINE_8, SUBPIXEL)
        cv2.fillConvexPoly(soft, corners, 255, cv2.LINE_AA, SUBPIXEL)
        if patch.shape[2] == 4:
            soft = cv2.multiply(soft, patch[..., 3], scale=1 / 255)
            patch = patch[..., :3]
        self._blend(box, image_of(patch), image_of(soft))
        span = max(quad[1, 0] - quad[0, 0], 1e-3, key=abs)
        share = np.clip((np.arange(x0, x1) + 0.5 - quad[0, 0]) / span, 0, 1)
        depth = depth_code(1 / (1 / z[0] + share * (1 / z[1] - 1 / z[0])))
        stamp = np.empty((*size[::-1], 2), np.uint8)
        stamp[..., 0] = label
        stamp[..., 1] = depth
        cv2.copyTo(stamp, hard, self.ids[y0:y1, x0:x1])

    def sprite(
        self, corner: NDArray, size_px: float, texture: Pyramid, label: int, z: float, mirror: bool
    ) -> None:
        """Draw an RGBA `texture`, square, upright, its top left at `corner` (2,), `size_px` wide."""
        box = self.box(np.array([corner, corner + size_px]))
        if box is None:
            return
        x0, y0, x1, y1 = box
        level = 0
        while level < 3 and texture[level].shape[0] > 1.6 * size_px:
            level += 1
        source = texture[level]
        scale = size_px / source.shape[1]
        shift = (corner - (x0, y0)).astype(np.float64)
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        if mirror:
            matrix[0] = (-scale, 0, shift[0] + size_px - scale)
        patch = cv2.warpAffine(source, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
        alpha = image_of(patch[..., 3])
        self._blend(box, image_of(patch[..., :3]), alpha)
        part = self.ids[y0:y1, x0:x1]
        part[alpha > 127] = (label, depth_code(z))

    def _blend(self, box: tuple[int, int, int, int], patch: Image, alpha: Image) -> None:
        x0, y0, x1, y1 = box
        weight = alpha.astype(np.float32) * np.float32(1 / 255)
        part = self.image[y0:y1, x0:x1]
        part[:] = cv2.blendLinear(patch, np.ascontiguousarray(part), weight, 1 - weight)
