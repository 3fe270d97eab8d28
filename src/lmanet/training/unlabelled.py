"""Video without labels: a trained network's own predictions, steadied, in place of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmanet.backbones import Backbone
from lmanet.classes import VOID, Classes
from lmanet.data.protocols import DerivedSequence, Sequence, VideoData
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.methods.training_free import TrainingFreeMemory
from lmanet.session import Segmentation, Session
from lmanet.training.recipes import VideoRecipe


class _Stream:
    """What a model says of the frames of one sequence, best asked in order: for one behind it starts again."""

    def __init__(self, source: Sequence, model: VideoModel) -> None:
        self._source, self._session, self._next = source, Session(model), 0

    def step(self, index: int) -> Segmentation:
        if index < self._next:
            self._session.reset()
            self._next = 0
        for skipped in range(self._next, index):
            self._session.step(self._source.image(skipped))
        said, self._next = self._session.step(self._source.image(index)), index + 1
        if self._next == len(self._source.frame_names):
            # Nothing comes behind: a memory of each sequence would add up.
            self._session.reset()
            self._next = 0
        return said


@dataclass(frozen=True)
class SelfLabelledSequence(DerivedSequence):
    """A sequence whose labels are a network's own; keeps the `Sequence` protocol.

    Attributes:
        stream: of the network, steadied.
        confidence: least probability of a label; pixels below it are void.
    """

    stream: _Stream
    confidence: float

    @property
    def labelled(self) -> tuple[bool, ...]:
        """For each frame whether it has a label: all have."""
        return (True,) * len(self.source.frame_names)

    def label(self, index: int) -> NDArray[np.uint8]:
        """What is said of frame `index`, (H, W) uint8; void where it is not sure."""
        said = self.stream.step(index)
        sure = (said.probabilities().max(0).values >= self.confidence).cpu().numpy()
        return np.where(sure, said.labels, np.uint8(VOID))


@dataclass(frozen=True)
class SelfLabelled:
    """A data set labelled by a network; keeps the `VideoData` protocol. See `self_labelled`."""

    name: str
    classes: Classes
    sequences: tuple[SelfLabelledSequence, ...]


def self_labelled(data: VideoData, network: Backbone, *, confidence: float = 0.0) -> SelfLabelled:
    """A data set with a network's own predictions in place of labels, which it need not have.

    They are steadied by the memory that needs no training, so that in video there is something right to learn of frames
    where the network alone is wrong; frames that do not follow each other are labelled as by the network alone.

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
    model = TrainingFreeMemory(network).optimize()
    sequences = tuple(SelfLabelledSequence(s, _Stream(s, model), confidence) for s in data.sequences)
    return SelfLabelled(f"{data.name}, labelled by the network itself, steadied", data.classes, sequences)


def unlabelled_recipe(recipe: VideoRecipe) -> VideoRecipe:
    """A recipe for `self_labelled` data.

    Current frames are often bad, the memories good: else there were nothing to learn from them. And there is no step 2:
    on its own predictions the decoder gets worse, not better.
    """
    bad = replace(recipe.augmentation, noise=30.0, blur_px=3.0, shrink=3.0, occlusion=0.4)
    return replace(recipe, augmentation=bad, joint=replace(recipe.joint, epochs=0))
