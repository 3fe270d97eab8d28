"""Label a camera or a video frame by frame, in constant memory however long it is.

python stream.py [VIDEO, FOLDER OF IMAGES or camera:0]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import lmanet
from lmanet.data.synthetic import SyntheticDrive
from lmanet.video import VideoSink, open_source


def main(source: str, weights: str = "label-memory-erfnet-camvid") -> None:
    model = lmanet.load(weights)
    session = lmanet.Session(model)
    with open_source(source) as frames:
        for frame in frames:
            began_s = time.perf_counter()
            labels = session.step(frame.image).labels  # (H, W) uint8 class ids
            took_ms = 1000 * (time.perf_counter() - began_s)
            share = np.bincount(labels.ravel(), minlength=len(model.classes)) / labels.size
            largest = int(share.argmax())
            print(
                f"{frame.time_s:.2f} s: {100 * share[largest]:.0f} % {model.classes.names[largest]}, {took_ms:.0f} ms"
            )


def rendered(path: Path) -> str:
    """A short video of a rendered street."""
    street = SyntheticDrive(split="val", sequences=1, frames=6, size=(120, 160)).sequences[0]
    with VideoSink(path, width=160, height=120, fps=15) as sink:
        for i in range(6):
            sink.write(street.image(i), i / 15)
    return str(path)


if __name__ == "__main__":
    if sys.argv[1:]:
        main(sys.argv[1])
    else:
        with (
            tempfile.TemporaryDirectory() as temporary
        ):  # a rendered street, and a network that knows such ones
            main(rendered(Path(temporary) / "street.mp4"), "label-memory-erfnet-synthetic")
