"""Draw the README's animated picture: a rendered street, its labels without and with the label memory, side by side.

python tools/picture.py docs/pictures/demo.webp

Everything in it is rendered and labelled by lmanet itself, as `lmanet demo` does: no picture of any data set.
"""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image

from lmanet.atomic import write_whole
from lmanet.demo import Comparison, compare
from lmanet.errors import InputError
from lmanet.video.view import labels as coloured
from lmanet.video.view import side_by_side

MOST_BYTES = 3_000_000
"""GitHub shows larger pictures too, but a reader waits for them."""


def draw(
    path: tyro.conf.Positional[Path],
    /,
    *,
    frames: int = 75,
    first: int = 0,
    every: int = 1,
    seed: int = 0,
    size: tuple[int, int] = (240, 320),
    quality: int = 60,
) -> None:
    """Write an animated WebP.

    Args:
        path: the file, `.webp`.
        frames: length of the drive, at least 8.
        first: the first frame that is shown.
        every: show every so many frames; the picture moves as fast as the drive.
        seed: of the street and the drive.
        size: height and width of each column, in pixels.
        quality: of the compression, 1 to 100.

    Raises:
        InputError: no frame is left, or the picture is larger than 3 MB.
        OutputError: the file cannot be written.
    """
    comparison = compare(frames, seed, precision="fp32", device=torch.device("cpu"))
    shown = range(first, frames, every)
    if not shown:
        raise InputError(f"first {first} of {frames} frames: nothing is left to be shown")
    pictures = [Image.fromarray(_picture(comparison, i, size)) for i in shown]
    buffer = io.BytesIO()
    spacing_s = comparison.drive.sequences[0].spacing_s
    pictures[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 * spacing_s * every),
        loop=0,
        quality=quality,
        method=6,
    )
    if buffer.tell() > MOST_BYTES:
        raise InputError(
            f"the picture has {buffer.tell() / 1e6:.1f} MB, expected at most {MOST_BYTES / 1e6:.0f}: show fewer frames"
        )
    write_whole(path, buffer.getvalue())
    print(f"{path}: {len(pictures)} frames, {buffer.tell() / 1e6:.2f} MB")


def _picture(comparison: Comparison, i: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frame i and what each model said of it, with a legend."""
    drive = comparison.drive
    columns = [
        drive.sequences[0].image(i),
        *(coloured(maps[i], drive.classes.colours()) for maps in comparison.labels.values()),
    ]
    ways = [cv2.INTER_AREA] + [cv2.INTER_NEAREST] * len(comparison.labels)
    panels = [
        np.asarray(cv2.resize(column, size[::-1], interpolation=way), np.uint8)
        for column, way in zip(columns, ways, strict=True)
    ]
    titles = ["frame", *(name.replace("-", " ") for name in comparison.labels)]
    return side_by_side(panels, titles, drive.classes)


if __name__ == "__main__":
    tyro.cli(draw)
