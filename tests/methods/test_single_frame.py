"""A network by itself, as a method."""

from __future__ import annotations

import pytest
import torch

from contracts.method import MethodContract, drive
from contracts.networks import TinyBackbone, seeded
from lmanet import SingleFrame
from lmanet.errors import InputError


class TestSingleFrame(MethodContract):
    kind = SingleFrame


@torch.no_grad()
def test_every_frame_is_the_network_s_own_output():
    with seeded():
        model = SingleFrame(TinyBackbone()).eval()
    for images in drive(2, (18, 27)).unbind(1):
        padded = torch.nn.functional.pad(images, (0, 1, 0, 2), mode="replicate")
        logits, state = model.step(images)
        assert torch.equal(logits, model.backbone(padded)[..., :18, :27])
        assert state == () and model.step(images, state)[1] == ()


def test_only_a_backbone_is_taken():
    with pytest.raises(InputError, match=r"a SingleFrame around a Conv2d: .*wrap\(model, 'single-frame'\)"):
        SingleFrame(torch.nn.Conv2d(3, 4, 1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="a SingleFrame around a SingleFrame"):
        SingleFrame(SingleFrame(TinyBackbone()))  # pyright: ignore[reportArgumentType]
