"""What the video package passes around: one frame, the facts of a source, and a source itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from lmanet.errors import InputError, VideoError

SourceKind = Literal["video", "images", "image", "camera"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a source.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright (rotation metadata applied).
        index: place in the stream, from 0; an image that is skipped keeps its place.
        time_s: presentation time in seconds, as the source has it; 0 at least, strictly increasing along a stream.
        name: the file's stem for images, the zero-padded index for videos and cameras.
    """

    image: NDArray[np.uint8]
    index: int
    time_s: float
    name: str


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its frames are read.

    Attributes:
        path: the file or folder; `camera:N` for a camera.
        kind: a video file, a folder of images, a single image or a camera.
        width: of the upright frames, in pixels.
        height: of the upright frames, in pixels.
        fps: average frames per second.
        frame_count: number of frames by the header (an estimate for some containers); None if not known.
        time_base: seconds per tick: all time stamps are whole multiples of it.
        pixel_aspect: width of a pixel over its height; 1 but for anamorphic video.
    """

    path: Path
    kind: SourceKind
    width: int
    height: int
    fps: Fraction
    frame_count: int | None
    time_base: Fraction
    pixel_aspect: Fraction = Fraction(1)


class Source(ABC):
    """A stream of frames to be iterated over once, within a `with` block.

    Args:
        strict: what is wrong with the input and costs frames is an error, instead of a warning.

    Attributes:
        info: what is known before reading.
        warnings: one line for each thing that was wrong with the input and did not stop the reading, such
            as a file that ends early. Complete once the iteration has ended.
    """

    info: SourceInfo
    warnings: list[str]

    def __init__(self, *, strict: bool = False) -> None:
        self.warnings = []
        self._strict = strict
        self._stopping = False
        self._read = False

    @abstractmethod
    def _frames(self) -> Iterator[Frame]:
        """Yield the frames in order; errors as `lmanet.errors.VideoError`."""

    def _damaged(self, text: str) -> None:
        """Tell of something that costs frames: an error of a strict source, a warning otherwise."""
        if self._strict:
            raise VideoError(f"{text}; without strict, this is a warning")
        self.warnings.append(text)

    def __iter__(self) -> Iterator[Frame]:
        if self._read:
            raise InputError(f"{self.info.path}: a source is read once; open it again to read it again")
        self._read = True
        for frame in self._frames():
            yield frame
            if self._stopping:
                return

    def stop(self) -> None:
        """End the iteration after the current frame, from any thread: how to end a camera's stream."""
        self._stopping = True

    def close(self) -> None:  # noqa: B027 (not every source holds something open)
        """Give back what the source holds open; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
