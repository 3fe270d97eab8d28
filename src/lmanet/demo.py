"""The demo's work: one rendered drive by one network under three methods, as scores, a video and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lmanet.classes import Classes
from lmanet.data.protocols import Sequence
from lmanet.data.street.degrade import Degradation
from lmanet.data.synthetic import SyntheticDrive
from lmanet.errors import InputError
from lmanet.evaluation.models import ModelPredictor
from lmanet.evaluation.results import EvaluationReport
from lmanet.evaluation.run import evaluate
from lmanet.methods.flow_average import FlowAverage
from lmanet.methods.single_frame import SingleFrame
from lmanet.methods.training_free import TrainingFreeMemory
from lmanet.session import Precision
from lmanet.video import ImageSink, VideoSink
from lmanet.video.view import labels as coloured
from lmanet.video.view import side_by_side
from lmanet.zoo import load

NETWORK = "erfnet-synthetic"
ALONE = "frame by frame"
METHODS = {ALONE: SingleFrame, "flow average": FlowAverage, "memory": TrainingFreeMemory}
"""By what the demo calls them; none was trained."""

SPOILT = Degradation(noise=0.25, motion_blur=0.25, exposure_flicker=0.35, fog=0.3, occlusion=0.25)
"""As by a cheap camera on a bad day, whose exposure fails now and then."""

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
    """What the methods made of one drive.

    Attributes:
        drive: the one sequence, with its true labels.
        labels: of each method, one map (H, W) uint8 per frame.
        report: the scores of each method.
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
    """Label one drive of the synthetic test split by each method.

    Args:
        frames: length of the drive, at least 8.
        seed: which drive, from 0.
        precision: of the networks.
        device: that they run on.
        progress: called after every frame with the frames done and the frames in all.

    Raises:
        InputError: the drive is too short to be scored, or the seed is negative.
        WeightsError: the demo's network is not there.
    """
    if frames < VC_FRAMES:
        raise InputError(
            f"{frames} frames: expected at least {VC_FRAMES}, as VC{VC_FRAMES} needs them in a row"
        )
    if seed < 0:
        raise InputError(f"seed {seed}: expected 0 or more")
    street = SyntheticDrive(split="test", sequences=seed + 1, frames=frames, degradation=SPOILT)
    drive = Drive(street.name, street.classes, (street.sequences[seed],))
    network = load(NETWORK).to(device).backbone
    recorders = {
        title: Recorder(method(network).eval(), precision=precision) for title, method in METHODS.items()
    }
    report = evaluate(drive, {**recorders}, vc=(VC_FRAMES,), tc=False, progress=progress)
    return Comparison(drive, {title: recorder.labels for title, recorder in recorders.items()}, report)


def write_video(comparison: Comparison, path: Path) -> None:
    """Write the frames and the labels of each method side by side, with a legend, as a video.

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
    """Write a few frames, the labels of each method and the truth as one image, and below them one column over time.

    The frames are those at which the labels of the network alone flicker most, one from each part of the drive. The
    column of pixels is the one where they flicker most over the whole drive; below each panel it is drawn frame after
    frame, from left to right. What flickers makes stripes there.

    Raises:
        OutputError: the file cannot be written.
    """
    drive, sequence = comparison.drive, comparison.drive.sequences[0]
    count = len(sequence.frame_names)
    truth = [_true(sequence, i) for i in range(count)]
    flicker = _flicker(comparison.labels[ALONE], truth)
    parts = np.array_split(np.arange(1, count), min(SHEET_ROWS, count - 1))
    picked = [int(part[np.argmax(flicker.mean((1, 2))[part - 1])]) for part in parts]
    column = int(np.argmax(flicker.mean((0, 1))))
    rows = {
        "Frame": [sequence.image(i) for i in range(count)],
        **{title: [_colour(drive, one) for one in maps] for title, maps in comparison.labels.items()},
        "Truth": [_colour(drive, one) for one in truth],
    }
    panels = [
        np.vstack([*(pictures[i] for i in picked), _over_time(pictures, column)])
        for pictures in rows.values()
    ]
    ImageSink(path).write(side_by_side(panels, [*rows], drive.classes))


def _panels(comparison: Comparison) -> Iterator[Image]:
    drive, labels = comparison.drive, comparison.labels
    sequence = drive.sequences[0]
    for i in range(len(sequence.frame_names)):
        panels = [sequence.image(i), *(_colour(drive, maps[i]) for maps in labels.values())]
        yield side_by_side(panels, ["Frame", *labels], drive.classes)


def _flicker(maps: list[Image], truth: list[Image]) -> NDArray[np.bool_]:
    """Where a label changes although the true one stays: (T - 1, H, W), of each frame but the first."""
    said, true = np.stack(maps), np.stack(truth)
    return (said[1:] != said[:-1]) & (true[1:] == true[:-1])


def _over_time(pictures: list[Image], column: int) -> Image:
    """One column of pixels of each picture, side by side, stretched to a picture's width."""
    height, width = pictures[0].shape[:2]
    strip = np.stack([picture[:, column] for picture in pictures], 1)
    return np.asarray(cv2.resize(strip, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _true(sequence: Sequence, index: int) -> Image:
    label = sequence.label(index)
    assert label is not None, "the synthetic drive labels every frame"
    return label


def _colour(drive: Drive, label: Image) -> Image:
    return coloured(label, drive.classes.colours())
