from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import lmanet
from contracts.networks import seeded
from lmanet.backbones import ERFNet
from lmanet.classes import Classes
from lmanet.cli.main import main
from lmanet.zoo import save_model

SHORT = ["--module.epochs", "1", "--module.batch-size", "1"]
TINY = ["--window", "3", "--draws", "1", "--pseudo", "1", "--workers", "0"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A folder of frames without any label."""
    root = tmp_path / "drive"
    (root / "images/one").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(3):
        cv2.imwrite(str(root / f"images/one/{i}.png"), rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    (root / "classes.json").write_text(json.dumps({"names": ["road", "car"], "fps": 10}))
    (root / "train.txt").write_text("one\n")
    return f"folder:{root}"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    with seeded():
        backbone = ERFNet(2).eval()
    path = tmp_path / "network.safetensors"
    save_model(lmanet.SingleFrame(backbone), path, classes=Classes(("road", "car"), ((1, 2, 3), (4, 5, 6))))
    return path


def test_a_memory_is_trained_without_a_label(tmp_path: Path, data: str, network: Path, capsys) -> None:
    out = tmp_path / "runs"
    command = ["train", "label-memory", "--unlabelled", "--confidence", "0.5", "--data", data, "-o", str(out)]
    assert main([*command, "--weights", str(network), *SHORT, *TINY]) == 0
    assert "of step 1, epoch 1" in capsys.readouterr().err
    model = lmanet.load(str(out / "label-memory.safetensors"))
    assert isinstance(model, lmanet.LabelMemory) and model.card["val"] is None


def test_a_network_itself_needs_labels(tmp_path: Path, data: str, network: Path, capsys) -> None:
    command = ["train", "erfnet", "--unlabelled", "--data", data, "-o", str(tmp_path / "runs")]
    assert main([*command, "--weights", str(network)]) == 2
    assert "it is a memory that learns without labels" in capsys.readouterr().err
