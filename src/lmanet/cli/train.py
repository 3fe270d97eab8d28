"""`lmanet train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from lmanet.training.recipes import PRESETS, SingleRecipe, VideoRecipe

Preset = tyro.extras.subcommand_type_from_defaults(PRESETS, prefix_names=False)


def train(
    *,
    recipe: Preset,  # pyright: ignore[reportInvalidTypeForm]
    data: str,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    weights: str | None = None,
    model: str | None = None,
    at: str | None = None,
    start_from: str | None = None,
    val_split: str = "val",
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
    """Train a single-frame network (step 0), or put a memory on one (steps 1 and 2).

    A killed training goes on where it was when the same command is given again. To train on several processes,
    begin with `accelerate launch -m lmanet.cli.main train` in place of `lmanet train`.

    Args:
        recipe: a preset: `erfnet…` trains a single-frame network; `lmanet` and `lmanet-…` a memory of labels on one,
            `lmanet-features` and `paper` the paper's memory of features. Every field of it can be changed.
        data: camvid:PATH, cityscapes:PATH, vspw:PATH, folder:PATH or synthetic:, with ,size=HxW behind it to resize
            frames and labels (see lmanet data check --help).
        out: folder for frames, checkpoints, logs and the weights.
        weights: the single-frame network that a memory is put on; for `erfnet…`, where to start from (random).
        model: MODULE:FUNCTION that builds a trained network of your own, in place of --weights.
        at: the submodule of it whose output goes through the memory, of those that `lmanet inspect` lists.
        start_from: a video model whose memory this one starts from (untrained).
        val_split: the split that chooses the best epoch.
        val_data: validate on another data set.
        seed: of everything random.
        precision: of the network while training.
        workers: processes that prepare samples.
        feature_cache: keep the frozen encoder's features on disk instead of encoding in every step.
        cache: folder of the feature cache; trainings on the same network and data may share it.
        tensorboard: also log for TensorBoard.
        unlabelled: train a memory without labels: the network's own predictions take their place, the current frame is
            spoilt, and the last epoch is kept.
        confidence: least probability of a label that --unlabelled makes; with 0 every pixel has one.
    """
    from accelerate import Accelerator

    from lmanet.atomic import check_folder
    from lmanet.cli.models import load_single, load_video
    from lmanet.cli.progress import TrainingProgress
    from lmanet.cli.third_party import own_network
    from lmanet.data.spec import open_data
    from lmanet.errors import InputError
    from lmanet.training.method import train_memory
    from lmanet.training.single import train_single
    from lmanet.training.unlabelled import self_labelled, unlabelled_recipe
    from lmanet.zoo import bundled
    from lmanet.zoo.files import read_config

    if isinstance(recipe, VideoRecipe) and (weights is None) == (model is None):
        raise InputError(
            "a memory is put on a trained network: give --weights NAME or FILE of one, or --model MODULE:FUNCTION"
        )
    if isinstance(recipe, SingleRecipe) and model is not None:
        raise InputError(
            f"{recipe.network} is not your {model}: --model goes with the presets lmanet… and paper"
        )
    network = own_network(model, at) or (load_single(weights) if weights else None)
    start = load_video(start_from) if start_from else None
    train_data = open_data(data, "train")
    val = None
    if unlabelled:
        if isinstance(recipe, SingleRecipe) or network is None:
            raise InputError(
                "--unlabelled with a single-frame network: it is a memory that learns without labels"
            )
        train_data, recipe = (
            self_labelled(train_data, network, confidence=confidence),
            unlabelled_recipe(recipe),
        )
    else:
        val = open_data(val_data or data, val_split)
    check_folder(out)
    accelerator = Accelerator(mixed_precision="bf16" if precision == "bf16" else "no")
    with TrainingProgress(out, tensorboard=tensorboard, quiet=not accelerator.is_main_process) as progress:
        if isinstance(recipe, SingleRecipe):
            path = train_single(
                train_data,
                val,
                recipe,
                out,
                accelerator=accelerator,
                initial=network,
                seed=seed,
                workers=workers,
                report=progress.report,
            )
        else:
            assert isinstance(recipe, VideoRecipe) and network is not None
            path = train_memory(
                train_data,
                val,
                network,
                recipe,
                out,
                accelerator=accelerator,
                initial=start,
                single_frame=weights if weights in bundled() else None,
                seed=seed,
                workers=workers,
                use_cache=feature_cache,
                cache_folder=cache,
                report=progress.report,
            )
    card = read_config(path)["card"]
    scored = "" if card["val"] is None else f", mIoU {100 * card['val_miou']:.2f} on {card['val']}"
    progress.say(f"weights in {path}: of step {card['step']}, epoch {card['epoch']}{scored}")
