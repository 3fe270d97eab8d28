import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lmanet.classes import VOID, Classes
from lmanet.errors import DataError, InputError
from lmanet.evaluation.run import evaluate

CLASSES = Classes(names=("sky", "road", "car"), palette=((0, 0, 255), (90, 90, 90), (255, 0, 0)))
COLOURS = CLASSES.colours()
SIZE = (24, 32)


@dataclass(frozen=True)
class InMemorySequence:
    name: str
    images: list
    labels: list
    spacing_s: float = 1 / 30

    @property
    def frame_names(self):
        return tuple(f"{index:03}" for index in range(len(self.images)))

    def image(self, index):
        return self.images[index]

    def label(self, index):
        return self.labels[index]


@dataclass(frozen=True)
class InMemoryData:
    sequences: tuple
    name: str = "memory/test"
    classes: Classes = CLASSES


def scene(frames, *, seed=0):
    """A sequence whose images are the labels' colours: sky above a road, a car that stands still."""
    label = np.zeros(SIZE, np.uint8)
    label[12:] = 1
    label[10:16, 4:12] = 2
    label[:, -1] = VOID
    # The noise gives the optical flow something to hold on to; it stays with the pixel and below the colours.
    noise = np.random.default_rng(seed).integers(0, 40, (*SIZE, 3), np.uint8)
    image = np.maximum(COLOURS[label], noise)
    return InMemorySequence(f"scene{seed}", [image.copy() for _ in range(frames)], [label.copy()] * frames)


class Perfect:
    """Reads the class off the colour, and writes down what it was called with."""

    def __init__(self):
        self.calls = []

    def start(self):
        self.calls.append("start")

    def predict(self, image):
        self.calls.append("predict")
        distance = ((image[:, :, None].astype(int) - COLOURS[:3].astype(int)) ** 2).sum(-1)
        return distance.argmin(-1).astype(np.uint8)


class Flickering(Perfect):
    """Calls the sky a road on every second frame of a sequence, and reuses its output buffer."""

    def __init__(self):
        super().__init__()
        self.buffer = np.zeros(SIZE, np.uint8)

    def start(self):
        super().start()
        self.frame = 0

    def predict(self, image):
        self.buffer[:] = super().predict(image)
        if self.frame % 2:
            self.buffer[self.buffer == 0] = 1
        self.frame += 1
        return self.buffer


class Returns:
    """Gives the same prediction for every frame."""

    def __init__(self, prediction):
        self.prediction = prediction

    def start(self):
        pass

    def predict(self, image):
        return self.prediction


def test_two_predictors_are_streamed_in_step_and_scored():
    data = InMemoryData((scene(4, seed=0), scene(3, seed=1)))
    perfect, flickering = Perfect(), Flickering()
    seen = []

    report = evaluate(
        data, {"perfect": perfect, "flickering": flickering}, vc=(2, 4), progress=lambda *n: seen.append(n)
    )

    assert perfect.calls == ["start", *["predict"] * 4, "start", *["predict"] * 3] == flickering.calls
    assert seen == [(done, 7) for done in range(1, 8)]
    assert report.data == "memory/test"
    assert report.class_names == CLASSES.names
    assert list(report.scores) == ["perfect", "flickering"]
    assert report.conventions.mode == "default"
    assert report.conventions.flow is not None and report.conventions.flow.startswith("DIS")
    assert report.environment.torch == torch.__version__
    assert report.environment.threads == torch.get_num_threads()

    best = report.scores["perfect"]
    assert (best.miou, best.pixel_accuracy, best.per_class_iou) == (1.0, 1.0, (1.0, 1.0, 1.0))
    assert (best.flicker, best.vc, best.tc) == (0.0, {2: 1.0, 4: 1.0}, 1.0)
    assert (best.frames, best.labelled_frames) == (7, 7)
    assert best.median_ms > 0
    assert best.fps == pytest.approx(1e3 / best.median_ms)

    # Pixels per frame, without the void column: 24·31 = 744; car 48, sky 10·31 + 2·23 = 356, road 340.
    worse = report.scores["flickering"]
    wrong, frames = 2 + 1, 7
    sky = (frames - wrong) / frames
    road = frames * 340 / (frames * 340 + wrong * 356)
    assert worse.per_class_iou == pytest.approx((sky, road, 1.0))
    assert worse.miou == pytest.approx((sky + road + 1) / 3)
    assert worse.pixel_accuracy == pytest.approx(1 - wrong * 356 / (frames * 744))
    assert worse.flicker == pytest.approx(356 / 744)
    assert worse.vc == {2: pytest.approx(1 - 356 / 744), 4: pytest.approx(1 - 356 / 744)}
    assert worse.tc < 0.8


def test_frames_without_label_are_predicted_but_break_the_label_metrics():
    sequence = scene(6)
    # Runs of labelled frames: 0 to 1 and 4 to 5; the flicker between 1 and 4 must not be seen.
    sequence.labels[2:4] = [None, None]
    data = InMemoryData((sequence,))

    class ChangesAtFrame3(Flickering):
        def predict(self, image):
            prediction = Perfect.predict(self, image)
            if self.frame >= 3:
                prediction[:] = 1
            self.frame += 1
            return prediction

    scores = evaluate(data, {"one": ChangesAtFrame3()}, vc=(2, 3)).scores["one"]

    assert (scores.frames, scores.labelled_frames) == (6, 4)
    assert scores.flicker == 0.0
    assert scores.vc[2] == 1.0
    assert math.isnan(scores.vc[3])
    # TC needs no label: it sees the change.
    assert scores.tc < 1.0


def test_without_tc_no_flow_is_computed():
    tiny = InMemorySequence("tiny", [np.zeros((2, 3, 3), np.uint8)] * 2, [np.zeros((2, 3), np.uint8)] * 2)
    data = InMemoryData((tiny,))
    predictors = {"one": Returns(np.zeros((2, 3), np.uint8))}

    report = evaluate(data, predictors, tc=False)
    assert report.conventions.flow is None
    assert math.isnan(report.scores["one"].tc)
    assert report.scores["one"].miou == 1.0

    with pytest.raises(InputError, match="tc=False"):
        evaluate(data, predictors)


def test_reference_mode_reaches_the_temporal_metrics():
    data = InMemoryData((scene(3),))
    report = evaluate(data, {"one": Perfect()}, vc=(3,), mode="reference")

    assert report.conventions.mode == "reference"
    assert math.isnan(report.scores["one"].vc[3])  # Its only window is the last of the sequence.


def test_labels_out_of_range_name_the_place_and_the_value():
    sequence = scene(3)
    sequence.labels[1] = sequence.labels[1].copy()
    sequence.labels[1][0, :2] = 11
    with pytest.raises(
        DataError, match="memory/test, sequence scene0, frame 001: the label holds id 11 in 2 pixels"
    ):
        evaluate(InMemoryData((sequence,)), {"one": Perfect()})


def test_labels_of_another_size_than_the_image_are_refused():
    sequence = scene(2)
    sequence.labels[0] = sequence.labels[0][:, :-1]
    with pytest.raises(DataError, match=r"frame 000: the label is uint8 of shape \(24, 31\)"):
        evaluate(InMemoryData((sequence,)), {"one": Perfect()})


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.zeros((12, 16), np.uint8), r"prediction's shape is \(12, 16\), expected the image's, \(24, 32\)"),
        (np.full(SIZE, 3, np.uint8), "prediction holds id 3, expected 0 to 2"),
        (np.zeros(SIZE, np.int64), "prediction of one: .* is int64"),
        (None, "prediction of one: .* is a NoneType"),
    ],
)
def test_wrong_predictions_are_refused(prediction, message):
    with pytest.raises(InputError, match=message):
        evaluate(InMemoryData((scene(2),)), {"one": Returns(prediction)}, tc=False)


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(InputError, match="no predictor"):
        evaluate(InMemoryData((scene(2),)), {})
    with pytest.raises(DataError, match="memory/test holds no frames"):
        evaluate(InMemoryData(()), {"one": Perfect()})
