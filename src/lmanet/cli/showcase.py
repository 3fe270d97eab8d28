"""The demo's work: one synthetic drive under two models, as figures, a video and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from lmanet.data.base import Classes, Sequence
from lmanet.data.synthetic import SyntheticDrive
from lmanet.evaluation.models import ModelPredictor
from lmanet.evaluation.run import evaluate
from lmanet.session import Precision
from lmanet.video import ImageSink, VideoSink
from lmanet.video.view import labels as coloured
from lmanet.video.view import side_by_side
from lmanet.zoo import load

MODELS = {"single-frame": "erfnet-synthetic", "LMANet": "lmanet-erfnet-synthetic"}
SHEET_ROWS = 3

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Drive:
    """One sequence as a data set; keeps the `VideoData` protocol."""

    name: str
    classes: Classes
    sequences: tuple[Sequence, ...]


class Recorder(ModelPredictor):
    """A predictor that keeps what it said."""

    def __init__(self, name: str, precision: Precision) -> None:
        super().__init__(load(name), precision=precision)
        self.labels: list[Image] = []

    def predict(self, image: Image) -> Image:
        """Label (H, W, 3) uint8 RGB as (H, W) uint8 class ids, and keep them."""
        self.labels.append(super().predict(image))
        return self.labels[-1]


def compare(
    frames: int, seed: int, precision: Precision, *, on_frame: Callable[[int], None]
) -> tuple[Drive, dict[str, list[Image]], Table]:
    """Label one drive of the test split with both models.

    Returns:
        The drive (one sequence), the label maps of each model, and the table of figures.
    """
    street = SyntheticDrive(split="test", sequences=seed + 1, frames=frames)
    drive = Drive(street.name, street.classes, street.sequences[seed:])
    recorders = {title: Recorder(name, precision) for title, name in MODELS.items()}
    report = evaluate(drive, {**recorders}, vc=(8,), tc=False, progress=lambda done, total: on_frame(done))
    table = Table(title=f"{frames} rendered frames, 480×360")
    for heading in ("", "mIoU ↑", "flicker ↓", "VC8 ↑", "frames/s ↑"):
        table.add_column(heading, justify="left" if not heading else "right")
    for title, scores in report.scores.items():
        table.add_row(
            title,
            f"{100 * scores.miou:.1f} %",
            f"{100 * scores.flicker:.2f} %",
            f"{100 * scores.vc[8]:.1f} %",
            f"{scores.fps:.1f}",
        )
    return drive, {title: recorder.labels for title, recorder in recorders.items()}, table


def write_showcase(drive: Drive, labels: dict[str, list[Image]], folder: Path) -> tuple[Path, Path]:
    """Write `out.mp4` and `out.png` into a folder.

    Raises:
        VideoError: the folder or a file cannot be written.
    """
    sequence = drive.sequences[0]
    video, sheet = folder / "out.mp4", folder / "out.png"
    height, width = _panels(drive, sequence, labels, 0).shape[:2]
    fps = Fraction(1 / sequence.spacing_s).limit_denominator(1000)
    with VideoSink(video, width=width, height=height, fps=fps, time_base=1 / fps) as sink:
        for i in range(len(sequence.frame_names)):
            sink.write(_panels(drive, sequence, labels, i), i * sequence.spacing_s)
    _write_sheet(drive, sequence, labels, sheet)
    return video, sheet


def _panels(drive: Drive, sequence: Sequence, labels: dict[str, list[Image]], index: int) -> Image:
    palette = drive.classes.colours()
    return side_by_side(
        [sequence.image(index), *(coloured(maps[index], palette) for maps in labels.values())],
        ["Frame", *labels],
        drive.classes,
    )


def _write_sheet(drive: Drive, sequence: Sequence, labels: dict[str, list[Image]], path: Path) -> None:
    """Frame, labels of each model, truth: at the frames where the two models differ most in what is right."""
    palette = drive.classes.colours()
    count = len(sequence.frame_names)
    worst, best = labels.values()
    gain = np.array(
        [np.mean(best[i] == sequence.label(i)) - np.mean(worst[i] == sequence.label(i)) for i in range(count)]
    )
    # One frame from each part of the drive, so that the sheet shows more than one place.
    parts = np.array_split(np.arange(count), min(SHEET_ROWS, count))
    picked = [int(part[np.argmax(gain[part])]) for part in parts]
    columns = [
        np.vstack([sequence.image(i) for i in picked]),
        *(np.vstack([coloured(maps[i], palette) for i in picked]) for maps in labels.values()),
        np.vstack([coloured(np.asarray(sequence.label(i)), palette) for i in picked]),
    ]
    picture = side_by_side(columns, ["Frame", *labels, "Truth"], drive.classes)
    ImageSink(path).write(picture)
