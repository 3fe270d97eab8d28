"""The demo's work: one rendered drive under two models, as scores, a video and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lmanet.classes import Classes
from lmanet.data.protocols import Sequence
from lmanet.data.synthetic import SyntheticDrive
from lmanet.errors import InputError
from lmanet.evaluation.models import ModelPredictor
from lmanet.evaluation.results import EvaluationReport
from lmanet.evaluation.run import evaluate
from lmanet.session import Precision
from lmanet.video import ImageSink, VideoSink
from lmanet.video.view import labels as coloured
from lmanet.video.view import side_by_side
from lmanet.zoo import load

WITHOUT, WITH = "single-frame", "label-memory"
MODELS = {WITHOUT: "erfnet-synthetic", WITH: "label-memory-erfnet-synthetic"}
VC_FRAMES = 8
"""Window of the video consistency that the demo reports; a shorter drive has none."""
SHEET_ROWS = 3

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Drive:
    """One sequence as a data set; keeps the `VideoData` protocol."""

    name: str
    classes: Classes
    sequences: tuple[Sequence]


@dataclass(frozen=True)
class Comparison:
    """What two models made of one drive.

    Attributes:
        drive: the one sequence, with its true labels.
        labels: of each model, one map (H, W) uint8 per frame.
        report: the scores of each model.
    """

    drive: Drive
    labels: dict[str, list[Image]]
    report: EvaluationReport


class Recorder(ModelPredictor):
    """A predictor that keeps what it said, in `labels`."""

    def start(self) -> None:
        """Forget all past frames, and what was said of them."""
        super().start()
        self.labels: list[Image] = []

    def predict(self, image: Image) -> Image:
        """Label (H, W, 3) uint8 RGB as (H, W) uint8 class ids, and keep them."""
        self.labels.append(super().predict(image))
        return self.labels[-1]


def compare(
    frames: int,
    seed: int,
    *,
    precision: Precision,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Label one drive of the synthetic test split with and without memory.

    Args:
        frames: length of the drive, at least 8.
        seed: which drive, from 0.
        precision: of the networks.
        device: that they run on.
        progress: called after every frame with the frames done and the frames in all.

    Raises:
        InputError: the drive is too short to be scored, or the seed is negative.
        WeightsError: the demo's models are not there.
    """
    if frames < VC_FRAMES:
        raise InputError(
            f"{frames} frames: expected at least {VC_FRAMES}, as VC{VC_FRAMES} needs them in a row"
        )
    if seed < 0:
        raise InputError(f"seed {seed}: expected 0 or more")
    street = SyntheticDrive(split="test", sequences=seed + 1, frames=frames)
    drive = Drive(street.name, street.classes, (street.sequences[seed],))
    recorders = {
        title: Recorder(load(name).to(device), precision=precision) for title, name in MODELS.items()
    }
    report = evaluate(drive, {**recorders}, vc=(VC_FRAMES,), tc=False, progress=progress)
    return Comparison(drive, {title: recorder.labels for title, recorder in recorders.items()}, report)


def write_video(comparison: Comparison, path: Path) -> None:
    """Write the frames and the labels of each model side by side, with a legend, as a video.

    Raises:
        OutputError: the file cannot be written.
    """
    sequence = comparison.drive.sequences[0]
    fps = Fraction(1 / sequence.spacing_s).limit_denominator(1000)
    panels = _panels(comparison)
    first = next(panels)
    height, width = first.shape[:2]
    with VideoSink(path, width=width, height=height, fps=fps, time_base=1 / fps) as sink:
        sink.write(first, 0.0)
        for i, picture in enumerate(panels, start=1):
            sink.write(picture, i * sequence.spacing_s)


def write_sheet(comparison: Comparison, path: Path) -> None:
    """Write a few frames, the labels of each model and the truth as one image.

    The frames are those where the model with memory gains most over the one without.

    Raises:
        OutputError: the file cannot be written.
    """
    drive, sequence = comparison.drive, comparison.drive.sequences[0]
    picked = _telling_frames(sequence, comparison.labels)
    columns = {
        "Frame": [sequence.image(i) for i in picked],
        **{title: [_colour(drive, maps[i]) for i in picked] for title, maps in comparison.labels.items()},
        "Truth": [_colour(drive, sequence.label(i)) for i in picked],
    }
    picture = side_by_side([np.vstack(column) for column in columns.values()], [*columns], drive.classes)
    ImageSink(path).write(picture)


def _panels(comparison: Comparison) -> Iterator[Image]:
    drive, labels = comparison.drive, comparison.labels
    sequence = drive.sequences[0]
    for i in range(len(sequence.frame_names)):
        panels = [sequence.image(i), *(_colour(drive, maps[i]) for maps in labels.values())]
        yield side_by_side(panels, ["Frame", *labels], drive.classes)


def _telling_frames(sequence: Sequence, labels: dict[str, list[Image]]) -> list[int]:
    """One frame from each part of the drive, so that they show more than one place."""
    count = len(sequence.frame_names)
    truth = [sequence.label(i) for i in range(count)]
    right = {
        title: np.array([np.mean(maps[i] == truth[i]) for i in range(count)])
        for title, maps in labels.items()
    }
    gain = right[WITH] - right[WITHOUT]
    parts = np.array_split(np.arange(count), min(SHEET_ROWS, count))
    return [int(part[np.argmax(gain[part])]) for part in parts]


def _colour(drive: Drive, label: Image | None) -> Image:
    assert label is not None, "the synthetic drive labels every frame"
    return coloured(label, drive.classes.colours())
