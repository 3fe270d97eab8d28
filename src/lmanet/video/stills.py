"""Outputs that are still images: a folder of label maps, a single picture."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from lmanet.atomic import output_errors, remove_parts_in, write_whole
from lmanet.errors import InputError, VideoError
from lmanet.imagefile import IMAGE_SUFFIXES

RUN_NOTE = "lmanet-run"
"""The text of a PNG that says of which run it is."""


class LabelSink:
    """A folder of label maps: palette PNGs whose pixel values are class ids.

    Args:
        folder: made if need be; files of the same names are replaced.
        palette: (256, 3) uint8, the RGB colour in which viewers show each class id.
        run: noted in each file, for `whole_map`; no note if empty.
        record: contents of a file about the run, written before the first map: its name and bytes.

    Attributes:
        path: the folder.
        frames: how many maps were written.

    Raises:
        OutputError: if the folder cannot be made.
        InputError: if the palette is of another shape or type.
    """

    def __init__(
        self,
        folder: str | Path,
        palette: NDArray[np.uint8],
        *,
        run: str = "",
        record: tuple[str, bytes] | None = None,
    ) -> None:
        self.path = Path(folder)
        self.frames = 0
        if palette.shape != (256, 3) or palette.dtype != np.uint8:
            raise InputError(f"got a palette {palette.shape} {palette.dtype}: expected (256, 3) uint8")
        self._palette = palette.tobytes()
        self._record = record
        self._note: PngInfo | None = None
        if run:
            self._note = PngInfo()
            self._note.add_text(RUN_NOTE, run)
        with output_errors(self.path):
            self._made = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
        remove_parts_in(self.path, ".png")

    def write(self, label: NDArray[np.uint8], name: str) -> None:
        """Write one label map, (H, W) uint8 class ids, as `name`.png.

        Raises:
            InputError: if the label is of another shape or type.
            OutputError: if the file cannot be written.
        """
        if label.ndim != 2 or label.dtype != np.uint8:
            raise InputError(f"got a label map {label.shape} {label.dtype}: expected (H, W) uint8 class ids")
        if self._record is not None:
            write_whole(self.path / self._record[0], self._record[1])
            self._record = None
        image = Image.fromarray(label)
        image.putpalette(self._palette)
        encoded = io.BytesIO()
        image.save(encoded, format="png", compress_level=3, pnginfo=self._note)
        write_whole(self.path / f"{name}.png", encoded.getbuffer())
        self.frames += 1

    def close(self) -> None:
        """Remove the folder if it was made for maps that did not come."""
        if self._made and not self.frames:
            with contextlib.suppress(OSError):
                self.path.rmdir()


def whole_map(path: Path, *, width: int, height: int, run: str) -> bool:
    """Whether a file is a label map of a run, of a size in pixels, and not damaged: by its checksums, not decoded."""
    try:
        with Image.open(path) as image:
            if (image.format, image.size, image.info.get(RUN_NOTE)) != ("PNG", (width, height), run):
                return False
            image.verify()
    # Pillow raises SyntaxError for some broken PNGs.
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return False
    return True


class ImageSink:
    """A single image file, its type by the suffix (one of `IMAGE_SUFFIXES`).

    Args:
        path: the file; its folder is made if need be.

    Attributes:
        path: the file.
        frames: 1 when it is written.

    Raises:
        VideoError: if the suffix is not known.
        OutputError: if the folder cannot be made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.frames = 0
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
        self.frames += 1

    def close(self) -> None:
        """Nothing is open."""
