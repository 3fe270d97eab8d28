"""Networks of as many classes as ids allow, and of more, on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lmanet.cli.main import main
from lmanet.zoo.architectures import BACKBONES

NETWORK = """
import torch
from torch import nn

class Grey(nn.Module):
    '''The class of a pixel is its red value, from 0 to K - 1.'''

    def __init__(self, k):
        super().__init__()
        self.body, self.more = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
        self.body.weight.data = self.more.weight.data = torch.eye(3)[..., None, None]
        self.register_buffer("levels", torch.arange(k)[:, None, None] / 1.0)

    def forward(self, x):
        red = self.more(self.body(x * 0.229 + 0.485))[:, :1] * 255
        return 2 * red * self.levels - self.levels**2

def k255():
    return Grey(255)

def k256():
    return Grey(256)

def k300():
    return Grey(300)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's, and images of all reds up to 254, in the current folder."""
    monkeypatch.chdir(tmp_path)
    name = f"many_{abs(hash(tmp_path.name))}"
    (tmp_path / f"{name}.py").write_text(NETWORK)
    (tmp_path / "clip").mkdir()
    image = np.full((16, 16, 3), 100, np.uint8)
    image[..., 2].flat[:255] = np.arange(255)
    image[-1, -1, 2] = 254
    for i in range(2):
        cv2.imwrite(f"clip/{i}.png", image)
    before = dict(BACKBONES)
    yield name
    BACKBONES.clear()
    BACKBONES.update(before)


@pytest.mark.parametrize("method", ["single-frame", "flow-average"])
def test_a_network_of_255_classes_labels_with_all_its_ids(module, method, capsys):
    args = ["--model", f"{module}:k255", "--method", method]
    assert main(["segment", "clip", "-o", "labels", "-o", "view.mp4", *args]) == 0
    reds = cv2.imread("clip/0.png")[..., 2]
    for path in sorted(Path("labels").glob("*.png")):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), reds)
    assert len(list(Path("labels").glob("*.png"))) == 2 and Path("view.mp4").stat().st_size
    assert "and 243 more classes" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [256, 300])
def test_more_classes_are_refused_before_anything_is_written(module, classes, capsys):
    args = ["--model", f"{module}:k{classes}", "--method", "single-frame"]
    assert main(["segment", "clip", "-o", "labels", *args]) != 0
    message = f"a network of {classes} classes: label maps hold ids 0 to 254"
    told = capsys.readouterr().err
    assert message in " ".join(told.split()) and "Traceback" not in told
    assert not Path("labels").exists()
    data = ["--data", "synthetic:", "--model", f"{module}:k{classes}"]
    assert main(["evaluate", *data, "--method", "single-frame"]) != 0
    assert message in " ".join(capsys.readouterr().err.split())
