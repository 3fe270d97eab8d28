"""Scoring a model, with the memory of every k-th frame if wanted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmanet.backbones import Backbone
from lmanet.data.protocols import VideoData
from lmanet.errors import InputError
from lmanet.evaluation.models import ModelPredictor, check_classes
from lmanet.evaluation.run import Predictor, evaluate
from lmanet.flow import MIN_SIDE_PX
from lmanet.methods.base import VideoModel
from lmanet.methods.lmanet import VideoSegmenter
from lmanet.methods.training_free import TrainingFreeSegmenter
from lmanet.research.reproduce.cells import Evaluation
from lmanet.session import Session

VC = (8, 16)
"""The windows of video consistency, in frames."""


class SpacedPredictor:
    """A model whose memory holds every k-th frame: frame t reads t-k, t-2k, and so on. Keeps the `Predictor` protocol.

    There are k streams, and frame t goes through stream t mod k. Each begins with its own first frame, so the first k
    frames of a sequence see no past.

    Args:
        model: the model with a memory.
        spacing: k, at least 1; 1 is a `ModelPredictor`.
    """

    def __init__(self, model: VideoModel, spacing: int) -> None:
        if spacing < 1:
            raise InputError(
                f"spacing {spacing}: expected 1 for every frame, 2 for every second one, and so on"
            )
        shared = model.optimize()
        self._sessions = [Session(shared) for _ in range(spacing)]
        self._next = 0

    def start(self) -> None:
        """Forget all past frames."""
        for session in self._sessions:
            session.reset()
        self._next = 0

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB to (H, W) uint8 class ids."""
        session = self._sessions[self._next % len(self._sessions)]
        self._next += 1
        return session.step(image).labels


def score(
    cell: Evaluation,
    model: Backbone | VideoModel,
    data: VideoData,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The scores of one model on one data set, as JSON values.

    Args:
        cell: how the model runs.
        model: the model, which is changed to run so.
        data: the frames.
        progress: called with the frames done and the frames in all.

    Raises:
        InputError: a single-frame network is asked to do what only a memory can; or see `evaluate`.
    """
    check_classes(model, data.classes.names, data.name)
    height, width = data.sequences[0].image(0).shape[:2]
    began = time.perf_counter()
    # On a GPU convolutions would be of TF32, not float32.
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        report = evaluate(
            data,
            {"model": _predictor(cell, model)},
            vc=VC,
            tc=min(height, width) >= MIN_SIDE_PX,
            progress=progress,
        )
    content = json.loads(report.to_json())
    scores = content["scores"]["model"]
    seconds = time.perf_counter() - began
    return {
        "scores": scores,
        "class_names": content["class_names"],
        "conventions": content["conventions"],
        "parts": {
            "evaluation": {"seconds": seconds, "samples": scores["frames"], "pixels": height * width},
        },
    }


def _predictor(cell: Evaluation, model: Backbone | VideoModel) -> Predictor:
    if cell.training_free and not isinstance(model, Backbone):
        raise InputError(f"the memory without training on a model that has one: {cell}")
    ready = TrainingFreeSegmenter(model) if cell.training_free and isinstance(model, Backbone) else model
    if not isinstance(ready, VideoModel):
        if (cell.memory_size, cell.window, cell.border, cell.spacing, cell.forget) != (None,) * 3 + (
            1,
            False,
        ):
            raise InputError(f"a single-frame network has no memory: {cell}")
        return ModelPredictor(ready)
    if cell.memory_size is not None:
        ready.memory_size = cell.memory_size
    if cell.window is not None:
        ready.window = cell.window
    if cell.border is not None:
        if not isinstance(ready, VideoSegmenter):
            raise InputError(f"a {type(ready).__name__} has one border, mask: leave border out")
        ready.border = cell.border
    if cell.spacing != 1 and cell.forget:
        raise InputError(
            f"spacing {cell.spacing} of a memory that holds the current frame alone: leave one out"
        )
    if cell.spacing == 1:
        return ModelPredictor(ready, forget=cell.forget)
    return SpacedPredictor(ready, cell.spacing)
