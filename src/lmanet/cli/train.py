"""`lmanet train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from lmanet.cli.network import NO_NETWORK, OwnNetwork
from lmanet.errors import InputError, WeightsError
from lmanet.training.recipes import PRESETS, MethodRecipe, SingleRecipe, VideoRecipe

if TYPE_CHECKING:
    from lmanet.backbones import Backbone
    from lmanet.methods.base import VideoModel

Preset = tyro.extras.subcommand_type_from_defaults({**PRESETS, "own": MethodRecipe()}, prefix_names=False)


def train(
    *,
    recipe: Preset,  # pyright: ignore[reportInvalidTypeForm]
    data: str,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    weights: str | None = None,
    own: tyro.conf.OmitArgPrefixes[OwnNetwork] = NO_NETWORK,
    start_from: str | None = None,
    teacher: str | None = None,
    val_split: str | None = "val",
    val_data: str | None = None,
    seed: int = 0,
    precision: Literal["bf16", "fp32"] = "bf16",
    workers: int = 1,
    feature_cache: bool = True,
    cache: Path | None = None,
    tensorboard: bool = False,
    unlabelled: bool = False,
    confidence: float = 0.0,
) -> None:
    """Train a single-frame network (step 0), or put a method on one (steps 1 and 2).

    A killed training goes on where it was when the same command is given again. To train on several processes,
    begin with `accelerate launch -m lmanet.cli.main train` in place of `lmanet train`.

    Args:
        recipe: a preset: `erfnet…` and `unet-camvid` train a single-frame network; `label-memory…` a memory of labels
            on one; `lmanet` and `paper` the paper's memory of features; `own` a method of your own, --method
            MODULE:CLASS. Every field of it can be changed.
        data: camvid:PATH, cityscapes:PATH, vspw:PATH, folder:PATH or synthetic:, with ,size=HxW behind it to resize
            frames and labels (see lmanet data check --help).
        out: folder for frames, checkpoints, logs and the weights.
        weights: the single-frame network that a method is put on; for a network, where to start from (random).
        own: options of a network of your own, in place of --weights.
        start_from: a trained model of the same method whose own weights this one starts from (untrained).
        teacher: for a network with --stage.distillation: the trained network that it learns from besides the labels.
        val_split: the split that chooses the best epoch; with None the last one is kept, as for weights whose figures
            on val are to be reported.
        val_data: validate on another data set.
        seed: of everything random.
        precision: of the network while training.
        workers: processes that prepare samples.
        feature_cache: keep the frozen encoder's features on disk instead of encoding in every step.
        cache: folder of the feature cache; trainings on the same network and data may share it.
        tensorboard: also log for TensorBoard.
        unlabelled: train a method without labels: the network's own predictions take their place, the current frame is
            spoilt, and the last epoch is kept.
        confidence: least probability of a label that --unlabelled makes; with 0 every pixel has one.
    """
    from accelerate import Accelerator

    from lmanet.atomic import check_folder
    from lmanet.cli.progress import TrainingProgress
    from lmanet.data.spec import open_data, size_of
    from lmanet.third_party import method_of
    from lmanet.training.options import RunOptions
    from lmanet.training.train import train as run
    from lmanet.zoo import bundled
    from lmanet.zoo.files import read_config

    if isinstance(recipe, MethodRecipe):
        recipe = replace(recipe, method=method_of(recipe.method).method)
    network, initial = _network(recipe, weights, own, size_of(data)), _start(start_from)
    train_data = open_data(data, "train", labels=False) if unlabelled else open_data(data, "train")
    if val_split is None and val_data is not None:
        raise InputError(
            f"--val-data {val_data} with --val-split None, which validates on nothing: leave one out"
        )
    val = None if unlabelled or val_split is None else open_data(val_data or data, val_split)
    check_folder(out)
    accelerator = Accelerator(mixed_precision="bf16" if precision == "bf16" else "no")
    with TrainingProgress(out, tensorboard=tensorboard, quiet=not accelerator.is_main_process) as progress:
        result = run(
            recipe,
            train_data,
            val,
            out,
            options=RunOptions(
                accelerator, seed, workers, lambda phase, done: progress.report(phase.name, done)
            ),
            network=network,
            initial=initial,
            single_frame=weights if weights in bundled() else None,
            use_cache=feature_cache,
            cache_folder=cache,
            unlabelled=confidence if unlabelled else None,
            teacher=None if teacher is None else _single_frame(teacher),
        )
    card = read_config(result.path)["card"]
    scored = "" if card["val"] is None else f", mIoU {100 * card['val_miou']:.2f} on {card['val']}"
    progress.say(f"weights in {result.path}: of step {card['step']}, epoch {card['epoch']}{scored}")


def _network(
    recipe: SingleRecipe | VideoRecipe, weights: str | None, own: OwnNetwork, size: tuple[int, int] | None
) -> Backbone | None:
    """The network to be trained on, or to start from."""
    from lmanet.third_party import third_party_backbone

    options = own.options(size)
    if isinstance(recipe, SingleRecipe) and own.model is not None:
        raise InputError(
            f"{recipe.network} is not your {own.model}: --model goes with label-memory…, lmanet, paper and own"
        )
    if weights is not None and own.model is not None:
        raise InputError("--weights and --model are two networks: give one of them")
    if own.model is not None:
        return third_party_backbone(own.model, **options)
    return None if weights is None else _single_frame(weights)


def _single_frame(weights: str) -> Backbone:
    from lmanet.zoo import load

    loaded = load(weights)
    if loaded.trainable:
        raise WeightsError(
            f"{weights} is a model of the method {loaded.method}, which trained its network on: give the single-frame "
            f"network that it was made from"
        )
    return loaded.backbone


def _start(name: str | None) -> VideoModel | None:
    from lmanet.zoo import load

    if name is None:
        return None
    loaded = load(name)
    if not loaded.trainable:
        raise WeightsError(
            f"{name} is a model of the method {loaded.method}, which has nothing trained: give one of lmanet train "
            f"label-memory or lmanet"
        )
    return loaded
