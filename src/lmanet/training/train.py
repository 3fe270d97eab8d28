"""The trainings themselves: step 0, and steps 1 and 2, from data to a weights file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lmanet.backbones import Backbone
from lmanet.data.base import VideoData
from lmanet.errors import DataError, InputError
from lmanet.evaluation.metrics import ConfusionMatrix, mean_iou
from lmanet.segmenter import VideoSegmenter, segment_single
from lmanet.session import Session
from lmanet.training.clips import ClipSamples, FromFeatures, FromImages, make_views
from lmanet.training.distributed import synchronise_batch_norm
from lmanet.training.features import build_feature_cache
from lmanet.training.frames import StoredData, store_frames
from lmanet.training.loop import Progress, fit
from lmanet.training.losses import class_weights
from lmanet.training.recipes import MemoryRecipe, SingleRecipe
from lmanet.training.single import LabelledFrames
from lmanet.zoo.files import BACKBONES, save_model

Report = Callable[[str, Progress | tuple[int, int]], None]
"""Called with the name of what is going on and how far it is."""


def train_single(
    train: VideoData,
    val: VideoData,
    recipe: SingleRecipe,
    folder: Path,
    *,
    accelerator: Accelerator,
    initial: Backbone | None = None,
    seed: int = 0,
    workers: int = 1,
    report: Report = lambda name, progress: None,
) -> Path:
    """Step 0: train the single-frame network; resumes what `folder` holds.

    Args:
        train: labelled frames.
        val: chooses the best epoch.
        recipe: network, augmentation and optimiser.
        folder: for frames, checkpoint, log and `single-frame.safetensors`.
        accelerator: device, precision, processes.
        initial: start from these weights instead of random ones.
        seed: of everything random.
        workers: processes that prepare samples.
        report: told of the progress.

    Returns:
        The weights file.
    """
    stored = _store(train, folder, "train", accelerator, report)
    stored_val = _store(val, folder, "val", accelerator, report)
    classes = train.classes
    torch.manual_seed(seed)
    backbone = BACKBONES[recipe.network](len(classes))
    if initial is not None:
        _check_classes(initial, len(classes))
        backbone.load_state_dict(initial.state_dict())
    module = SingleFrame(backbone)
    synchronise_batch_norm(module, accelerator)
    miou = fit(
        module,
        LabelledFrames(stored, recipe.augmentation, seed=seed),
        recipe.stage,
        class_weights=_weights(stored),
        validate=lambda m: validate(_backbone_of(m), stored_val, accelerator),
        folder=folder / "step0",
        accelerator=accelerator,
        seed=seed,
        workers=workers,
        on_step=lambda p: report("step 0", p),
        config={"recipe": _without_stages(recipe), "data": stored.fingerprint},
    )
    card = {"recipe": asdict(recipe), "data": train.name, "seed": seed, "val": val.name, "val_miou": miou}
    path = folder / "single-frame.safetensors"
    if accelerator.is_main_process:
        save_model(backbone, path, classes=classes, card=card)
    accelerator.wait_for_everyone()
    return path


def train_memory(
    train: VideoData,
    val: VideoData,
    backbone: Backbone,
    recipe: MemoryRecipe,
    folder: Path,
    *,
    accelerator: Accelerator,
    initial: VideoSegmenter | None = None,
    single_frame: str | None = None,
    seed: int = 0,
    workers: int = 1,
    use_cache: bool = True,
    cache_folder: Path | None = None,
    report: Report = lambda name, progress: None,
) -> Path:
    """Steps 1 and 2: put a memory module on a trained single-frame network; resumes what `folder` holds.

    Args:
        train: labelled frames with the frames before them.
        val: chooses the best epoch, streamed as in use.
        backbone: the trained network; its encoder stays as it is.
        recipe: module, memories and optimisers.
        folder: for frames, checkpoints, logs and `lmanet.safetensors`.
        accelerator: device, precision, processes.
        initial: start keys, values and fusion from this model's instead of random ones.
        single_frame: the backbone's name, if it is a bundled model; any other is written into `folder` beside the
            result, so that the two can be compared.
        seed: of everything random.
        workers: processes that prepare samples.
        use_cache: encode each frame once and keep its features; without, in every step.
        cache_folder: where the features go; trainings on the same backbone and data may share it.
        report: told of the progress.

    Returns:
        The weights file.
    """
    stored = _store(train, folder, "train", accelerator, report)
    stored_val = _store(val, folder, "val", accelerator, report)
    _check_classes(backbone, len(train.classes))
    size = _common_size(stored)
    if single_frame is None:
        single_frame = "single-frame.safetensors"
        if accelerator.is_main_process:
            save_model(
                backbone, folder / single_frame, classes=train.classes, card=getattr(backbone, "card", None)
            )
    torch.manual_seed(seed)
    segmenter = VideoSegmenter(
        backbone,
        key_channels=recipe.key_channels,
        value_channels=recipe.value_channels,
        memory_size=recipe.memory_size,
        window=recipe.window,
        fusion=recipe.fusion,
    )
    if initial is not None:
        segmenter.key_value.load_state_dict(initial.key_value.state_dict())
        segmenter.fusion.load_state_dict(initial.fusion.state_dict())
    views = make_views(
        recipe.augmentation, size, draws=recipe.draws, pseudo=recipe.pseudo, ranges=recipe.pseudo_memory
    )
    cache = None
    if use_cache:
        with accelerator.main_process_first():
            cache = build_feature_cache(
                backbone,
                stored,
                views,
                cache_folder or folder,
                device=accelerator.device,
                on_frame=lambda done, total: report("encoding", (done, total)),
            )
    samples = ClipSamples(
        stored, views, memory_size=recipe.memory_size, memories=recipe.memories, cache=cache, seed=seed
    )
    module = (FromFeatures if use_cache else FromImages)(segmenter, size)
    synchronise_batch_norm(module, accelerator)
    weights = _weights(stored)
    control = recipe.memories == "current"
    miou = 0.0
    for number, stage in ((1, recipe.module), (2, recipe.joint)):
        set_trainable(segmenter, number)
        miou = fit(
            module,
            samples,
            stage,
            class_weights=weights,
            validate=lambda m: validate(_segmenter_of(m), stored_val, accelerator, forget=control),
            folder=folder / f"step{number}",
            accelerator=accelerator,
            seed=seed + 1000 * number,
            workers=workers,
            set_mode=lambda m, number=number: set_mode(segmenter, number),
            on_step=lambda p, number=number: report(f"step {number}", p),
            config={"recipe": _without_stages(recipe), "data": stored.fingerprint},
        )
    card = {
        "recipe": asdict(recipe),
        "data": train.name,
        "seed": seed,
        "val": val.name,
        "val_miou": miou,
        "control": control,
    }
    path = folder / "lmanet.safetensors"
    if accelerator.is_main_process:
        save_model(segmenter, path, classes=train.classes, card=card, single_frame=single_frame)
    accelerator.wait_for_everyone()
    return path


class SingleFrame(nn.Module):
    """A backbone that takes uint8 images, for training."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 to logits (B, K, H, W)."""
        return segment_single(self.backbone, images)


def set_trainable(segmenter: VideoSegmenter, step: int) -> None:
    """Freeze the encoder, and in step 1 the decoder too; everything else is trained."""
    segmenter.requires_grad_(True)
    for part in _frozen_parts(segmenter, step):
        part.requires_grad_(False)


def set_mode(segmenter: VideoSegmenter, step: int) -> None:
    """Training mode for what is trained; `eval` mode for what is frozen: its statistics stay, nothing drops."""
    segmenter.train()
    for part in _frozen_parts(segmenter, step):
        part.eval()


def validate(
    model: VideoSegmenter | Backbone, data: VideoData, accelerator: Accelerator, *, forget: bool = False
) -> float:
    """MIoU (0 to 1) of a model streaming through a data set, in the training's precision.

    Args:
        model: the model.
        data: the frames.
        accelerator: for its precision.
        forget: begin a new stream at every frame: the control, whose memory is the current frame.
    """
    precision = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
    confusion = ConfusionMatrix(len(data.classes))
    for sequence in data.sequences:
        session = Session(model, precision=precision)
        for i in range(len(sequence.frame_names)):
            if forget:
                session.reset()
            labels = session.step(sequence.image(i)).labels
            truth = sequence.label(i)
            if truth is not None:
                confusion.update(truth, labels)
    return mean_iou(confusion.compute())


def _without_stages(recipe: SingleRecipe | MemoryRecipe) -> dict[str, Any]:
    """A recipe as plain values; its stages are left to each stage's own checkpoint."""
    return {key: value for key, value in asdict(recipe).items() if key not in ("stage", "module", "joint")}


def _frozen_parts(segmenter: VideoSegmenter, step: int) -> tuple[nn.Module, ...]:
    backbone = segmenter.backbone
    return backbone.encoder_parts() + (backbone.decoder_parts() if step == 1 else ())


def _segmenter_of(module: Any) -> VideoSegmenter:
    return module.inner.segmenter if isinstance(module, FromImages) else module.segmenter


def _backbone_of(module: Any) -> Backbone:
    return module.backbone


def _store(data: VideoData, folder: Path, split: str, accelerator: Accelerator, report: Report) -> StoredData:
    with accelerator.main_process_first():
        return store_frames(
            data,
            folder / "frames" / split,
            on_frame=lambda done, total: report(f"reading {split}", (done, total)),
        )


def _weights(data: StoredData) -> Tensor:
    labels = (
        label
        for sequence in data.sequences
        for i in range(len(sequence.frame_names))
        if (label := sequence.label(i)) is not None
    )
    return class_weights(labels, len(data.classes))


def _common_size(data: StoredData) -> tuple[int, int]:
    sizes = {(sequence.name, sequence.image(0).shape[:2]) for sequence in data.sequences}
    if len({size for _, size in sizes}) > 1:
        raise DataError(
            f"sequences of different sizes: {sorted(sizes)[:4]}…; steps 1 and 2 train on whole frames: bring them to "
            f"one size"
        )
    height, width = next(iter(sizes))[1]
    return height, width


def _check_classes(backbone: Backbone, num_classes: int) -> None:
    if backbone.num_classes != num_classes:
        raise InputError(
            f"the network has {backbone.num_classes} classes, the data {num_classes}: train a single-frame network on "
            f"this data first (step 0), or give weights that were"
        )
