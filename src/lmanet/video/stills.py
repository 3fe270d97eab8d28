"""Outputs that are still images: a folder of label maps, a single picture."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmanet.atomic import output_errors, write_whole
from lmanet.errors import InputError, VideoError
from lmanet.imagefile import IMAGE_SUFFIXES


class LabelSink:
    """A folder of label maps: palette PNGs whose pixel values are class ids.

    Args:
        folder: made if need be; files of the same names are replaced.
        palette: (256, 3) uint8, the RGB colour in which viewers show each class id.

    Raises:
        OutputError: if the folder cannot be made.
        InputError: if the palette is of another shape or type.
    """

    def __init__(self, folder: str | Path, palette: NDArray[np.uint8]) -> None:
        self.folder = Path(folder)
        if palette.shape != (256, 3) or palette.dtype != np.uint8:
            raise InputError(f"got a palette {palette.shape} {palette.dtype}: expected (256, 3) uint8")
        self._palette = palette.tobytes()
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, label: NDArray[np.uint8], name: str) -> None:
        """Write one label map, (H, W) uint8 class ids, as `name`.png.

        Raises:
            InputError: if the label is of another shape or type.
            OutputError: if the file cannot be written.
        """
        if label.ndim != 2 or label.dtype != np.uint8:
            raise InputError(f"got a label map {label.shape} {label.dtype}: expected (H, W) uint8 class ids")
        image = Image.fromarray(label)
        image.putpalette(self._palette)
        encoded = io.BytesIO()
        image.save(encoded, format="png", compress_level=3)
        write_whole(self.folder / f"{name}.png", encoded.getbuffer())


class ImageSink:
    """A single image file, its type by the suffix (one of `IMAGE_SUFFIXES`).

    Args:
        path: the file; its folder is made if need be.

    Raises:
        VideoError: if the suffix is not known.
        OutputError: if the folder cannot be made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in IMAGE_SUFFIXES:
            raise VideoError(
                f"{path}: not an image type that can be written; expected one of {', '.join(IMAGE_SUFFIXES)}"
            )
        with output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, image: NDArray[np.uint8]) -> None:
        """Write (H, W, 3) uint8 RGB.

        Raises:
            VideoError: if the image is too large for its file type.
            OutputError: if the file cannot be written.
        """
        encodable, encoded = cv2.imencode(self.path.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if not encodable:
            height, width = image.shape[:2]
            raise VideoError(
                f"{self.path}: {width}×{height} pixels do not fit into {self.path.suffix}; choose .png"
            )
        write_whole(self.path, encoded.data)
