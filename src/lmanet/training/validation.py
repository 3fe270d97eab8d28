"""The measure that chooses the best epoch."""

from __future__ import annotations

from accelerate import Accelerator

from lmanet.data.protocols import VideoData
from lmanet.evaluation.metrics import ConfusionMatrix, mean_iou
from lmanet.methods.base import VideoModel
from lmanet.session import Session


def validate(model: VideoModel, data: VideoData, accelerator: Accelerator, *, forget: bool = False) -> float:
    """MIoU (0 to 1) of a model streaming through a data set, in the training's precision.

    Args:
        model: any method on a network.
        data: the frames.
        accelerator: for its precision.
        forget: begin a new stream at every frame: the control, whose memory is the current frame.
    """
    precision = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
    confusion = ConfusionMatrix(len(data.classes))
    session = Session(model, precision=precision)
    for sequence in data.sequences:
        session.reset()
        for i in range(len(sequence.frame_names)):
            if forget:
                session.reset()
            labels = session.step(sequence.image(i)).labels
            truth = sequence.label(i)
            if truth is not None:
                confusion.update(truth, labels)
    return mean_iou(confusion.compute())
