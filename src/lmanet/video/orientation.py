"""Which way up the frames of a video are shown."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray


def display_matrix(frame: VideoFrame) -> NDArray[np.int32] | None:
    """The 9 numbers by which a frame is turned; None for one that is upright."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32)


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
