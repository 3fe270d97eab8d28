"""What the feature cache and the attention's kernel save: steps 1 and 2 of the training with and without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import default_collate

from lmanet.backbones import ERFNet
from lmanet.data.protocols import VideoData
from lmanet.data.synthetic import SyntheticDrive
from lmanet.methods.lmanet import LMANet
from lmanet.ops import Backend
from lmanet.research.benchmarks.timing import Timing, time_in_turn
from lmanet.training.clips import ClipSamples, FromFeatures, FromImages, make_views
from lmanet.training.features import build_feature_cache
from lmanet.training.frames import store_frames
from lmanet.training.losses import cross_entropy_sums, pixels
from lmanet.training.recipes import LMANetRecipe
from lmanet.training.steps import set_mode, set_trainable


def bench_training(folder: Path, *, batches: int, repeats: int) -> dict[str, Timing]:
    """Time `batches` batches of each step, forward, backward and reading the samples, without the optimiser.

    Args:
        folder: for frames and features.
        batches: per run.
        repeats: counted runs.
    """
    drive = SyntheticDrive(split="train", sequences=1, frames=16)
    return time_in_turn(training_runs(drive, folder, batches=batches), repeats=repeats)


def training_runs(train: VideoData, folder: Path, *, batches: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name: each step without and with the feature cache, on the same batches.

    Both run on the kernel that `auto` takes here; with the cache, `tiled` PyTorch is timed besides.

    Args:
        train: frames of one size.
        folder: for frames and features.
        batches: per run.
    """
    recipe = replace(LMANetRecipe(), draws=2, memories="real", pseudo=0)
    data = store_frames(train, folder / "frames")
    segmenter = LMANet(ERFNet(len(train.classes)), memory_size=recipe.memory_size, window=recipe.window)
    height, width, _ = train.sequences[0].image(0).shape
    views = make_views(
        recipe.augmentation, (height, width), draws=recipe.draws, pseudo=0, ranges=recipe.pseudo_memory
    )
    cache = build_feature_cache(segmenter, data, views, folder)
    weights = torch.ones(len(train.classes))

    def runner(step: int, cached: bool, attention: Backend) -> Callable[[], object]:
        samples = ClipSamples(
            data,
            views,
            memory_size=recipe.memory_size,
            memories=recipe.memories,
            cache=cache if cached else None,
        )
        module = (FromFeatures if cached else FromImages)(segmenter, (height, width))
        count = recipe.joint.batch_size

        def run() -> None:
            segmenter.attention = attention
            set_trainable(segmenter, step)
            set_mode(segmenter, step)
            for batch in range(batches):
                indices = range(batch * count, (batch + 1) * count)
                drawn = [samples.sample(batch, i % len(samples)) for i in indices]
                inputs, labels = default_collate(drawn)
                with torch.autocast("cpu", torch.bfloat16):
                    logits = module(*inputs)
                total, weight = cross_entropy_sums(*pixels(logits, labels), weights)
                (total / weight).backward()
                segmenter.zero_grad()

        return run

    kinds: dict[str, tuple[bool, Backend]] = {
        "without cache": (False, "auto"),
        "with cache, tiled attention": (True, "tiled"),
        "with cache": (True, "auto"),
    }
    return {f"step {step}, {name}": runner(step, *kind) for step in (1, 2) for name, kind in kinds.items()}
