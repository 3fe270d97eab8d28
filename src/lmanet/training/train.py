"""`train`: from a recipe and data to a weights file, whatever the recipe trains."""

from __future__ import annotations

from pathlib import Path

from lmanet.backbones import Backbone
from lmanet.data.protocols import VideoData
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.training.method import train_method
from lmanet.training.options import RunOptions, TrainingResult
from lmanet.training.recipes import SingleRecipe, VideoRecipe
from lmanet.training.single import train_single
from lmanet.training.unlabelled import self_labelled, unlabelled_recipe


def train(
    recipe: SingleRecipe | VideoRecipe,
    data: VideoData,
    val: VideoData | None,
    folder: Path,
    *,
    options: RunOptions,
    network: Backbone | None = None,
    initial: VideoModel | None = None,
    single_frame: str | None = None,
    use_cache: bool = True,
    cache_folder: Path | None = None,
    unlabelled: float | None = None,
    teacher: Backbone | None = None,
) -> TrainingResult:
    """Train a single-frame network, or a method on one; goes on with what a killed call left in `folder`.

    Args:
        recipe: what is trained, and how.
        data: the frames to train on, labelled, but for `unlabelled`.
        val: chooses the best epoch; of the same classes. With None the last epoch's weights are kept.
        folder: for frames, checkpoints, logs and the weights.
        options: accelerator, seed, workers, and who is told of the progress.
        network: the trained network that a method is put on; of a `SingleRecipe`, where to start from, if not from
            random weights.
        initial: of a method: start its own weights from this model's.
        single_frame: the network's name, if it is a bundled model: it is not written beside the result then.
        use_cache: of a method: encode each frame once and keep its features; without, in every step.
        cache_folder: where the features go, if not into `folder`.
        unlabelled: train a method without labels: the network's own predictions, steadied, take their place where they
            are as probable as this at least, 0 to below 1, and the current frame is spoilt (`unlabelled_recipe`).
        teacher: of a `SingleRecipe` with `distillation`: the network that it learns from besides the labels.

    Raises:
        InputError: a method without a network, a network without labels, or see `train_single` and `train_method`.
        WeightsError: the network is neither lmanet's nor registered.
        DataError: the data cannot be trained on.
        OutputError: a folder cannot be written to.
    """
    if isinstance(recipe, SingleRecipe):
        if unlabelled is not None:
            raise InputError(
                "a single-frame network without labels: it is a memory that learns without labels"
            )
        return train_single(data, val, recipe, folder, options=options, initial=network, teacher=teacher)
    if teacher is not None:
        raise InputError("a teacher of a method: it is a single-frame network that one teaches")
    if network is None:
        raise InputError(
            "a memory is put on a trained network: give --weights NAME or FILE of one, or --model MODULE:FUNCTION"
        )
    if unlabelled is not None:
        data, recipe = self_labelled(data, network, confidence=unlabelled), unlabelled_recipe(recipe)
    return train_method(
        data,
        val,
        network,
        recipe,
        folder,
        options=options,
        initial=initial,
        single_frame=single_frame,
        use_cache=use_cache,
        cache_folder=cache_folder,
    )
