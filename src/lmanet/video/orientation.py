"""Which way up the frames of a video are shown."""

from __future__ import annotations

import math

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from lmanet.video.sidedata import side_data


def display_matrix(frame: VideoFrame) -> NDArray[np.int32] | None:
    """How a frame is to be turned to be upright, as 9 values (see `upright`); None if it says nothing."""
    data = side_data(frame, "DISPLAYMATRIX")
    if data is not None:
        return np.frombuffer(data, np.int32)
    if not frame.rotation:
        return None
    angle = math.radians(frame.rotation)  # of the matrix that could not be read: counterclockwise
    a, b = round(65536 * math.cos(angle)), round(65536 * math.sin(angle))
    return np.array([a, -b, 0, b, a, 0, 0, 0, 1 << 30], np.int32)


def upright(image: NDArray[np.uint8], matrix: NDArray[np.int32] | None) -> NDArray[np.uint8]:
    """Turn and mirror an image as a display matrix says, to the nearest quarter turn.

    Args:
        image: (H, W, 3) as stored.
        matrix: 9 values `a b u c d v x y w`, by which a pixel (x, y) is shown at (ax + cy, bx + dy) (the
            layout of FFmpeg's AV_PKT_DATA_DISPLAYMATRIX); None for no change.

    Returns:
        (H, W, 3) or (W, H, 3), contiguous.
    """
    if matrix is not None:
        a, b, _, c, d = (int(value) for value in matrix[:5])
        swapped = abs(b) > abs(a)
        x_sign, y_sign = (c, b) if swapped else (a, d)
        image = image.swapaxes(0, 1) if swapped else image
        image = image[:: -1 if y_sign < 0 else 1, :: -1 if x_sign < 0 else 1]
    return np.ascontiguousarray(image)
