from __future__ import annotations

import colorsys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.checkpoints import (
    Tensors,
    erfnet_checkpoint,
    lmanet_erfnet_checkpoint,
    lmanet_pspnet_checkpoint,
    pspnet_checkpoint,
)
from lmanet import LMANet, Session, SingleFrame, load
from lmanet.cli.main import main
from lmanet.data.cityscapes import CITYSCAPES_CLASSES
from lmanet.zoo import load_official


@pytest.mark.parametrize(
    ("checkpoint", "void"),
    [
        (erfnet_checkpoint, True),
        (lambda: {"epoch": 200, "state_dict": pspnet_checkpoint(50)}, False),
        (lambda: {"epoch": 200, "state_dict": pspnet_checkpoint(101)}, False),
        (lmanet_erfnet_checkpoint, True),
        (lmanet_pspnet_checkpoint, False),
    ],
    ids=["ERFNet", "PSPNet-50", "PSPNet-101", "LMANet on ERFNet", "LMANet on PSPNet"],
)
@torch.no_grad()
def test_what_is_written_is_what_load_takes(
    checkpoint: Callable[[], Tensors], void: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "best.pth", tmp_path / "best.safetensors"
    torch.save(checkpoint(), path)
    assert main(["convert", str(path), "-o", str(output)]) == 0
    official, model = load_official(path), load(str(output))
    assert official.kind in capsys.readouterr().out
    assert model.card["kind"] == official.kind and model.card["file"] == "best.pth"
    assert model.classes.names == (*CITYSCAPES_CLASSES.names, *(["void"] if void else []))
    images = torch.rand(1, 3, 17, 26, generator=torch.Generator().manual_seed(0))
    if isinstance(model, LMANet):
        assert isinstance(official.model, LMANet)
        assert model.border == "zero" and model.memory_size == official.model.memory_size
        clip = torch.stack([images, 1 - images], 1)
        torch.testing.assert_close(model(clip), official.model(clip), rtol=0, atol=0)
        frame = (images[0].movedim(0, -1).numpy() * 255).astype(np.uint8)
        assert Session(model).step(frame).labels.shape == (17, 26)
    else:
        assert isinstance(official.model, SingleFrame) and isinstance(model, SingleFrame)
        expected = official.model.backbone.segment(images)
        torch.testing.assert_close(model.backbone.segment(images), expected, rtol=0, atol=0)


def test_other_numbers_of_classes_are_numbered(tmp_path: Path) -> None:
    path, output = tmp_path / "voc.pth", tmp_path / "voc.safetensors"
    torch.save(pspnet_checkpoint(50, 21), path)
    assert main(["convert", str(path), "-o", str(output)]) == 0
    classes = load(str(output)).classes
    assert classes.names[0] == "class 0" and len(set(classes.names)) == 21
    hues = [colorsys.rgb_to_hsv(*(c / 255 for c in colour))[0] for colour in classes.palette]
    apart = [min((a - b) % 1, (b - a) % 1) for a, b in pairwise(hues)]
    assert len(set(classes.palette)) == 21 and min(apart) > 0.3


class Unsafe:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["unsafe", "unknown", "damaged", "missing", "of text"])
def test_what_is_refused_is_named_in_one_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "best.pth", tmp_path / "best.safetensors"
    if kind == "unsafe":
        torch.save(erfnet_checkpoint() | {"x": Unsafe(tmp_path / "run")}, path)
    elif kind == "unknown":
        torch.save({"conv1.weight": torch.ones(3)}, path)
    elif kind == "damaged":
        path.write_bytes(b"PK\x03\x04 and no more")
    elif kind == "of text":
        torch.save({"weight": "text"}, path)
    assert main(["convert", str(path), "-o", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("lmanet: ") and str(path) in error
    if kind != "missing":
        assert all(name in error for name in ("ERFNet", "PSPNet", "semseg", "LMANet"))
    assert not output.exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["best.pth", "best"])
def test_the_output_s_suffix_is_checked_first(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(tmp_path / "missing.pth"), "-o", str(tmp_path / name)]) == 2
    assert ".safetensors" in capsys.readouterr().err
