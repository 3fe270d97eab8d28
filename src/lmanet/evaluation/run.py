"""The evaluation run: every sequence streamed once, all predictors in step, each frame measured."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmanet.classes import VOID
from lmanet.data.protocols import Sequence as FrameSequence
from lmanet.data.protocols import VideoData
from lmanet.errors import DataError, InputError
from lmanet.evaluation.flow import Correspondence, FrameMatcher
from lmanet.evaluation.metrics import ConfusionMatrix, as_ids, mean_iou, per_class_iou, pixel_accuracy
from lmanet.evaluation.results import Conventions, EvaluationReport, Scores
from lmanet.evaluation.temporal import Flicker, Mode, TemporalConsistency, VideoConsistency
from lmanet.flow import FLOW_NAME


class Predictor(Protocol):
    """Whatever labels the frames of a video one after the other."""

    def start(self) -> None:
        """Forget all past frames: a new sequence begins."""
        ...

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Label the next frame.

        Args:
            image: (H, W, 3) uint8 RGB, not to be written to: other predictors see it too.

        Returns:
            (H, W) uint8 class ids, 0 to K-1. The array may be reused for the next frame.
        """
        ...


def evaluate(
    data: VideoData,
    predictors: dict[str, Predictor],
    *,
    vc: Sequence[int] = (8, 16),
    tc: bool = True,
    mode: Mode = "default",
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Stream a data set once through all predictors and score them side by side.

    Frames without label are predicted, as they feed a memory, but only TC and the time see them; for
    flicker and VC_n they are a gap, as these need consecutive labelled frames. Memory does not grow with
    the length of a video.

    Args:
        data: the data set; a memory may reach across each of its sequences, never beyond.
        predictors: by name, in the order of the report.
        vc: window lengths n of VC_n, in frames.
        tc: whether to measure TC; it costs two optical flows per frame, however many predictors there are.
        mode: of the temporal metrics, see `lmanet.evaluation.temporal`.
        settings: what the predictors ran with, as JSON values by name: kept in the report.
        progress: called after every frame with the frames done and the frames in all.

    Raises:
        DataError: if the data set holds no frame, or a label that is not (H, W) uint8 of its image's size
            with ids 0 to K-1 or 255; the message names sequence, frame and value.
        InputError: if there is no predictor, or a prediction is not (H, W) uint8 with ids 0 to K-1.
    """
    if not predictors:
        raise InputError("no predictor was given: give at least one, by name")
    total = sum(len(sequence.frame_names) for sequence in data.sequences)
    if not total:
        raise DataError(f"{data.name} holds no frames: check its path and split")

    num_classes = len(data.classes)
    meters = {name: _Meter(num_classes, vc=vc, tc=tc, mode=mode) for name in predictors}
    matcher = FrameMatcher()
    done = 0
    for sequence in data.sequences:
        matcher.start_sequence()
        for name, predictor in predictors.items():
            predictor.start()
            meters[name].start_sequence()
        for index, frame_name in enumerate(sequence.frame_names):
            place = f"{data.name}, sequence {sequence.name}, frame {frame_name}"
            image = sequence.image(index)
            label = _checked_label(sequence, index, image.shape[:2], num_classes, place)
            motion = matcher.update(image) if tc else None
            for name, predictor in predictors.items():
                began_s = time.perf_counter()
                prediction = predictor.predict(image)
                elapsed_ms = (time.perf_counter() - began_s) * 1e3
                ids = _checked_prediction(prediction, image.shape[:2], num_classes, f"{name}: {place}")
                meters[name].update(label, ids, motion, elapsed_ms)
            done += 1
            if progress is not None:
                progress(done, total)
    return EvaluationReport(
        data=data.name,
        class_names=data.classes.names,
        scores={name: meter.compute() for name, meter in meters.items()},
        conventions=Conventions(mode=mode, flow=FLOW_NAME if tc else None),
        settings=dict(settings or {}),
    )


class _Meter:
    """All the measures of one predictor."""

    def __init__(self, num_classes: int, *, vc: Sequence[int], tc: bool, mode: Mode) -> None:
        self._confusion = ConfusionMatrix(num_classes)
        self._flicker = Flicker()
        self._vc = VideoConsistency(vc, mode=mode)
        self._tc = TemporalConsistency(num_classes, mode=mode) if tc else None
        self._elapsed_ms = array("d")
        self._labelled_frames = 0

    def start_sequence(self) -> None:
        self._flicker.start_sequence()
        self._vc.start_sequence()
        if self._tc is not None:
            self._tc.start_sequence()

    def update(
        self,
        label: NDArray[np.uint8] | None,
        prediction: NDArray[np.uint8],
        motion: Correspondence | None,
        elapsed_ms: float,
    ) -> None:
        self._elapsed_ms.append(elapsed_ms)
        if self._tc is not None:
            self._tc.update(prediction, motion)
        if label is None:
            self._flicker.start_sequence()
            self._vc.start_sequence()
            return
        self._labelled_frames += 1
        self._confusion.update(label, prediction)
        self._flicker.update(label, prediction)
        self._vc.update(label, prediction)

    def compute(self) -> Scores:
        confusion = self._confusion.compute()
        median_ms = float(np.median(self._elapsed_ms))
        return Scores(
            miou=mean_iou(confusion),
            per_class_iou=tuple(per_class_iou(confusion).tolist()),
            pixel_accuracy=pixel_accuracy(confusion),
            flicker=self._flicker.compute(),
            vc=self._vc.compute(),
            tc=self._tc.compute() if self._tc is not None else float("nan"),
            median_ms=median_ms,
            fps=1e3 / median_ms,
            frames=len(self._elapsed_ms),
            labelled_frames=self._labelled_frames,
        )


def _checked_label(
    sequence: FrameSequence, index: int, size: tuple[int, int], num_classes: int, place: str
) -> NDArray[np.uint8] | None:
    """The frame's label, None where it has none."""
    label = sequence.label(index)
    if label is None:
        return None
    if label.dtype != np.uint8 or label.shape != size:
        raise DataError(
            f"{place}: the label is {label.dtype} of shape {label.shape}, expected uint8 of the image's "
            f"shape, {size}: check that image and label belong together"
        )
    wrong = label[(label >= num_classes) & (label != VOID)]
    if wrong.size:
        raise DataError(
            f"{place}: the label holds id {wrong[0]} in {wrong.size} pixels, expected 0 to "
            f"{num_classes - 1} or {VOID} for void: check the file and the data set's class mapping"
        )
    return label


def _checked_prediction(
    prediction: NDArray[np.uint8], size: tuple[int, int], num_classes: int, place: str
) -> NDArray[np.uint8]:
    ids = as_ids(prediction, f"prediction of {place}")
    if ids.shape != size:
        raise InputError(
            f"{place}: the prediction's shape is {ids.shape}, expected the image's, {size}: "
            "resize the logits to the image before taking the argmax"
        )
    if ids.size and ids.max() >= num_classes:
        raise InputError(
            f"{place}: the prediction holds id {ids.max()}, expected 0 to {num_classes - 1}: "
            "the network's classes must be the data set's"
        )
    return ids
