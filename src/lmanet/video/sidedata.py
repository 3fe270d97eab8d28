"""What a decoded frame carries beside its pixels, through PyAV, which does not know all kinds of FFmpeg's."""

from __future__ import annotations

import math

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray


def side_data(frame: VideoFrame, name: str) -> bytes | None:
    """Side data of a frame by FFmpeg's name, such as `DISPLAYMATRIX`; None if it has none."""
    try:
        data = frame.side_data.get(name)
    except (
        ValueError
    ):  # PyAV lists none where one is of a kind that it does not know: EXIF, the views of MV-HEVC
        return None
    return None if data is None else bytes(data)


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
