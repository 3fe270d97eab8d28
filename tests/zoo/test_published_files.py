"""Files that the authors of networks published, where they are on this machine, on real video."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contracts.espnetv2 import espnetv2_by_formula
from lmanet import Session, load
from lmanet.cli.main import main
from lmanet.data.camvid import load_camvid
from lmanet.evaluation.metrics import ConfusionMatrix, mean_iou
from lmanet.imagefile import read_image
from lmanet.methods.base import VideoModel
from lmanet.zoo import load_official

SHARED = Path(__file__).parents[2] / "../shared"
WEIGHTS = Path(os.environ.get("LMANET_WEIGHTS", SHARED / "weights"))
CAMVID = Path(os.environ.get("LMANET_CAMVID", SHARED / "camvid"))
DAVIS = Path(os.environ.get("LMANET_DAVIS", SHARED / "davis"))
CITY = WEIGHTS / "espnetv2_s_2.0_city_1024x512.pth"
VOC = WEIGHTS / "espnetv2_s_2.0_pascal_384x384.pth"
SIZE = (512, 1024)
"""That the Cityscapes weights were trained for."""

needs_city = pytest.mark.skipif(not CITY.is_file(), reason=f"no {CITY}: set LMANET_WEIGHTS")
needs_voc = pytest.mark.skipif(not VOC.is_file(), reason=f"no {VOC}: set LMANET_WEIGHTS")
needs_camvid = pytest.mark.skipif(not CAMVID.is_dir(), reason=f"no CamVid at {CAMVID}: set LMANET_CAMVID")
needs_davis = pytest.mark.skipif(not DAVIS.is_dir(), reason=f"no DAVIS at {DAVIS}: set LMANET_DAVIS")


@pytest.mark.parametrize("path", [pytest.param(CITY, marks=needs_city), pytest.param(VOC, marks=needs_voc)])
@torch.no_grad()
def test_the_file_is_the_published_architecture(path: Path) -> None:
    network = load_official(path).model.backbone
    published = torch.load(path, map_location="cpu", weights_only=True)
    images = torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    expected = espnetv2_by_formula(published, images)
    difference = (network(images) - expected).abs().max()
    assert difference < 1e-5 * (expected.max() - expected.min())


def converted(folder: Path, source: Path, *options: str) -> VideoModel:
    path = folder / "converted.safetensors"
    assert main(["convert", str(source), "-o", str(path), *options]) == 0
    return load(str(path))


def camvid_miou(model: VideoModel, *, every: int) -> float:
    """mIoU in percent on every so many-th frame of CamVid val, seen at 512×1024 and scored at 360×480."""
    (sequence,) = load_camvid(CAMVID, "val").sequences
    confusion, session = ConfusionMatrix(11), Session(model, resize=SIZE)
    for index in range(0, len(sequence.frame_names), every):
        label = sequence.label(index)
        assert label is not None
        confusion.update(label, session.step(sequence.image(index)).labels)
    return 100 * mean_iou(confusion.compute())


@needs_city
@needs_camvid
@pytest.mark.parametrize(
    ("every", "expected"),
    [(13, 62.00), pytest.param(1, 64.38, marks=pytest.mark.slow)],
    ids=["8 frames", "all"],
)
def test_cityscapes_weights_on_camvid(every: int, expected: float, tmp_path: Path) -> None:
    model = converted(tmp_path, CITY, "--classes", "camvid")
    assert camvid_miou(model, every=every) == pytest.approx(expected, abs=0.05)


@needs_voc
@needs_davis
@pytest.mark.parametrize(("clip", "name"), [("blackswan", "bird"), ("camel", "horse")])
def test_voc_weights_find_the_animal(clip: str, name: str, tmp_path: Path) -> None:
    model = converted(tmp_path, VOC)
    session, number = Session(model), model.classes.names.index(name)
    seen, either = 0, 0
    for frame in ("00000", "00020", "00040"):
        said = session.step(read_image(DAVIS / "images" / clip / f"{frame}.jpg")).labels == number
        true = grey(DAVIS / "masks" / clip / f"{frame}.png") > 127
        seen, either = seen + int((said & true).sum()), either + int((said | true).sum())
    assert seen > 0.7 * either


def grey(path: Path) -> NDArray[np.uint8]:
    return read_image(path)[..., 0]
