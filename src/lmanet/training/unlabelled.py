"""Video without labels: a trained network's own predictions in place of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmanet.backbones import Backbone
from lmanet.data.base import VOID, Classes, DerivedSequence, VideoData
from lmanet.errors import InputError
from lmanet.session import Session
from lmanet.training.recipes import VideoRecipe


@dataclass(frozen=True)
class SelfLabelledSequence(DerivedSequence):
    """A sequence whose labels are a network's own; keeps the `Sequence` protocol.

    Attributes:
        session: of the network by itself.
        confidence: least probability of a label; pixels below it are void.
    """

    session: Session
    confidence: float

    @property
    def labelled(self) -> tuple[bool, ...]:
        """Every frame is."""
        return (True,) * len(self.source.frame_names)

    def label(self, index: int) -> NDArray[np.uint8]:
        """What the network says of frame `index`, (H, W) uint8; void where it is not sure."""
        found = self.session.step(self.source.image(index))
        sure = (found.probabilities().max(0).values >= self.confidence).cpu().numpy()
        return np.where(sure, found.labels, np.uint8(VOID))


@dataclass(frozen=True)
class SelfLabelled:
    """A data set labelled by a network; keeps the `VideoData` protocol. See `self_labelled`."""

    name: str
    classes: Classes
    sequences: tuple[SelfLabelledSequence, ...]


def self_labelled(data: VideoData, network: Backbone, *, confidence: float = 0.0) -> SelfLabelled:
    """A data set with a network's own predictions in place of labels, which it need not have.

    Where only sure predictions count, what the network is never sure of is voted away by the memory: with 0.9 signs and
    poles vanished on CamVid.

    Args:
        data: the frames; labels that it has are not looked at.
        network: a trained network, whose classes are the data's.
        confidence: least probability of a label, 0 to 1; pixels below it are void.

    Raises:
        InputError: the confidence is out of range.
    """
    if not 0 <= confidence < 1:
        raise InputError(f"confidence {confidence}: expected 0 to below 1")
    session = Session(network)
    sequences = tuple(SelfLabelledSequence(s, session, confidence) for s in data.sequences)
    return SelfLabelled(f"{data.name}, labelled by the network itself", data.classes, sequences)


def spoilt(recipe: VideoRecipe) -> VideoRecipe:
    """A recipe whose current frames are often bad, its memories good: else there were nothing to learn from them."""
    bad = replace(recipe.augmentation, noise=30.0, blur_px=3.0, shrink=3.0, occlusion=0.4)
    return replace(recipe, augmentation=bad)
