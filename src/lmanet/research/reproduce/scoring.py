"""Scoring a model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch

from lmanet.api import check_classes
from lmanet.data.protocols import VideoData
from lmanet.errors import InputError
from lmanet.evaluation.models import ModelPredictor
from lmanet.evaluation.run import Predictor, evaluate
from lmanet.flow import MIN_SIDE_PX
from lmanet.methods.base import VideoModel
from lmanet.methods.registry import find_method
from lmanet.methods.single_frame import SingleFrame
from lmanet.research.reproduce.cells import Evaluation

VC = (8, 16)
"""The windows of video consistency, in frames."""


def score(
    cell: Evaluation,
    model: VideoModel,
    data: VideoData,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The scores of one model on one data set, as JSON values.

    Args:
        cell: how the model is run.
        model: the model, which stays as it is.
        data: the frames.
        progress: called with the frames done and the frames in all.

    Raises:
        InputError: the model cannot be run so, has other classes, or see `evaluate`.
    """
    check_classes(model, data)
    height, width = data.sequences[0].image(0).shape[:2]
    began = time.perf_counter()
    # On a GPU convolutions would be of TF32, not float32.
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        report = evaluate(
            data,
            {"model": _predictor(cell, as_run(cell, model))},
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


def as_run(cell: Evaluation, model: VideoModel) -> VideoModel:
    """The model as an evaluation runs it: by its method, memory size, window, border and weight; it shares the weights.

    Raises:
        InputError: a method without training on a model that has one already, or the method has no such setting.
    """
    if cell.method is not None:
        if model.method != SingleFrame.method:
            raise InputError(
                f"the method {cell.method} on a model of {model.method}: expected a single-frame network"
            )
        # Made new of a network that is in `eval` mode, on its device.
        model = find_method(cell.method)(model.backbone).to(next(model.parameters()).device).eval()
    settings = {
        "memory_size": cell.memory_size,
        "window": cell.window,
        "border": cell.border,
        "weight": cell.weight,
    }
    return model.adjusted(**{name: value for name, value in settings.items() if value is not None})


def _predictor(cell: Evaluation, model: VideoModel) -> Predictor:
    if model.method == SingleFrame.method and cell.forget:
        raise InputError(f"a single-frame network has no memory: {cell}")
    return ModelPredictor(model, forget=cell.forget)
