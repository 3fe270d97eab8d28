"""Dense optical flow on the CPU, by OpenCV's DIS: for the metrics, and for methods that follow the flow."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from lmanet.errors import InputError

Preset = Literal["fast", "medium"]

_PRESETS: dict[Preset, int] = {
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}

FLOW_NAME = f"DIS, preset medium, OpenCV {cv2.__version__}"
"""The optical flow that `dis_flows` computes if nothing is said; to be stated with every figure that depends on it."""

MIN_SIDE_PX = 16
"""The smallest height and width that `dis_flows` takes; the DIS pyramid needs it."""

FOUR_SCALES_PX = 32
"""Four times the side of the patches that DIS compares."""


def dis_flows(
    image: NDArray[np.uint8],
    other: NDArray[np.uint8],
    *,
    preset: Preset = "medium",
    refinements: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Dense inverse search optical flow (Kroeger et al., ECCV 2016) between two images, there and back, by OpenCV.

    Args:
        image: (H, W, 3) uint8 RGB. Any strides.
        other: the same, most often the next or the previous frame.
        preset: of OpenCV: `medium`, or `fast` at half the time.
        refinements: steps of the variational refinement, 0 or more; the preset's number, 5, if not given. They take
            most of the time of `fast`.

    Returns:
        Two (H, W, 2) float32, shifts in pixels (right, down): from `image` to `other`, and from `other` to `image`.

    Raises:
        InputError: if an image is not (H, W, 3) uint8, is smaller than 16×16, or the shapes differ.
    """
    for name, frame in (("image", image), ("other", other)):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise InputError(f"{name} is {frame.dtype} of shape {frame.shape}, expected uint8 RGB (H, W, 3)")
    if image.shape != other.shape:
        raise InputError(
            f"the images' shapes differ, {image.shape} and {other.shape}: a sequence must keep its size"
        )
    if min(image.shape[:2]) < MIN_SIDE_PX:
        raise InputError(
            f"the image is {image.shape[1]}×{image.shape[0]} pixels, optical flow needs at least "
            f"{MIN_SIDE_PX}×{MIN_SIDE_PX}: take larger images, a method without flow, or leave out TC (tc=False)"
        )
    first, second = _grey(image), _grey(other)
    return _flow(first, second, preset, refinements), _flow(second, first, preset, refinements)


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Planes that lie apart OpenCV interleaves in a twentieth of NumPy's time.
    pixels = image if image.flags.c_contiguous else cv2.merge([*np.moveaxis(image, 2, 0)])
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def _flow(
    first: NDArray[np.uint8], second: NDArray[np.uint8], preset: Preset, refinements: int | None
) -> NDArray[np.float32]:
    """From one image (H, W) to another, (H, W, 2)."""
    # Made anew each time: a kept one gives other flows after other images.
    flow = cv2.DISOpticalFlow.create(_PRESETS[preset])
    if refinements is not None:
        flow.setVariationalRefinementIterations(refinements)
    if min(first.shape) < FOUR_SCALES_PX:
        # "fast" ends at a quarter of the size. Where that is less than a patch, OpenCV reads beyond the image.
        flow.setFinestScale(min(flow.getFinestScale(), 1))
    return np.asarray(flow.calc(first, second, np.zeros((*first.shape, 2), np.float32)), np.float32)
