"""A method of a user's own, as anybody would write it: held to the same contract as those of lmanet."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

from contracts.method import MethodContract
from contracts.networks import TinyBackbone
from lmanet import StepGraph, VideoModel
from lmanet.errors import InputError
from lmanet.methods.base import as_video_model, check_fits


class Faded(NamedTuple):
    """The logits said of the frame before."""

    logits: Tensor


class Fading(VideoModel):
    """Logits that fade into each other from frame to frame."""

    method = "test-fading"
    State = Faded
    adjustable = ("keep",)

    def __init__(self, backbone: Any, *, keep: float = 0.5) -> None:
        super().__init__(backbone)
        self.keep = keep
        self.check_arguments()

    def check_arguments(self) -> None:
        if not 0 <= self.keep < 1:
            raise InputError(f"keep {self.keep}: expected 0 to below 1")

    @property
    def arguments(self) -> dict[str, Any]:
        return {"keep": self.keep}

    def step(self, images: Tensor, state: Faded | None = None) -> tuple[Tensor, Faded]:
        logits = self.backbone.segment(images)
        if state is not None:
            check_fits(logits, state.logits, "logits")
            logits = torch.lerp(logits, state.logits.to(logits.dtype), self.keep)
        return logits, Faded(logits)


class TestFading(MethodContract):
    kind = Fading
    arguments: ClassVar = {"keep": 0.75}
    adjustments: ClassVar = {"keep": 0.25}

    def test_what_is_adjusted_is_checked(self, model):
        with pytest.raises(InputError, match="keep 1: expected 0 to below 1"):
            model.adjusted(keep=1)


class Opaque(Fading):
    """One that no graph can hold."""

    method = "test-opaque"
    not_exportable = "it asks an oracle"


def test_the_message_says_why_it_is_no_graph_and_what_to_do():
    with pytest.raises(
        InputError,
        match="test-opaque cannot be exported or compiled: it asks an oracle; choose another method",
    ):
        StepGraph(Opaque(TinyBackbone()))


@pytest.mark.parametrize("other", [TinyBackbone(), torch.nn.Identity(), None, Fading])
def test_what_is_no_model_of_a_method_is_told_how_to_become_one(other):
    with pytest.raises(InputError, match=r"got a .*: expected an lmanet\.VideoModel; lmanet\.wrap\(model, "):
        as_video_model(other)
    model = Fading(TinyBackbone())
    assert as_video_model(model) is model
