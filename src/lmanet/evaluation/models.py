"""Models as predictors: what the evaluation run streams frames through."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmanet.methods.base import VideoModel
from lmanet.session import Precision, Session


class ModelPredictor:
    """A model labelling one sequence after the other; keeps the `Predictor` protocol.

    Args:
        model: any method on a network.
        precision: of the network.
        resize: (H, W) that the network sees; labels come back at the frame's own size. None: the frame's size.
        forget: begin a new stream at every frame: the control, which sees no past. The paper's memory holds the
            current frame S times then, all other methods say what the network says.
    """

    def __init__(
        self,
        model: VideoModel,
        *,
        precision: Precision = "fp32",
        resize: tuple[int, int] | None = None,
        forget: bool = False,
    ) -> None:
        self._session = Session(model, precision=precision, resize=resize)
        self._forget = forget

    def start(self) -> None:
        """Forget all past frames."""
        self._session.reset()

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB to (H, W) uint8 class ids."""
        if self._forget:
            self._session.reset()
        return self._session.step(image).labels
