"""From output names to what writes them: a video, an image or a folder of label maps, or several at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmanet.errors import LmanetError, VideoError
from lmanet.imagefile import IMAGE_SUFFIXES
from lmanet.video.frame import Frame, SourceInfo
from lmanet.video.pipeline import Write
from lmanet.video.sink import VIDEO_FORMATS, VideoSink
from lmanet.video.stills import ImageSink, LabelSink
from lmanet.words import counted

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


class Sink(Protocol):
    """An output by itself."""

    @property
    def path(self) -> Path:
        """Its name."""
        ...

    @property
    def frames(self) -> int:
        """How many it holds."""
        ...

    def close(self) -> None:
        """Finish it; safe to call twice."""
        ...


class Outputs:
    """All outputs of a run: any thread may close them, between two frames.

    Args:
        sinks: each with what writes a frame and its labels to it.

    Attributes:
        frames: how many are in all of them.
    """

    def __init__(self, sinks: Sequence[tuple[Sink, Write[NDArray[np.uint8]]]]) -> None:
        self._sinks = sinks
        self._lock = threading.Lock()
        self._closed = False
        self.frames = 0

    def write(self, frame: Frame, label: NDArray[np.uint8]) -> None:
        """Write a frame's view or its labels, (H, W) uint8, to each.

        Raises:
            VideoError: they are closed, or one of its kind cannot be made.
            OutputError: one cannot be written.
        """
        with self._lock:
            if self._closed:
                raise VideoError("the outputs are closed: write before they are")
            for _, write in self._sinks:
                write(frame, label)
            self.frames += 1

    def close(self) -> None:
        """Finish each, so that it can be used; waits for the frame that is being written. Safe to call twice.

        Raises:
            OutputError: one cannot be finished; the others are.
        """
        with self._lock:
            self._closed = True
            errors: list[LmanetError] = []
            for sink, _ in self._sinks:
                try:
                    sink.close()
                except LmanetError as error:
                    errors.append(error)
        for error in errors:
            raise error

    @property
    def kept(self) -> dict[Path, int]:
        """Those that hold frames, and how many each."""
        return {sink.path: sink.frames for sink, _ in self._sinks if sink.frames}


@contextmanager
def open_sinks(
    outputs: Sequence[str | Path],
    info: SourceInfo,
    *,
    draw: Draw,
    palette: NDArray[np.uint8],
    run: str = "",
    record: tuple[str, bytes] | None = None,
) -> Iterator[Outputs]:
    """Open all outputs of a run; their `write` goes to `run_pipeline`, whose results are label maps.

    A name with a video's suffix gives the view as a video; one with an image's suffix, for a single image,
    the view as an image; a folder or a name without suffix gives label maps. When the block ends, by an exception too,
    the outputs are finished with the frames that they have; of a video without any there is no file. The exception gets
    a note that says what was kept.

    Args:
        outputs: one or more names.
        info: of the source: size, frame rate and time stamps of the videos.
        draw: makes the view; its size may depend on the image's size alone.
        palette: (256, 3) uint8, the colours of the label maps.
        run: noted in each label map, see `LabelSink`.
        record: a file beside the label maps, likewise.

    Raises:
        VideoError: if a name fits no output, two are the same, or one would overwrite the input.
        OutputError: if one cannot be written.
    """
    check_outputs(outputs, info)
    sinks: list[tuple[Sink, Write[NDArray[np.uint8]]]] = []
    opened = Outputs(sinks)
    try:
        for output in outputs:
            sinks.append(
                _open(Path(output), info, draw, lambda path: LabelSink(path, palette, run=run, record=record))
            )
        yield opened
    except BaseException as error:
        try:
            opened.close()
        except LmanetError as second:
            error.add_note(str(second))
        if opened.kept:
            kept = ", ".join(f"{path} ({counted(count, 'frame')})" for path, count in opened.kept.items())
            error.add_note(f"Kept: {kept}")
        raise
    opened.close()


def is_label_folder(path: str | Path) -> bool:
    """Whether an output of this name is a folder of label maps."""
    return Path(path).is_dir() or not Path(path).suffix


def check_outputs(outputs: Sequence[str | Path], info: SourceInfo) -> None:
    """See that outputs are named, each once, and none would overwrite the input.

    Raises:
        VideoError: if not.
    """
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
    path: Path, info: SourceInfo, draw: Draw, label_sink: Callable[[Path], LabelSink]
) -> tuple[Sink, Write[NDArray[np.uint8]]]:
    suffix = path.suffix.lower()
    if is_label_folder(path):
        labels = label_sink(path)
        return labels, lambda frame, label: labels.write(label, frame.name)
    if suffix in VIDEO_FORMATS:
        # Drawn once before the first frame, as a file that cannot be written must be told before any work.
        height, width = draw(
            np.zeros((info.height, info.width, 3), np.uint8), np.zeros((info.height, info.width), np.uint8)
        ).shape[:2]
        video = VideoSink(
            path,
            width=width,
            height=height,
            fps=info.fps,
            time_base=info.time_base,
            pixel_aspect=info.pixel_aspect,
        )
        return video, lambda frame, label: video.write(draw(frame.image, label), frame.time_s)
    if suffix in IMAGE_SUFFIXES and info.kind == "image":
        image = ImageSink(path)
        return image, lambda frame, label: image.write(draw(frame.image, label))
    if suffix in IMAGE_SUFFIXES:
        raise VideoError(
            f"{path}: an image as output needs a single image as input; give a video"
            f" ({', '.join(VIDEO_FORMATS)}) or a folder"
        )
    raise VideoError(
        f"{path}: {suffix} is not a known output; expected a video ({', '.join(VIDEO_FORMATS)}), an image"
        f" ({', '.join(IMAGE_SUFFIXES)}) or, for label maps, a folder (without suffix, or made before)"
    )
