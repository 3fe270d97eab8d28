"""Where frames come from: `open_source` takes a video file, a folder of images, an image or a camera."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from lmanet.errors import InputError, VideoError
from lmanet.imagefile import IMAGE_SUFFIXES
from lmanet.video.animation import AnimationSource, frames_of
from lmanet.video.camera import CameraSource
from lmanet.video.frame import Source
from lmanet.video.imagelist import images_in
from lmanet.video.images import ImageSource
from lmanet.video.videofile import VideoFileSource

TILED_SUFFIXES = (".heic", ".heif", ".hif")
CAMERA_PREFIX = "camera:"
IMAGES_FPS = 30
"""Frames per second that a folder of images stands for, unless told otherwise."""
SLOWEST_FPS, FASTEST_FPS = 0.001, 1000
"""Limits of what may be told: beyond them, containers and players no longer count in time stamps."""


def open_source(
    path: str | Path, *, images_fps: float | Fraction | None = None, strict: bool = False
) -> Source:
    """Open anything that gives frames.

    ```python
    with open_source("street.mp4") as source:
        for frame in source:
            ...
    ```

    Args:
        path: a video file that FFmpeg reads; a folder of images (png, jpg, bmp, tiff, webp, in natural
            order of their names); a single image, all frames of it if it is animated or a TIFF of several pages; or
            `camera:0` for the first camera.
        images_fps: frames per second that a folder of images or a TIFF's pages stand for, 0.001 to 1000, 30 if None;
            for anything else, which has its own or none, it must be None.
        strict: images that cannot be read and videos that are damaged or cut off are errors, at once or while
            iterating; otherwise they are skipped, or used as far as they go, and `Source.warnings` tells of it.

    Raises:
        VideoError: if the input is missing, empty, not video or images, or cannot be decoded; if images of a
            folder have different sizes.
        InputError: if `images_fps` is out of range, or given for anything but a folder.
    """
    if images_fps is not None and not SLOWEST_FPS <= images_fps <= FASTEST_FPS:
        raise InputError(
            f"{images_fps} frames per second for a folder of images: expected {SLOWEST_FPS} to {FASTEST_FPS}"
        )
    if str(path).startswith(CAMERA_PREFIX):
        _refuse_fps(path, images_fps, "a camera has its own")
        return CameraSource(str(path).removeprefix(CAMERA_PREFIX))
    path = Path(path)
    if not path.exists():
        raise VideoError(f"{path}: no such file or folder; check the spelling and the working directory")
    if path.is_dir():
        return ImageSource(path, images_in(path), kind="images", fps=images_fps or IMAGES_FPS, strict=strict)
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or record it again")
    if path.suffix.lower() in IMAGE_SUFFIXES or _of_pages(path):
        if frames_of(path) > 1:
            return AnimationSource(path, fps=images_fps, pages_fps=IMAGES_FPS, strict=strict)
        _refuse_fps(path, images_fps, "a single image has none")
        return ImageSource(path, [path], kind="image", fps=IMAGES_FPS, strict=strict)
    if path.suffix.lower() in TILED_SUFFIXES:
        raise VideoError(
            f"{path}: HEIC photographs are not read (FFmpeg gives one tile of them); save it as JPEG or PNG"
        )
    _refuse_fps(path, images_fps, "a video has its own")
    return VideoFileSource(path, strict=strict)


def _of_pages(path: Path) -> bool:
    """Whether a file of another name is a TIFF or a WebP, of whose pages and frames FFmpeg gives the first alone."""
    if not path.is_file():  # of a pipe, what is looked at is gone
        return False
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:  # told of where it is read
        return False
    return head[:4] in (b"II*\0", b"MM\0*") or (head[:4], head[8:]) == (b"RIFF", b"WEBP")


def _refuse_fps(path: str | Path, images_fps: float | Fraction | None, reason: str) -> None:
    if images_fps is not None:
        raise InputError(
            f"{path}: {images_fps} frames per second were asked for, but {reason}: give a frame rate with folders "
            "of images only"
        )
