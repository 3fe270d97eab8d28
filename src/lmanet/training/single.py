"""Step 0: the single-frame network itself, from data to a weights file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from lmanet.atomic import check_folder
from lmanet.backbones import Backbone
from lmanet.data.protocols import VideoData, labelled_frames
from lmanet.errors import InputError
from lmanet.methods.single_frame import SingleFrame
from lmanet.training.augment import Augmentation, draw
from lmanet.training.checkpoint import step_folder
from lmanet.training.distributed import synchronise_batch_norm
from lmanet.training.loop import Trainee, fit
from lmanet.training.options import RunOptions, TrainingResult, TrainingTimings
from lmanet.training.prepare import check_network, check_val, loss_weights, store_splits
from lmanet.training.progress import training
from lmanet.training.recipes import SingleRecipe
from lmanet.training.validation import validate
from lmanet.zoo.architectures import IMAGENET, build_backbone, describe_backbone
from lmanet.zoo.files import save_model


def train_single(
    train: VideoData,
    val: VideoData | None,
    recipe: SingleRecipe,
    folder: Path,
    *,
    options: RunOptions,
    initial: Backbone | None = None,
    teacher: Backbone | None = None,
) -> TrainingResult:
    """Step 0: train the single-frame network; resumes what `folder` holds.

    Args:
        train: labelled frames.
        val: chooses the best epoch; of the same classes. With None the last epoch's weights are kept.
        recipe: network, augmentation and optimiser.
        folder: for frames, checkpoint, log and `single-frame.safetensors`.
        options: accelerator, seed, workers, and who is told of the progress.
        initial: start from these weights instead of random ones.
        teacher: a trained network of the same classes, for stages with `distillation`.

    Raises:
        InputError: `initial` is another network or has other classes, `teacher` has others, or see `fit`.
        DataError: the data cannot be trained on.
        OutputError: `folder` cannot be written to.
    """
    if val is not None:
        check_val(val, train)
    if initial is not None:
        check_network(initial, train)
    if teacher is not None:
        check_network(teacher, train)
    accelerator, seed = options.accelerator, options.seed
    torch.manual_seed(seed)
    backbone = _build(recipe, len(train.classes), initial)
    check_folder(folder)
    stored, stored_val = store_splits(train, val, folder, options)
    _scale_dropout(backbone, recipe.dropout)
    module = TrainedNetwork(backbone)
    synchronise_batch_norm(module, accelerator)

    def score(module: Any) -> float:
        assert stored_val is not None
        return validate(SingleFrame(module.backbone), stored_val, accelerator)

    fitted = fit(
        Trainee(
            module,
            validate=None if stored_val is None else score,
            teacher=None if teacher is None else TrainedNetwork(teacher),
        ),
        LabelledFrames(stored, recipe.augmentation, seed=seed),
        recipe.stage,
        class_weights=loss_weights(stored),
        folder=step_folder(folder, 0),
        options=options,
        phase=training(0),
        made_with={
            "recipe": {key: value for key, value in asdict(recipe).items() if key != "stage"},
            "data": stored.fingerprint,
        },
    )
    card = {
        "recipe": asdict(recipe),
        "data": train.name,
        "seed": seed,
        "val": None if val is None else val.name,
        "val_miou": None if val is None else fitted.best.miou,
        "step": 0,
        "epoch": fitted.best.epoch,
    }
    path = folder / "single-frame.safetensors"
    if accelerator.is_main_process:
        save_model(SingleFrame(backbone), path, classes=train.classes, card=card)
    accelerator.wait_for_everyone()
    return TrainingResult(path, TrainingTimings({0: fitted.seconds}))


class LabelledFrames:
    """Every labelled frame of a data set, under a fresh augmentation in every epoch."""

    def __init__(self, data: VideoData, augmentation: Augmentation, *, seed: int = 0) -> None:
        self.augmentation, self.seed = augmentation, seed
        self.frames = [(data.sequences[n], i) for n, i in labelled_frames(data)]

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, epoch: int, index: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """The frame (3, H, W) uint8 and its label (H, W) uint8."""
        sequence, i = self.frames[index]
        image, label = sequence.image(i), sequence.label(i)
        assert label is not None
        rng = np.random.default_rng([self.seed, epoch, index])
        drawn = draw(self.augmentation, label.shape, rng)
        pixels, ids = np.array(drawn.image(image)), np.array(drawn.label(label))
        return (torch.from_numpy(pixels).permute(2, 0, 1),), torch.from_numpy(ids)


class TrainedNetwork(nn.Module):
    """A backbone as `fit` trains it: from images to logits."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 to logits (B, K, H, W)."""
        return self.backbone.segment(images)


def _scale_dropout(backbone: Backbone, factor: float) -> None:
    for module in backbone.modules():
        if isinstance(module, _DropoutNd):
            module.p = min(1.0, factor * module.p)


def _build(recipe: SingleRecipe, num_classes: int, initial: Backbone | None) -> Backbone:
    if initial is None:
        backbone = build_backbone({"name": recipe.network, "num_classes": num_classes}, "the recipe")
        if recipe.imagenet:
            if recipe.network not in IMAGENET:
                raise InputError(
                    f"imagenet with the network {recipe.network!r}: there are such weights for {', '.join(IMAGENET)}"
                )
            IMAGENET[recipe.network](backbone)
        return backbone
    description = describe_backbone(initial)
    if description["name"] != recipe.network:
        raise InputError(
            f"the weights to start from are of a {description['name']!r}, the recipe trains a {recipe.network!r}: "
            f"give weights of that, or leave them out"
        )
    backbone = build_backbone(description, "the network to start from")
    backbone.load_state_dict(initial.state_dict())
    return backbone
