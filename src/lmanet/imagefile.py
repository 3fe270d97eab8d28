"""The one reader of image files, for all rooms: Pillow's pixels, made (H, W, 3) uint8 RGB in one way."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lmanet.errors import LmanetError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

MOST_PIXELS = 1 << 30
ORIENTATION = 0x0112  # EXIF: 1 to 8, from 5 on width and height are exchanged
SUBFILE_TYPE = 0x00FE  # TIFF: bit 0 for a small copy of another page
MULTI_FRAME = "Multi-Frame"  # what JPEGs of several pictures call series; others hold previews or gain maps
PNG_END_BYTES = 1 << 17  # EXIF data behind the pixels, which have 64 KB at most, are in the last of the file

_limit = threading.Lock()


class ImageFileError(LmanetError, OSError):
    """An image file is missing, damaged, or of a kind that is not read; the message starts with its path.

    Attributes:
        reason: what is wrong, for a list of files: without the path and without what to do.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file of one image as (H, W, 3) uint8 RGB.

    Every file type is turned upright by its EXIF orientation. Grey, 1-bit and palette images become RGB, CMYK is
    converted without its profile, 16 bits a channel are scaled to 8 (the value over 257, rounded). Transparency is
    dropped, so that a pixel has the colour that the file holds for it, and colour profiles are not applied. Of a JPEG
    that holds several pictures (a preview, a gain map, the second eye) it is the first, as in every viewer.

    Raises:
        ImageFileError: if the file cannot be read or decoded, holds several frames, or values that are no colours
            of 8 or 16 bits (floating point, 32 bits).
    """
    with open_image(path) as file:
        _refuse_several(file, path)
        return to_rgb(file, path)


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image as `read_image` gives it, from the file's header alone.

    Raises:
        ImageFileError: if it cannot be read as an image, or holds several frames.
    """
    with open_image(path) as file:
        _refuse_several(file, path)
        tags = getattr(file, "tag_v2", {})
        # Pillow's size of a TIFF is that before or after turning, by its version: the file's own is taken.
        width, height = (tags[256], tags[257]) if file.format == "TIFF" else file.size
        try:
            turned = _turned(file)
        except Exception:  # damaged EXIF data: see `upright`
            turned = False
        return (width, height) if turned else (height, width)


def _refuse_several(file: Image.Image, path: Path) -> None:
    count = frame_count(file)
    if count > 1:
        reason = f"holds {count} {'pages' if file.format == 'TIFF' else 'frames (an animation)'}"
        raise ImageFileError(
            f"{path} {reason}: expected one image; label the file alone, as a video, or save its frames as images",
            reason,
        )


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """The file opened by Pillow; what it raises within the block becomes `ImageFileError`, naming the file."""
    try:
        with _open(path) as file:
            yield file
    except LmanetError:
        raise
    except FileNotFoundError as error:
        reason = f"is missing{' (a link to nothing)' if path.is_symlink() else ''}"
        raise ImageFileError(f"{path} {reason}", reason) from error
    except Exception as error:  # Pillow has a dozen kinds for damaged files, SyntaxError among them
        reason = _reason(error, path)
        raise ImageFileError(
            f"{path} cannot be read as an image ({reason}): replace or remove it", reason
        ) from error


def _open(path: Path) -> Image.Image:
    if path.exists() and not path.is_file() and not path.is_dir():  # to open a pipe would wait for its writer
        reason = "is no file (a pipe or a device)"
        raise ImageFileError(f"{path} {reason}: replace or remove it", reason)
    # Pillow's limit guards web servers; photographs of telephones and maps are larger.
    with _limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MOST_PIXELS
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "0 bytes" if path.stat().st_size == 0 else "not an image, or damaged"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def frame_count(file: Image.Image) -> int:
    """How many frames an open file shows: of an animation or of pages; 1 for all others.

    Small copies beside a TIFF's pages and the further pictures of a JPEG are no frames.
    """
    count = int(getattr(file, "n_frames", 1))
    if count > 1 and file.format == "TIFF":
        return len(pages(file))
    return 1 if file.format == "MPO" else count - bool(getattr(file, "default_image", False))


def series_in_jpeg(path: Path) -> int:
    """How many pictures a JPEG holds that belong together: views or parts of one scene; 1 for all other files."""
    with open_image(path) as file:
        entries = getattr(file, "mpinfo", {}).get(0xB002, [])
        series = [entry for entry in entries if MULTI_FRAME in entry["Attribute"]["MPType"]]
        return max(1, len(series))


def pages(file: Image.Image) -> list[int]:
    """The numbers of an open file's frames but for the small copies that a TIFF may hold beside them."""
    found = []
    for index in range(int(getattr(file, "n_frames", 1))):
        file.seek(index)
        if not int(getattr(file, "tag_v2", {}).get(SUBFILE_TYPE, 0)) & 1:
            found.append(index)
    file.seek(found[0] if found else 0)
    return found or [0]


def to_rgb(file: Image.Image, path: Path) -> NDArray[np.uint8]:
    """The frame at which an open file stands, as `read_image` makes it."""
    refuse_mode(file, path)
    # Pillow cuts colours of 16 bits to 8 while it decodes: the name of its way of reading tells.
    wide = file.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in getattr(file, "tile", []))
    turned = upright(file)
    turned.info.pop("transparency", None)  # of a palette: Pillow would warn that it is lost
    if not wide:
        return np.array(turned if turned.mode == "RGB" else turned.convert("RGB"))
    if file.mode.startswith("I;16"):
        return np.repeat(_to_8_bits(np.array(turned).astype(np.uint16))[..., None], 3, axis=2)
    return _wide_colours(file, path, np.array(turned.convert("RGB")))


def refuse_mode(file: Image.Image, path: Path) -> None:
    """Raise ImageFileError where the frame at which an open file stands has no colours of 8 or 16 bits."""
    if file.mode == "F" or file.mode == "I" or file.mode.startswith("I;32"):
        reason = (
            f"an image of mode {file.mode} ({'floating point' if file.mode == 'F' else '32 bits'} a channel)"
        )
        raise ImageFileError(f"{path}: {reason}: expected 8 or 16 bits a channel; scale it to 8", reason)


def _wide_colours(file: Image.Image, path: Path, cut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours of 16 bits by OpenCV, which keeps them; as Pillow cut them where OpenCV does not read them."""
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    whole = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags) if file.tell() == 0 else None
    if whole is None or whole.dtype != np.uint16 or whole.ndim != 3 or whole.shape[2] < 3:
        return cut
    rgb = np.ascontiguousarray(_to_8_bits(np.asarray(whole, np.uint16)[..., 2::-1]))
    turned = Image.fromarray(rgb)
    turned.getexif()[ORIENTATION] = file.getexif().get(ORIENTATION, 1)
    rgb = np.array(ImageOps.exif_transpose(turned))
    return rgb if rgb.shape == cut.shape else cut


def _to_8_bits(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def upright(file: Image.Image) -> Image.Image:
    """An open file's pixels, turned as its EXIF orientation says, in its own mode."""
    file.load()  # what is wrong with the pixels is told here, not taken for damaged EXIF data
    try:
        # Asked first, as Pillow copies the image where there is nothing to turn.
        return ImageOps.exif_transpose(file) if file.getexif().get(ORIENTATION, 1) != 1 else file
    except Exception:  # damaged EXIF data say nothing of the pixels: shown as stored, as viewers do
        return file


def _turned(file: Image.Image) -> bool:
    """Whether the file shows its width as height."""
    if file.format == "PNG" and not _says_of_orientation(file):
        return False
    return int(file.getexif().get(ORIENTATION, 1)) >= 5


def _says_of_orientation(png: Image.Image) -> bool:
    """Whether a PNG may hold an orientation: Pillow would decode all of it to see whether any follows the pixels."""
    if any(key in png.info for key in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")):
        return True
    with Path(str(png.filename)).open("rb") as raw:  # type: ignore[attr-defined]
        raw.seek(max(0, raw.seek(0, os.SEEK_END) - PNG_END_BYTES))
        return b"eXIf" in raw.read()
