"""Steps 1 and 2: which of them are run, and what of a model each trains."""

from __future__ import annotations

from torch import nn

from lmanet.errors import InputError
from lmanet.methods.base import TrainableVideoModel
from lmanet.methods.registry import METHODS, find_method
from lmanet.training.config import Stage
from lmanet.training.recipes import VideoRecipe


def steps_of(recipe: VideoRecipe) -> dict[int, Stage]:
    """The steps that are run, 1 and 2: those with an epoch.

    Raises:
        InputError: none has one; or the method leaves the network as it is, and a step 2 or a control is wanted.
    """
    if not trainable_method(recipe.method).trains_decoder:
        if recipe.joint.epochs:
            raise InputError(
                f"{recipe.joint.epochs} epochs of step 2: {recipe.method} leaves the decoder as it is: leave "
                f"joint.epochs out"
            )
        if recipe.memories == "current":
            raise InputError(
                f"memories='current': without a past {recipe.method} is the network itself, which is its control: "
                f"compare it with single-frame"
            )
    steps = {1: recipe.module, 2: recipe.joint}
    steps = {step: stage for step, stage in steps.items() if stage.epochs}
    if not steps:
        raise InputError(
            "neither step 1 nor step 2 has an epoch to train: give module.epochs or joint.epochs"
        )
    return steps


def trainable_method(name: str) -> type[TrainableVideoModel]:
    """The class of a method that can be trained.

    Raises:
        InputError: there is no such method, or it has nothing to train.
    """
    method = find_method(name)
    if not issubclass(method, TrainableVideoModel):
        trainable = [known for known, one in METHODS.items() if one.trainable]
        raise InputError(
            f"the method {name} has nothing to train: it runs on any trained network as it is (--method {name}); "
            f"trained are {', '.join(trainable)}"
        )
    return method


def set_trainable(model: TrainableVideoModel, step: int) -> None:
    """Freeze the encoder, and in step 1 the decoder too; everything else is trained."""
    model.requires_grad_(True)
    for part in _frozen_parts(model, step):
        part.requires_grad_(False)


def set_mode(model: TrainableVideoModel, step: int) -> None:
    """Training mode for what is trained; `eval` mode for what is frozen: its statistics stay, nothing drops."""
    model.train()
    for part in _frozen_parts(model, step):
        part.eval()


def _frozen_parts(model: TrainableVideoModel, step: int) -> tuple[nn.Module, ...]:
    backbone = model.backbone
    return backbone.encoder_parts() + (backbone.decoder_parts() if step == 1 else ())
