"""Where things appear: the road as the camera sees it, and the pinhole projection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmanet.data.street.world import SEEN_M, World

Points = NDArray[np.float64]

NEAR_M = 0.4


class View:
    """The camera at one moment.

    Camera axes: x to the right, y up from the ground, z ahead, metres. Rows of the image below the horizon
    are lines of equal z, because the camera does not roll and pitch (under 1°) only shifts the horizon.

    Args:
        world: the street.
        time_s: seconds since the start of the drive.
        height: image rows.
        width: image columns.
    """

    def __init__(self, world: World, time_s: float, height: int, width: int) -> None:
        self.s = world.camera_s(time_s)
        yaw, pitch, drift, bob = world.shake(time_s)
        self.height, self.width = height, width
        self.focal_px = 0.9 * max(width, height * 4 / 3)
        self.centre_x = width / 2
        self.horizon_y = 0.54 * height + self.focal_px * pitch
        self.camera_m = 1.6 + bob
        self.heading = float(world.heading(self.s)) + yaw
        self.table_s = np.arange(-12.0, SEEN_M + 12)
        bend = world.heading(self.s + self.table_s) - self.heading
        x, z = np.cumsum(np.sin(bend)), np.cumsum(np.cos(bend))
        here = 12
        d = world.look.side * world.look.lane_m / 2 + drift
        self.table_x = x - x[here] - d * np.cos(bend[here])
        self.table_z = z - z[here] + d * np.sin(bend[here])
        self.table_bend = bend

    def bend(self, s: float) -> float:
        """The road's heading at `s` against the camera's, radians."""
        return float(np.interp(s - self.s, self.table_s, self.table_bend))

    def locate(self, s: float, d: float) -> tuple[float, float]:
        """Camera x and z of the point `d` metres right of the road's middle at `s`."""
        at = s - self.s
        bend = np.interp(at, self.table_s, self.table_bend)
        x = np.interp(at, self.table_s, self.table_x) + d * np.cos(bend)
        z = np.interp(at, self.table_s, self.table_z) - d * np.sin(bend)
        return float(x), float(z)

    def project(self, points: Points) -> Points:
        """Pixels (N, 2) of camera-space `points` (N, 3), all of them in front of the near plane."""
        scale = self.focal_px / points[:, 2]
        return np.stack(
            [self.centre_x + scale * points[:, 0], self.horizon_y - scale * (points[:, 1] - self.camera_m)], 1
        )

    def sees(self, x: float, z: float, radius_m: float) -> bool:
        """Whether a thing of `radius_m` at (x, z) can touch the image."""
        if z < NEAR_M - radius_m:
            return False
        half = self.width / 2 / self.focal_px
        return abs(x) < max(z, 0) * half + radius_m * 1.2


def clipped(points: Points, near_m: float = NEAR_M) -> Points:
    """The polygon `points` (N, 3) cut off at the near plane; may come back empty."""
    z = points[:, 2]
    if z.min() >= near_m:
        return points
    if z.max() < near_m:
        return points[:0]
    kept = []
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        if a[2] >= near_m:
            kept.append(a)
        if (a[2] >= near_m) != (b[2] >= near_m):
            kept.append(a + (b - a) * (near_m - a[2]) / (b[2] - a[2]))
    return np.asarray(kept)
