"""Steps 1 and 2: a method on a trained single-frame network, from data to a weights file."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmanet.atomic import check_folder
from lmanet.backbones import Backbone
from lmanet.data.protocols import VideoData
from lmanet.errors import InputError
from lmanet.methods.base import TrainableVideoModel, VideoModel
from lmanet.methods.single_frame import SingleFrame
from lmanet.training.checkpoint import Best, copy_weights, step_folder
from lmanet.training.clips import ClipSamples, FromFeatures, FromImages, make_views
from lmanet.training.distributed import synchronise_batch_norm
from lmanet.training.features import FeatureCache, Views, build_feature_cache
from lmanet.training.frames import StoredData
from lmanet.training.loop import Trainee, fit
from lmanet.training.options import RunOptions, TrainingResult, TrainingTimings
from lmanet.training.prepare import (
    check_network,
    check_val,
    common_size,
    loss_weights,
    store_splits,
)
from lmanet.training.progress import ENCODING, training
from lmanet.training.recipes import VideoRecipe
from lmanet.training.steps import set_mode, set_trainable, steps_of, trainable_method
from lmanet.training.validation import validate
from lmanet.zoo.architectures import describe_backbone
from lmanet.zoo.files import save_model


def train_method(
    train: VideoData,
    val: VideoData | None,
    backbone: Backbone,
    recipe: VideoRecipe,
    folder: Path,
    *,
    options: RunOptions,
    initial: VideoModel | None = None,
    single_frame: str | None = None,
    use_cache: bool = True,
    cache_folder: Path | None = None,
) -> TrainingResult:
    """Steps 1 and 2: put a method on a trained single-frame network; resumes what `folder` holds.

    Args:
        train: labelled frames with the frames before them.
        val: chooses the best epoch of both steps, streamed as in use; of the same classes. With None the last
            epoch's weights of the last step are kept.
        backbone: the trained network, of lmanet or registered (`lmanet.zoo.register_backbone`); it stays as it is,
            a copy is trained.
        recipe: method, memories and optimisers.
        folder: for frames, checkpoints, logs and `METHOD.safetensors`.
        options: accelerator, seed, workers, and who is told of the progress.
        initial: start the method's own weights from this model's.
        single_frame: the backbone's name, if it is a bundled model; any other is written into `folder` beside the
            result, so that the two can be compared.
        use_cache: encode each frame once and keep its features; without, in every step.
        cache_folder: where the features go, if not into `folder`; trainings on the same backbone and data may share it.

    Raises:
        InputError: the recipe crops, the network has other classes, `initial` does not fit, or see `fit`.
        WeightsError: the network is neither lmanet's nor registered.
        DataError: the data cannot be trained on.
        OutputError: a folder cannot be written to.
    """
    cache_folder = cache_folder or folder
    _check(recipe, backbone, train, val)
    accelerator = options.accelerator
    torch.manual_seed(options.seed)
    model = _build(backbone, recipe, initial)
    check_folder(folder)
    check_folder(cache_folder)
    stored, stored_val = store_splits(train, val, folder, options)
    size = common_size(stored)
    views = make_views(
        recipe.augmentation, size, draws=recipe.draws, pseudo=recipe.pseudo, ranges=recipe.pseudo_memory
    )
    cache, timings = None, TrainingTimings()
    if use_cache:
        cache, timings = _encode(model, stored, views, cache_folder, options)
    control = recipe.memories == "current"
    samples = ClipSamples(
        stored,
        views,
        memory_size=recipe.memory_size,
        memories=recipe.memories,
        cache=cache,
        seed=options.seed,
    )
    module = (FromFeatures if use_cache else FromImages)(model, size, control=control)
    synchronise_batch_norm(module, accelerator)

    def score(module: Any) -> float:
        assert stored_val is not None
        return validate(module.model, stored_val, accelerator, forget=control)

    weights, kept, steps_s = loss_weights(stored), None, dict[int, float]()
    for step, stage in steps_of(recipe).items():
        set_trainable(model, step)
        fitted = fit(
            Trainee(
                module,
                validate=None if stored_val is None else score,
                set_mode=lambda _, step=step: set_mode(model, step),
            ),
            samples,
            stage,
            class_weights=weights,
            folder=step_folder(folder, step),
            options=replace(options, seed=options.seed + 1000 * step),
            phase=training(step),
            made_with={
                "recipe": _without_stages(recipe),
                "data": stored.fingerprint,
                "network": {**describe_backbone(backbone), **backbone.setting},
            },
        )
        steps_s[step] = fitted.seconds
        if kept is None or val is None or fitted.best.miou > kept.best.miou:
            kept = _Kept(step, fitted.best, copy_weights(model))
    assert kept is not None
    model.load_state_dict(kept.weights)
    card = {
        "recipe": asdict(recipe),
        "data": train.name,
        "seed": options.seed,
        "val": None if val is None else val.name,
        "val_miou": None if val is None else kept.best.miou,
        "step": kept.step,
        "epoch": kept.best.epoch,
        "control": control,
    }
    path = folder / f"{recipe.method}.safetensors"
    if accelerator.is_main_process:
        if single_frame is None:
            single_frame = "single-frame.safetensors"
            save_model(
                SingleFrame(backbone), folder / single_frame, classes=train.classes, card=backbone.card
            )
        save_model(model, path, classes=train.classes, card=card, single_frame=single_frame)
    accelerator.wait_for_everyone()
    return TrainingResult(path, replace(timings, steps_s=steps_s))


@dataclass(frozen=True)
class _Kept:
    """The better step so far."""

    step: int
    best: Best
    weights: dict[str, Tensor]


def _check(recipe: VideoRecipe, backbone: Backbone, train: VideoData, val: VideoData | None) -> None:
    """Everything that can be known to be wrong before any work is done."""
    steps_of(recipe)
    if recipe.augmentation.crop is not None:
        raise InputError(
            f"augmentation.crop {recipe.augmentation.crop}: a memory is trained on features of whole frames, which are "
            f"encoded once: leave crop out (it is for single-frame networks)"
        )
    check_network(backbone, train)
    if val is not None:
        check_val(val, train)
    describe_backbone(backbone)


def _build(backbone: Backbone, recipe: VideoRecipe, initial: VideoModel | None) -> TrainableVideoModel:
    """The method on a copy of the network, with the weights to start from."""
    method = trainable_method(recipe.method)
    try:
        model = method(copy.deepcopy(backbone), **recipe.arguments)
    except TypeError as error:
        raise InputError(f"{recipe.method} with the arguments {dict(recipe.arguments)}: {error}") from error
    if initial is None:
        return model
    pairs = {
        "method": (initial.method, model.method),
        "channels of the network": (initial.backbone.channels, backbone.channels),
    }
    if initial.method == model.method:
        # What may be changed without training need not be what it was.
        fixed = [name for name in model.arguments if name not in model.adjustable]
        pairs |= {name: (initial.arguments.get(name), model.arguments[name]) for name in fixed}
    own = model.state_dict()
    started = {k: v for k, v in initial.state_dict().items() if not k.startswith("backbone.")}
    pairs |= {k: (tuple(v.shape), tuple(own[k].shape)) for k, v in started.items() if k in own}
    for name, (got, expected) in pairs.items():
        if got != expected:
            raise InputError(
                f"the model to start from has {name} {got}, this training {expected}: make them the same, or start "
                f"from nothing"
            )
    model.load_state_dict(own | started)
    return model


def _encode(
    model: TrainableVideoModel, data: StoredData, views: Views, folder: Path, options: RunOptions
) -> tuple[FeatureCache, TrainingTimings]:
    """The features of all frames, and how long it took to make them, if they were not there."""
    began, encoded = time.perf_counter(), 0

    def on_frame(done: int, total: int) -> None:
        nonlocal encoded
        encoded = done
        options.report(ENCODING, (done, total))

    with options.accelerator.main_process_first():
        cache = build_feature_cache(
            model, data, views, folder, device=options.accelerator.device, on_frame=on_frame
        )
    seconds = time.perf_counter() - began if encoded else 0.0
    return cache, TrainingTimings(encoded=encoded, encoding_s=seconds)


def _without_stages(recipe: VideoRecipe) -> dict[str, Any]:
    """A recipe as plain values; its stages are left to each stage's own checkpoint."""
    return {key: value for key, value in asdict(recipe).items() if key not in ("module", "joint")}
