"""Reads label images as they are stored: one value a pixel, or one colour; what may have changed them is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmanet.data.files import open_image
from lmanet.errors import DataError
from lmanet.imagefile import upright

RGB = tuple[int, int, int]
"""Red, green and blue, each 0 to 255."""

LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
"""Formats that change values as they are written, or may."""

_SCALES = {"1": 255, "L;2": 85, "L;4": 17}
"""What Pillow multiplies the values of grey files of few bits by, by how they are stored."""


@dataclass(frozen=True)
class Values:
    """What a label file holds.

    Attributes:
        values: (H, W) uint8, or int32 from files of more than 8 bits; (H, W, 3) uint8 where there are colours.
        scale: by how much a picture's viewer would multiply them; 1 but for grey files of 1, 2 and 4 bits.
        palette: the colours of the values; None without.
    """

    values: NDArray[np.uint8] | NDArray[np.int32]
    scale: int = 1
    palette: tuple[RGB, ...] | None = None


def read_values(path: Path) -> Values:
    """What a label file holds: grey of 1 to 32 bits, also as three equal channels, indices into a palette, or colours.

    Raises:
        DataError: it cannot be read, or holds neither; the message says what it holds.
    """
    with open_image(path) as file:
        file, stored = _load(path, file)
        mode = file.mode
        if mode == "P":
            colours = np.array(file.getpalette() or [], np.uint8).reshape(-1, 3).tolist()
            return Values(np.array(file), palette=tuple((r, g, b) for r, g, b in colours))
        if mode == "1" or (mode == "L" and stored[:3] in _SCALES):
            scale = _SCALES[stored[:3] if mode == "L" else "1"]
            return Values(np.array(file).astype(np.uint8) // (scale if mode == "L" else 1), scale)
        if mode == "L":
            return Values(np.array(file))
        if mode.startswith("I"):
            return Values(np.array(file).astype(np.int32))
        array = _opaque(path, file)
        if mode in ("LA", "PA"):
            return Values(np.ascontiguousarray(array[..., 0]))
        if mode not in ("RGB", "RGBA"):
            raise DataError(f"{path}: an image of mode {mode}: expected class ids, one byte a pixel, as PNG")
        if (array[..., 0] != array[..., 1]).any() or (array[..., 0] != array[..., 2]).any():
            return Values(np.ascontiguousarray(array[..., :3]))
        return Values(np.ascontiguousarray(array[..., 0]))


def read_colours(path: Path) -> NDArray[np.uint8]:
    """The colours of a label file, (H, W, 3) uint8 RGB; of one with a palette those of its palette.

    Raises:
        DataError: it cannot be read, or holds no colours of 8 bits.
    """
    with open_image(path) as file:
        file, _ = _load(path, file)
        if file.mode in ("LA", "RGBA"):
            _opaque(path, file)
        elif file.mode not in ("1", "L", "P", "RGB"):
            raise DataError(
                f"{path}: an image of mode {file.mode}: expected colours of 8 bits a channel, as PNG"
            )
        return np.array(file.convert("RGB"))


def _load(path: Path, file: Image.Image) -> tuple[Image.Image, str]:
    """The pixels, upright as those of images; and how one is stored, in Pillow's words."""
    tiff_compression = str(file.info.get("compression", ""))
    if file.format in LOSSY or "jpeg" in tiff_compression or "webp" in tiff_compression:
        raise DataError(
            f"{path}: a {file.format} image, whose compression changes the values of labels: save it as PNG, from what "
            "it was made of"
        )
    if getattr(file, "n_frames", 1) > 1:
        raise DataError(f"{path}: an image of {file.n_frames} pages: expected one label a file")  # pyright: ignore
    tiles = getattr(file, "tile", None) or [("", None, 0, "")]
    stored = tiles[0][3]
    stored = str(stored if isinstance(stored, str) else (stored or ("",))[0])
    if ";16" in stored and not file.mode.startswith("I"):
        raise DataError(
            f"{path}: colours or grey with alpha of 16 bits: expected class ids, grey, or colours of 8 bits"
        )
    return upright(file), stored


def _opaque(path: Path, file: Image.Image) -> NDArray[np.uint8]:
    """The channels of an image, of which an alpha channel must hide nothing."""
    array = np.array(file)
    if file.mode in ("LA", "PA", "RGBA"):
        hidden = array.shape[0] * array.shape[1] - int((array[..., -1] == 255).sum())
        if hidden:
            raise DataError(
                f"{path}: {hidden} pixels are transparent or half so: a label has no alpha channel: save it without; "
                "where alpha is the mask, save that channel as a grey PNG"
            )
    return array
