from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.networks import TinyBackbone, lively, seeded, small_trainings
from contracts.tiny import tiny_backbone
from lmanet.data.camvid import CAMVID_CLASSES
from lmanet.methods.lmanet import LMANet
from lmanet.methods.single_frame import SingleFrame
from lmanet.research.benchmarks.model import Variant
from lmanet.research.reproduce.budget import Budget
from lmanet.research.reproduce.data import Street
from lmanet.training.augment import Augmentation
from lmanet.training.config import Stage
from lmanet.training.recipes import LabelMemoryRecipe, LMANetRecipe, SingleRecipe
from lmanet.zoo import register_backbone, save_model
from lmanet.zoo.architectures import BACKBONES

STAGE = Stage(epochs=1, batch_size=2, lr=1e-3, samples=2)
TRAINING = {
    "memory_size": 2,
    "window": 3,
    "memories": "real",
    "draws": 1,
    "pseudo": 0,
    "augmentation": Augmentation(),
    "module": STAGE,
    "joint": replace(STAGE, ema=0.5),
}
RECIPE = LMANetRecipe(key_channels=4, value_channels=6, **TRAINING)
LABELS = LabelMemoryRecipe(hidden=4, **{**TRAINING, "joint": replace(STAGE, epochs=0)})


class CellBackbone(TinyBackbone):
    """A class of its own, as it stays registered while other tests run."""


@pytest.fixture(scope="package", autouse=True)
def in_little_time() -> Iterator[None]:
    with small_trainings():
        yield


@pytest.fixture(scope="session", autouse=True)
def tiny_architecture() -> Iterator[None]:
    register_backbone("tiny-cells", CellBackbone)
    yield
    del BACKBONES["tiny-cells"]


@pytest.fixture(scope="session")
def budget() -> Budget:
    """A few steps on a small drive."""
    return Budget(
        single={
            "tiny-cells": SingleRecipe(
                network="tiny-cells", augmentation=Augmentation(crop=(32, 32)), stage=STAGE
            )
        },
        paper=RECIPE,
        labels=LABELS,
        street=Street(sequences=1, frames=4, size=(48, 64)),
        scored_street=Street(sequences=1, frames=7, size=(48, 64)),
        hard_street=Street(sequences=1, frames=3, size=(48, 64)),
        timed=(Variant(), Variant(memory="paper", window=3, memory_size=1)),
        repeats=1,
    )


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A single-frame network with random weights."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    with seeded():
        save_model(SingleFrame(CellBackbone(11)), path, classes=CAMVID_CLASSES)
    return str(path)


@pytest.fixture
def times() -> Callable[[Path], dict[str, int]]:
    """When each finished cell of a folder was written."""
    return lambda out: {path.parent.name: path.stat().st_mtime_ns for path in out.glob("cells/*/result.json")}


@pytest.fixture
def model() -> LMANet:
    """A small one that a memory changes much in."""
    with seeded(2), torch.no_grad():
        made = LMANet(lively(tiny_backbone()), key_channels=4, value_channels=6, memory_size=2, window=5)
        made.backbone.head.bias.zero_()  # or one class would win whatever the memory holds
        return lively(made).eval()
