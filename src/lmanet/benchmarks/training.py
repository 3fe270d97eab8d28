"""What the feature cache saves: steps 1 and 2 of the training with and without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import default_collate

from lmanet.backbones import ERFNet
from lmanet.benchmarks.timing import Timing, time_in_turn
from lmanet.data.synthetic import SyntheticDrive
from lmanet.segmenter import VideoSegmenter
from lmanet.training.clips import ClipSamples, FromFeatures, FromImages, make_views
from lmanet.training.features import build_feature_cache
from lmanet.training.frames import store_frames
from lmanet.training.losses import cross_entropy_sums
from lmanet.training.recipes import MemoryRecipe
from lmanet.training.train import set_mode, set_trainable


def bench_training(folder: Path, *, batches: int, repeats: int) -> dict[str, Timing]:
    """Time `batches` batches of each step, forward, backward and reading the samples, without the optimiser.

    Args:
        folder: for frames and features.
        batches: per run.
        repeats: counted runs.
    """
    recipe = replace(MemoryRecipe(), draws=2, memories="real", pseudo=0)
    drive = SyntheticDrive(split="train", sequences=1, frames=16)
    data = store_frames(drive, folder / "frames")
    segmenter = VideoSegmenter(
        ERFNet(len(drive.classes)), memory_size=recipe.memory_size, window=recipe.window
    )
    size = drive.sequences[0].image(0).shape[:2]
    views = make_views(
        recipe.augmentation, (size[0], size[1]), draws=recipe.draws, pseudo=0, ranges=recipe.pseudo_memory
    )
    cache = build_feature_cache(segmenter.backbone, data, views, folder)
    weights = torch.ones(len(drive.classes))

    def runner(step: int, cached: bool) -> Callable[[], object]:
        samples = ClipSamples(
            data,
            views,
            memory_size=recipe.memory_size,
            memories=recipe.memories,
            cache=cache if cached else None,
        )
        module = (FromFeatures if cached else FromImages)(segmenter, (size[0], size[1]))
        count = recipe.joint.batch_size

        def run() -> None:
            set_trainable(segmenter, step)
            set_mode(segmenter, step)
            for batch in range(batches):
                inputs, labels = default_collate(
                    [
                        samples.sample(batch, i % len(samples))
                        for i in range(batch * count, (batch + 1) * count)
                    ]
                )
                with torch.autocast("cpu", torch.bfloat16):
                    logits = module(*inputs)
                total, weight = cross_entropy_sums(logits, labels, weights)
                (total / weight).backward()
                segmenter.zero_grad()

        return run

    return time_in_turn(
        {
            f"step {step}, {'with' if cached else 'without'} cache": runner(step, cached)
            for step in (1, 2)
            for cached in (False, True)
        },
        repeats=repeats,
    )
