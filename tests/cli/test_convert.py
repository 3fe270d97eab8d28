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
    espnetv2_checkpoint,
    lmanet_erfnet_checkpoint,
    lmanet_pspnet_checkpoint,
    pspnet_checkpoint,
)
from lmanet import LMANet, Session, SingleFrame, load
from lmanet.cli.main import main
from lmanet.data.camvid import CAMVID_CLASSES
from lmanet.data.cityscapes import CITYSCAPES_CLASSES
from lmanet.data.merging import MERGES
from lmanet.data.voc import VOC_CLASSES
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


@pytest.mark.parametrize("num_classes", [20, 21], ids=["Cityscapes", "VOC"])
def test_espnetv2_has_the_classes_of_its_data(num_classes: int, tmp_path: Path) -> None:
    path, output = tmp_path / "espnetv2.pth", tmp_path / "espnetv2.safetensors"
    torch.save(espnetv2_checkpoint(num_classes), path)
    assert main(["convert", str(path), "-o", str(output)]) == 0
    model = load(str(output))
    if num_classes == 20:
        assert model.classes.names == (*CITYSCAPES_CLASSES.names, "background")
        assert model.card["data"] == "Cityscapes"
    else:
        assert model.classes == VOC_CLASSES and model.card["data"] == "PASCAL VOC 2012"
    assert "EdgeNets" in model.card["origin"] and "MIT" in model.card["licence"]
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert Session(model).step(frame).labels.shape == (40, 50)


@pytest.mark.parametrize("from_weights", [False, True], ids=["a checkpoint", "a weights file"])
@torch.no_grad()
def test_cityscapes_classes_become_camvid_s(from_weights: bool, tmp_path: Path) -> None:
    path, plain, output = (
        tmp_path / name for name in ("best.pth", "plain.safetensors", "camvid.safetensors")
    )
    torch.save(erfnet_checkpoint(), path)
    assert main(["convert", str(path), "-o", str(plain)]) == 0
    source = plain if from_weights else path
    assert main(["convert", str(source), "--classes", "camvid", "-o", str(output)]) == 0
    model = load(str(output))
    assert model.classes == CAMVID_CLASSES
    assert model.card["kind"].startswith("ERFNet") and model.card["command"].endswith("--classes camvid")
    images = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    own = load(str(plain)).backbone(images).softmax(1)
    summed = [
        own[:, [CITYSCAPES_CLASSES.names.index(n) for n in of]].sum(1)
        for of in MERGES["camvid"].names.values()
    ]
    expected = torch.stack(summed, 1)
    torch.testing.assert_close(model.backbone(images).softmax(1), expected / expected.sum(1, keepdim=True))


def test_classes_of_a_file(tmp_path: Path) -> None:
    path, output, classes = (tmp_path / name for name in ("best.pth", "few.safetensors", "few.json"))
    torch.save(erfnet_checkpoint(), path)
    classes.write_text('{"ground": ["road", "sidewalk"], "vehicle": ["car", "bus"], "sky": ["sky"]}')
    assert main(["convert", str(path), "--classes", str(classes), "-o", str(output)]) == 0
    model = load(str(output))
    assert model.classes.names == ("ground", "vehicle", "sky") and model.backbone.num_classes == 3
    palette = dict(zip(CITYSCAPES_CLASSES.names, CITYSCAPES_CLASSES.palette, strict=True))
    assert model.classes.palette == (palette["road"], palette["car"], palette["sky"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kitti", "classes 'kitti': expected camvid, or a .json file"),
        ("few.json", "few.json cannot be read"),
        ('["road", "sky"]', "expected for each class a list of names"),
        ('{"ground": "road", "sky": ["sky"]}', "expected for each class a list of names"),
        ('{"ground": ["street"], "sky": ["sky"]}', "has no class 'street' to merge: it has road, sidewalk"),
        ('{"ground": ["road"]}', "expected at least two groups"),
        ('{"ground": ["road"], "sky": []}', "none of them empty"),
        ('{"ground": ["road", "sky"], "sky": ["sky"]}', "class 10 of the network is to be merged twice"),
    ],
)
def test_classes_that_cannot_be_merged(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "best.pth", tmp_path / "few.safetensors"
    torch.save(erfnet_checkpoint(), path)
    classes = tmp_path / "classes.json"
    if text[0] in "[{":
        classes.write_text(text)
    chosen = classes if text[0] in "[{" else text
    assert main(["convert", str(path), "--classes", str(chosen), "-o", str(output)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not output.exists()


def test_classes_of_a_method_that_was_trained_on_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "best.pth", tmp_path / "few.safetensors"
    torch.save(lmanet_erfnet_checkpoint(), path)
    assert main(["convert", str(path), "--classes", "camvid", "-o", str(output)]) == 2
    assert (
        "is of the method lmanet, which was trained on the network's own classes" in capsys.readouterr().err
    )


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
