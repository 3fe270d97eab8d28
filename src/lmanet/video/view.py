"""Pictures of label maps: blended over the image, alone, or side by side with titles and a legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lmanet.classes import Classes
from lmanet.errors import InputError

View = Literal["overlay", "labels", "side-by-side"]

BACKGROUND = (22, 24, 29)
TITLE_COLOUR = (238, 240, 244)
LEGEND_COLOUR = (196, 200, 208)
OUTLINE_COLOUR = (80, 84, 92)  # tells dark classes from the background


def drawer(
    view: View, classes: Classes, opacity: float = 0.5
) -> Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]:
    """What draws an image and its labels as one of the views.

    Args:
        view: the labels over the image, the labels alone, or the image beside both with a legend.
        classes: names and colours.
        opacity: of the labels over the image, 0 to 1.

    Returns:
        A function of an image (H, W, 3) uint8 RGB and its labels (H, W) uint8 that gives (H', W', 3) uint8 RGB.

    Raises:
        InputError: if there is no such view, or the opacity is outside [0, 1].
    """
    _check_opacity(opacity)
    if view not in get_args(View):
        raise InputError(f"view {view!r}: expected one of {', '.join(get_args(View))}")
    palette = classes.colours()
    if view == "labels":
        return lambda image, label: labels(label, palette)
    if view == "overlay":
        return lambda image, label: overlay(image, label, palette, opacity)
    return lambda image, label: side_by_side(
        [image, overlay(image, label, palette, opacity)], ["Frame", "Labels"], classes
    )


def labels(label: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label map in its colours.

    Args:
        label: (H, W) uint8 class ids.
        palette: (256, 3) uint8, the RGB colour of each id.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    _check_label(label, palette)
    # Takes the table as it is, RGB, whatever the name says; 4 times as fast as indexing with numpy.
    return np.asarray(cv2.applyColorMap(label, palette[:, None]), np.uint8)


def overlay(
    image: NDArray[np.uint8], label: NDArray[np.uint8], palette: NDArray[np.uint8], opacity: float = 0.5
) -> NDArray[np.uint8]:
    """The label map's colours blended over the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 class ids, of the image's size.
        palette: (256, 3) uint8, the RGB colour of each id.
        opacity: share of the label's colour, 0 (image only) to 1 (labels only).

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: if the sizes differ or the opacity is outside [0, 1].
    """
    if image.shape[:2] != label.shape:
        raise InputError(
            f"image of {image.shape[:2]} and label map of {label.shape}: resize the labels (nearest) to fit"
        )
    _check_opacity(opacity)
    return np.asarray(cv2.addWeighted(image, 1 - opacity, labels(label, palette), opacity, 0), np.uint8)


def side_by_side(
    panels: Sequence[NDArray[np.uint8]], titles: Sequence[str], classes: Classes
) -> NDArray[np.uint8]:
    """Panels in a row, a title over each, the class colours with their names beneath.

    Args:
        panels: (H, W, 3) uint8 RGB each, all of one size.
        titles: one per panel.
        classes: the legend's names and colours.

    Returns:
        (H', W', 3) uint8 RGB; the size depends on the panels' size, the titles and the classes alone.

    Raises:
        InputError: if there is no panel, the panels' sizes differ, or the titles are not as many.
    """
    shapes = {panel.shape for panel in panels}
    if len(shapes) != 1:
        raise InputError(f"got panels of shapes {sorted(shapes)}: expected one or more, all of one shape")
    if len(titles) != len(panels):
        raise InputError(f"got {len(panels)} panels and {len(titles)} titles: give one title per panel")
    height, width = panels[0].shape[:2]
    frame, top, gap = _frame(height, width, tuple(titles), classes)
    canvas = frame.copy()
    for index, panel in enumerate(panels):
        left = gap + index * (width + gap)
        canvas[top : top + height, left : left + width] = panel
    return canvas


@lru_cache(maxsize=4)
def _frame(
    height: int, width: int, titles: tuple[str, ...], classes: Classes
) -> tuple[NDArray[np.uint8], int, int]:
    """What is the same in every frame: the canvas without the panels, their top edge, the gap between."""
    size = max(11, round(height / 20))
    gap, top, row_height = round(size * 0.6), 2 * size, round(size * 1.6)
    side = max(10, round(size * 0.8))
    legend_font = ImageFont.load_default(size=side)
    longest = max(ImageFont.load_default(size=size).getlength(title) for title in titles)
    title_font = ImageFont.load_default(size=size * min(1.0, width / max(longest, 1)))
    total_width = len(titles) * (width + gap) + gap
    entry_widths = [legend_font.getlength(name) + 2.6 * side for name in classes.names]
    rows = _wrapped(entry_widths, total_width - 2 * gap)
    legend_top = top + height + gap
    total_height = legend_top + len(rows) * row_height + gap
    # Even sizes, as H.264 needs, so that the video sink has nothing to repeat.
    canvas = Image.new("RGB", (total_width + total_width % 2, total_height + total_height % 2), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for index, title in enumerate(titles):
        centre = gap + index * (width + gap) + width / 2
        draw.text((centre, top / 2), title, TITLE_COLOUR, title_font, anchor="mm")
    for row_index, row in enumerate(rows):
        middle = legend_top + (row_index + 0.5) * row_height
        left = (total_width - sum(entry_widths[entry] for entry in row)) / 2
        for entry in row:
            box = (left + 0.5 * side, middle - 0.45 * side, left + 1.4 * side, middle + 0.45 * side)
            draw.rounded_rectangle(box, 0.2 * side, classes.palette[entry], OUTLINE_COLOUR)
            draw.text(
                (left + 1.8 * side, middle), classes.names[entry], LEGEND_COLOUR, legend_font, anchor="lm"
            )
            left += entry_widths[entry]
    return np.array(canvas, np.uint8), top, gap


def _wrapped(widths: Sequence[float], available: float) -> list[list[int]]:
    """Entries in rows, about evenly filled, none wider than what is available (but at least one entry)."""
    if not widths:
        return []
    # As many rows as are needed at all, then filled evenly: a last row with one lone entry looks lost.
    target = sum(widths) / max(1, -(-sum(widths) // available))
    rows: list[list[int]] = [[]]
    filled = 0.0
    for entry, width in enumerate(widths):
        if rows[-1] and (filled + width > available or filled + width / 2 > target):
            rows.append([])
            filled = 0.0
        rows[-1].append(entry)
        filled += width
    return rows


def _check_label(label: NDArray[np.uint8], palette: NDArray[np.uint8]) -> None:
    if label.ndim != 2 or label.dtype != np.uint8:
        raise InputError(f"got a label map {label.shape} {label.dtype}: expected (H, W) uint8 class ids")
    if palette.shape != (256, 3) or palette.dtype != np.uint8:
        raise InputError(f"got a palette {palette.shape} {palette.dtype}: expected (256, 3) uint8")


def _check_opacity(opacity: float) -> None:
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity {opacity}: expected 0 (image only) to 1 (labels only)")
