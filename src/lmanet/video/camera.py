"""A live camera as a source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from lmanet.errors import VideoError
from lmanet.video.frame import Frame, Source, SourceInfo

# Cameras do not say when a frame was taken: the clock at its arrival is used, in milliseconds.
TIME_BASE = Fraction(1, 1000)
USUAL_FPS = 30.0


class CameraSource(Source):
    """Frames of a camera until `stop()` is called; time stamps are seconds since the first frame.

    Args:
        number: the camera's number as text, "0" for the first.

    Raises:
        VideoError: if the number is not one or the camera cannot be opened.
    """

    def __init__(self, number: str) -> None:
        super().__init__()
        if not number.isdecimal():
            raise VideoError(f"camera:{number}: expected a number, such as camera:0 for the first camera")
        self._capture = cv2.VideoCapture(int(number))
        if not self._capture.isOpened():
            raise VideoError(
                f"camera:{number}: cannot be opened; check that it is plugged in, that no other program"
                " holds it and that you may read it (on Linux /dev/video*), or try another number"
            )
        self.info = SourceInfo(
            path=Path(f"camera:{number}"),
            kind="camera",
            width=int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            height=int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            fps=Fraction(self._capture.get(cv2.CAP_PROP_FPS) or USUAL_FPS).limit_denominator(1001),
            frame_count=None,
            time_base=TIME_BASE,
        )

    def _frames(self) -> Iterator[Frame]:
        start_s: float | None = None
        index = ticks = 0
        while True:
            arrived, bgr = self._capture.read()
            if not arrived:
                self.warnings.append(f"{self.info.path}: the camera stopped after {index} frames")
                return
            now_s = time.monotonic()
            start_s = now_s if start_s is None else start_s
            # Two frames delivered in one burst still need time stamps that increase.
            ticks = max(round((now_s - start_s) / TIME_BASE), ticks + (index > 0))
            image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            yield Frame(image, index, float(ticks * TIME_BASE), f"{index:06d}")
            index += 1

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()
