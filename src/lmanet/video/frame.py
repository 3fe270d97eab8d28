"""What the video package passes around: one frame, the facts of a source, and a source itself."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
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
        wanted: whether the frame of an index is yielded; others need not be decoded. All of them, unless it is set
            before the iteration.
        warnings: one line for each thing that was wrong with the input and did not stop the reading, such
            as a file that ends early. Complete once the iteration has ended.
    """

    info: SourceInfo
    warnings: list[str]
    wanted: Callable[[int], bool]

    def __init__(self, *, strict: bool = False) -> None:
        self.wanted = lambda index: True
        self.warnings = []
        self._strict = strict
        self._stopping = False
        self._read = False
        self._told: list[Callable[[], None]] = []
        self._busy = threading.Lock()  # held while a frame is being read
        self._begun: Iterator[Frame] | None = None
        self._left = False  # the reader has to close the source, as nobody may while it reads

    @abstractmethod
    def _frames(self) -> Iterator[Frame]:
        """Yield the frames in order, those that are not wanted or not; errors as `lmanet.errors.VideoError`."""

    def _damaged(self, text: str) -> None:
        """Tell of something that costs frames: an error of a strict source, a warning otherwise."""
        if self._strict:
            raise VideoError(f"{text}; without strict, this is a warning")
        self.warnings.append(text)

    def __iter__(self) -> Iterator[Frame]:
        if self._read:
            raise InputError(f"{self.info.path}: a source is read once; open it again to read it again")
        self._read = True
        frames = self._begun or self._frames()
        while not self._stopping:
            with self._busy:
                frame = next(frames, None)
            if self._left:
                self.close()
            if frame is None or self._left:
                return
            if self.wanted(frame.index):
                yield frame

    def peek(self) -> Frame | None:
        """The first frame, which the iteration gives again; None if there is none. Not while iterating."""
        frames = self._begun or self._frames()
        first = next(frames, None)
        self._begun = itertools.chain([] if first is None else [first], frames)
        return first

    def name_of(self, index: int) -> str | None:
        """The name that the frame of an index has, if there is such a frame; None if it is known that there is none."""
        return f"{index:06d}"

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    def stop(self) -> None:
        """End the iteration after the current frame, from any thread: how to end a camera's stream."""
        self._stopping = True
        for call in self._told:
            call()

    def when_stopped(self, call: Callable[[], None]) -> None:
        """Have `call` called by `stop`, in its thread; at once, if it was stopped before."""
        self._told.append(call)
        if self._stopping:
            call()

    def close(self) -> None:  # noqa: B027 (not every source holds something open)
        """Give back what the source holds open; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._busy.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._busy.release()
        else:  # A read that hangs, in another thread: to close what it reads from would crash it.
            self._left = True
