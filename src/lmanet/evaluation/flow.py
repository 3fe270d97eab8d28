"""Which pixel of the next frame shows the same point: correspondence by optical flow, warping, occlusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmanet.errors import InputError
from lmanet.flow import dis_flows


@dataclass(frozen=True)
class Correspondence:
    """Where each pixel of frame t is found in frame t+1.

    Attributes:
        flow: (H, W, 2) float32, the shift in pixels (right, down) from frame t to frame t+1.
        index: (H, W) int64, the nearest pixel of frame t+1 as an index into the flattened (H·W) map;
            clamped to the border where the target lies outside.
        inside: (H, W) bool, true where the nearest pixel lies inside frame t+1.
        visible: (H, W) bool, true where it is inside and the flow back from there returns: not occluded.
    """

    flow: NDArray[np.float32]
    index: NDArray[np.int64]
    inside: NDArray[np.bool_]
    visible: NDArray[np.bool_]


def correspondence(forward: NDArray[np.float32], backward: NDArray[np.float32]) -> Correspondence:
    """Nearest target, validity and occlusion from the flows both ways.

    A pixel is visible in the next frame if going there by w = `forward` and back by w' = `backward`, read
    at the nearest target, returns closely: |w + w'|² <= 0.01 (|w|² + |w'|²) + 0.5 (in pixels; Sundaram,
    Brox and Keutzer, ECCV 2010).

    Args:
        forward: (H, W, 2) float32, the shift in pixels (right, down) from frame t to frame t+1.
        backward: the same from frame t+1 to frame t.

    Raises:
        InputError: if the flows are not both (H, W, 2).
    """
    if forward.ndim != 3 or forward.shape[2] != 2 or forward.shape != backward.shape:
        raise InputError(
            f"the flows' shapes are {forward.shape} and {backward.shape}, expected (H, W, 2) for both"
        )
    height, width = forward.shape[:2]
    # Half a pixel goes up everywhere: np.rint would send neighbouring pixels to the same target by turns.
    x = np.floor(forward[..., 0] + np.arange(width, dtype=np.float32) + 0.5)
    y = np.floor(forward[..., 1] + np.arange(height, dtype=np.float32)[:, None] + 0.5)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # In whole numbers: float32 has none for each pixel of a large image.
    index = np.clip(y, 0, height - 1).astype(np.int64) * width + np.clip(x, 0, width - 1).astype(np.int64)

    back = backward.reshape(-1, 2)[index]
    residual = np.square(forward + back).sum(axis=-1)
    allowed = 0.01 * (np.square(forward).sum(axis=-1) + np.square(back).sum(axis=-1)) + 0.5
    return Correspondence(flow=forward, index=index, inside=inside, visible=inside & (residual <= allowed))


def warp_nearest(next_ids: NDArray[np.uint8], motion: Correspondence) -> NDArray[np.uint8]:
    """Bring the ids of frame t+1 back to frame t, taking for each pixel the nearest one of its target.

    Args:
        next_ids: (H, W) uint8 class ids of frame t+1.
        motion: from frame t to frame t+1.

    Returns:
        (H, W) uint8; only meaningful where `motion.inside`.
    """
    return next_ids.ravel()[motion.index]


def warp_vspw(next_ids: NDArray[np.uint8], motion: Correspondence) -> NDArray[np.uint8]:
    """Bring the ids of frame t+1 back to frame t as VSPW's `TC_cal.py` does, to reproduce its figures.

    Wrong in itself: it scales coordinates as if the outermost pixels' centres lay at -1 and 1 and then reads them
    as if the image's edges did, up to half a pixel beside the target; and what lies outside gets id 0, a class.
    Takes what `warp_nearest` does and gives ids everywhere.
    """
    height, width = next_ids.shape
    x = _vspw_target(motion.flow[..., 0] + np.arange(width, dtype=np.float32), width)
    y = _vspw_target(motion.flow[..., 1] + np.arange(height, dtype=np.float32)[:, None], height)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = np.where(inside, y, 0).astype(np.int64) * width + np.where(inside, x, 0).astype(np.int64)
    return np.where(inside, next_ids.ravel()[index], np.uint8(0))


def _vspw_target(place: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """The pixel that VSPW's script reads for a place along an axis; halves go to the even neighbour."""
    scaled = 2 * place / max(length - 1, 1) - 1
    return np.rint(((scaled + 1) * length - 1) / 2)


class FrameMatcher:
    """Streams the frames of a sequence and gives the correspondence of each one's predecessor with it."""

    def __init__(self) -> None:
        self._previous: NDArray[np.uint8] | None = None

    def start_sequence(self) -> None:
        """Forget the last frame: the next one begins a new sequence."""
        self._previous = None

    def update(self, image: NDArray[np.uint8]) -> Correspondence | None:
        """The correspondence from the previous frame to this one; None for the first of a sequence.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            InputError: as `dis_flows`.
        """
        previous, motion = self._previous, None
        if previous is not None:
            motion = correspondence(*dis_flows(previous, image))
        self._previous = image.copy()  # Only now: a refused image leaves the sequence as it was.
        return motion
