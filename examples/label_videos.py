"""Label every video of a folder: a video to look at, and label maps, beside each.

python label_videos.py [FOLDER] [OUT]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import lmanet
from lmanet.data.synthetic import SyntheticDrive
from lmanet.video import VideoSink


def main(folder: Path, out: Path, weights: str = "erfnet-camvid") -> None:
    model = lmanet.find_model(weights, method="flow-average")
    for video in sorted(path for path in folder.iterdir() if path.suffix in (".mp4", ".mov", ".mkv")):
        outputs = [out / f"{video.stem}.mp4", out / video.stem]
        done = lmanet.label_video(video, outputs, model, view="side-by-side")
        largest = max(done.shares, key=lambda name: done.shares[name])
        print(
            f"{video.name}: {done.frames} frames by {done.method}, {100 * done.shares[largest]:.0f} % {largest}"
        )


def rendered(folder: Path) -> Path:
    """A folder of two short videos of rendered streets."""
    folder.mkdir()
    for street in SyntheticDrive(split="val", sequences=2, frames=4, size=(120, 160)).sequences:
        with VideoSink(folder / f"{street.name}.mp4", width=160, height=120, fps=15) as sink:
            for i in range(4):
                sink.write(street.image(i), i / 15)
    return folder


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    out = given[1] if given[1:] else Path("labelled")
    if given:
        main(given[0], out)
    else:
        with (
            tempfile.TemporaryDirectory() as temporary
        ):  # rendered streets, and a network that knows such ones
            main(rendered(Path(temporary) / "videos"), out, "erfnet-synthetic")
