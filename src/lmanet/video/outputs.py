"""From output names to what writes them: a video, an image or a folder of label maps, or several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmanet.errors import VideoError
from lmanet.imagefile import IMAGE_SUFFIXES
from lmanet.video.frame import SourceInfo
from lmanet.video.pipeline import Write
from lmanet.video.sink import VIDEO_FORMATS, VideoSink
from lmanet.video.stills import ImageSink, LabelSink

Draw = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]
"""Makes the view, (H', W', 3) uint8 RGB, of an image (H, W, 3) uint8 RGB and its labels (H, W) uint8."""


def default_output(info: SourceInfo) -> Path:
    """Where the view goes if nothing is said: `NAME-labelled.mp4`, of an image `.png`, in the current folder.

    Raises:
        VideoError: it is a camera, which has no name.
    """
    if info.kind == "camera":
        raise VideoError("no output: give a video (-o out.mp4), a folder for label maps, or both")
    return Path(f"{info.path.resolve().stem}-labelled{'.png' if info.kind == 'image' else '.mp4'}")


@contextmanager
def open_sinks(
    outputs: Sequence[str | Path], info: SourceInfo, *, draw: Draw, palette: NDArray[np.uint8]
) -> Iterator[list[Write[NDArray[np.uint8]]]]:
    """Open all outputs of a run; what it yields goes to `run_pipeline`, whose results are label maps.

    A name with a video's suffix gives the view as a video; one with an image's suffix, for a single image,
    the view as an image; a folder or a name without suffix gives label maps. When the block ends by an
    exception the videos are discarded.

    Args:
        outputs: one or more names.
        info: of the source: size, frame rate and time stamps of the videos.
        draw: makes the view; its size may depend on the image's size alone.
        palette: (256, 3) uint8, the colours of the label maps.

    Raises:
        VideoError: if a name fits no output, two are the same, or one would overwrite the input.
        OutputError: if one cannot be written.
    """
    _check(outputs, info)
    with ExitStack() as stack:
        yield [_open(Path(output), info, draw, palette, stack) for output in outputs]


def _check(outputs: Sequence[str | Path], info: SourceInfo) -> None:
    if not outputs:
        raise VideoError("no output: give a video (out.mp4), a folder for label maps, or both")
    resolved = [Path(output).resolve() for output in outputs]
    if len(set(resolved)) < len(resolved):
        raise VideoError(f"two outputs have the same name: {', '.join(map(str, outputs))}; give each its own")
    taken = info.path.resolve()
    # Label maps of an image are named as it is: beside it, they would take its place.
    if taken in resolved or (info.kind == "image" and taken.parent in resolved):
        raise VideoError(f"{info.path}: the output would overwrite the input; choose another name or folder")


def _open(
    path: Path, info: SourceInfo, draw: Draw, palette: NDArray[np.uint8], stack: ExitStack
) -> Write[NDArray[np.uint8]]:
    suffix = path.suffix.lower()
    if path.is_dir() or not suffix:
        labels = LabelSink(path, palette)
        return lambda frame, label: labels.write(label, frame.name)
    if suffix in VIDEO_FORMATS:
        # Drawn once before the first frame, as a file that cannot be written must be told before any work.
        height, width = draw(
            np.zeros((info.height, info.width, 3), np.uint8), np.zeros((info.height, info.width), np.uint8)
        ).shape[:2]
        video = stack.enter_context(
            VideoSink(
                path,
                width=width,
                height=height,
                fps=info.fps,
                time_base=info.time_base,
                pixel_aspect=info.pixel_aspect,
            )
        )
        return lambda frame, label: video.write(draw(frame.image, label), frame.time_s)
    if suffix in IMAGE_SUFFIXES and info.kind == "image":
        image = ImageSink(path)
        return lambda frame, label: image.write(draw(frame.image, label))
    if suffix in IMAGE_SUFFIXES:
        raise VideoError(
            f"{path}: an image as output needs a single image as input; give a video"
            f" ({', '.join(VIDEO_FORMATS)}) or a folder"
        )
    raise VideoError(
        f"{path}: {suffix} is not a known output; expected a video ({', '.join(VIDEO_FORMATS)}), an image"
        f" ({', '.join(IMAGE_SUFFIXES)}) or, for label maps, a folder (without suffix, or made before)"
    )
