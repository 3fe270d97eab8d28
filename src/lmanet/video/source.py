"""Where frames come from: `open_source` takes a video file, a folder of images, an image or a camera."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from lmanet.errors import InputError, VideoError
from lmanet.video.camera import CameraSource
from lmanet.video.frame import Source
from lmanet.video.images import IMAGE_SUFFIXES, ImageSource, images_in
from lmanet.video.videofile import VideoFileSource

CAMERA_PREFIX = "camera:"


def open_source(path: str | Path, *, images_fps: float | Fraction = 30) -> Source:
    """Open anything that gives frames.

    ```python
    with open_source("street.mp4") as source:
        for frame in source:
            ...
    ```

    Args:
        path: a video file that FFmpeg reads; a folder of images (png, jpg, bmp, tiff, webp, in natural
            order of their names); a single image; or `camera:0` for the first camera.
        images_fps: frames per second that a folder of images stands for; videos carry their own.

    Raises:
        VideoError: if the input is missing, empty, not video or images, or cannot be decoded.
        InputError: if `images_fps` is not positive.
    """
    if images_fps <= 0:
        raise InputError(f"images_fps is {images_fps}: give frames per second above 0")
    if str(path).startswith(CAMERA_PREFIX):
        return CameraSource(str(path).removeprefix(CAMERA_PREFIX))
    path = Path(path)
    if not path.exists():
        raise VideoError(f"{path}: no such file or folder; check the spelling and the working directory")
    if path.is_dir():
        return ImageSource(path, images_in(path), kind="images", fps=images_fps)
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or record it again")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource(path, [path], kind="image", fps=images_fps)
    return VideoFileSource(path)
