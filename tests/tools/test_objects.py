"""IoU and flicker of one moving thing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lmanet.errors import DataError


class Said:
    """A session that says what it was told to."""

    def __init__(self, labels):
        self._labels, self._next = labels, 0

    def reset(self):
        self._next = 0

    def step(self, pixels):
        assert pixels.shape == (64, 80, 3)
        self._next += 1
        return SimpleNamespace(labels=self._labels[self._next - 1])


def make_clip(root, masks):
    for kind in ("images", "masks"):
        (root / kind / "dog").mkdir(parents=True)
    for n, mask in enumerate(masks):
        Image.fromarray(np.zeros((64, 80, 3), np.uint8)).save(root / f"images/dog/{n:05d}.jpg")
        Image.fromarray((mask * 255).astype(np.uint8)).save(root / f"masks/dog/{n:05d}.png")


def test_what_is_far_from_the_thing_does_not_count(tool, tmp_path):
    mask = np.zeros((64, 80), bool)
    mask[10:20, 10:30] = True  # 200 pixels
    make_clip(tmp_path, [mask, mask])
    first, second = np.zeros((2, 64, 80), np.uint8)
    first[10:20, 10:20] = 12  # half of the thing
    first[10:20, 30:35] = 12  # 50 pixels beside it
    first[60:64, 60:80] = 12  # far away
    second[10:20, 10:30] = 12
    scores = tool("objects").scored(Said([first, second]), tmp_path, "dog", 12, None)
    assert scores["iou"] == pytest.approx((100 + 200) / (250 + 200))
    assert scores["flicker"] == pytest.approx(100 / 200)


def test_a_mask_for_each_frame(tool, tmp_path):
    make_clip(tmp_path, [np.ones((64, 80), bool)] * 2)
    (tmp_path / "masks/dog/00001.png").unlink()
    with pytest.raises(DataError, match="2 frames of dog and 1 masks: expected one for each"):
        tool("objects").scored(Said([]), tmp_path, "dog", 12, None)
