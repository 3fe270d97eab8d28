"""Models as predictors: what the evaluation run streams frames through."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmanet.backbones import Backbone
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.session import Precision, Session


class ModelPredictor:
    """A model labelling one sequence after the other; keeps the `Predictor` protocol.

    Args:
        model: one with a memory, or a backbone by itself.
        precision: of the network.
        forget: begin a new stream at every frame: the control, which sees no past. The paper's memory holds the
            current frame S times then, one of labels says nothing.
    """

    def __init__(
        self, model: VideoModel | Backbone, *, precision: Precision = "fp32", forget: bool = False
    ) -> None:
        self._session = Session(model, precision=precision)
        self._forget = forget

    def start(self) -> None:
        """Forget all past frames."""
        self._session.reset()

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB to (H, W) uint8 class ids."""
        if self._forget:
            self._session.reset()
        return self._session.step(image).labels


def check_classes(model: VideoModel | Backbone, names: tuple[str, ...], data: str) -> None:
    """Raise InputError unless the model's classes are the data set's: in name, or of a network without names in number.

    Args:
        model: with `classes`, as `lmanet.load` gives it, or without.
        names: the data set's class names.
        data: its name, for the message.
    """
    if hasattr(model, "classes"):
        own = model.classes.names
        fits, got = own == names, f"{len(own)} classes ({', '.join(own)})"
    else:
        backbone = model.backbone if isinstance(model, VideoModel) else model
        fits, got = backbone.num_classes == len(names), f"{backbone.num_classes} classes"
    if not fits:
        raise InputError(
            f"the model has {got}, {data} has {len(names)} ({', '.join(names)}): evaluate it on data with its own "
            f"classes"
        )
