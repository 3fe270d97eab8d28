from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from lmanet import ERFNet, LMANet, SingleFrame
from lmanet.data.camvid import CAMVID_CLASSES
from lmanet.video import VideoSink
from lmanet.zoo import save_model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A video model with random weights, and the single-frame network that it names."""
    torch.manual_seed(0)
    backbone = ERFNet(11)
    save_model(SingleFrame(backbone), tmp_path / "single.safetensors", classes=CAMVID_CLASSES)
    model = LMANet(backbone, memory_size=2, window=5)
    path = tmp_path / "video.safetensors"
    save_model(model, path, classes=CAMVID_CLASSES, single_frame="single.safetensors")
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Five frames of 62×50 at 10 frames a second."""
    path = tmp_path / "clip.mp4"
    rng = np.random.default_rng(0)
    with VideoSink(path, width=62, height=50, fps=Fraction(10)) as sink:
        for i in range(5):
            sink.write(rng.integers(0, 256, (50, 62, 3), dtype=np.uint8), i / 10)
    return path


@pytest.fixture
def bundled_demo(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's two models as if they were bundled, with random weights."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    for file, name in (("single", "erfnet-synthetic"), ("video", "label-memory-erfnet-synthetic")):
        shutil.copy(weights.with_name(f"{file}.safetensors"), folder / f"{name}.safetensors")
    monkeypatch.setattr("lmanet.zoo.names.bundled_folder", lambda: folder)
