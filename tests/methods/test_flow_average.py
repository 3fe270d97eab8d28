"""The average along the optical flow."""

from __future__ import annotations

import itertools
from typing import ClassVar

import numpy as np
import pytest
import torch

from contracts.maps import read
from contracts.method import MethodContract, drive
from contracts.networks import TinyBackbone, lively, seeded
from lmanet.errors import InputError
from lmanet.flow import dis_flows
from lmanet.methods.flow_average import FlowAverage


class TestFlowAverage(MethodContract):
    kind = FlowAverage
    arguments: ClassVar = {"weight": 0.5}
    adjustments: ClassVar = {"weight": 0.25}
    low_precision_error = 0.1


@torch.no_grad()
def test_is_the_formula_pixel_by_pixel():
    with seeded():
        model = FlowAverage(lively(TinyBackbone()).double().eval(), weight=0.6)
    clip = (drive(3, (24, 33)) * 255).byte()
    clip[:, 2, :, :, :10] = 255 - clip[:, 2, :, :, :10]  # part of it is not found again
    images = [x.permute(1, 2, 0).numpy() for x in clip[0]]
    state, before, counted = None, None, []
    for t, image in enumerate(images):
        logits, state = model.step(clip[:, t], state)
        now = model.backbone.segment(clip[:, t])[0].softmax(0).permute(1, 2, 0).numpy()
        expected = now.copy()
        if before is not None:
            flow, returns = dis_flows(image, images[t - 1], preset="fast")
            for y, x in itertools.product(range(24), range(33)):
                f = flow[y, x].astype(float)
                to = x + f[0], y + f[1]
                b = read(returns.astype(float), *to)
                inside = 0 <= to[0] <= 32 and 0 <= to[1] <= 23
                agree = ((f + b) ** 2).sum() <= 0.01 * ((f**2).sum() + (b**2).sum()) + 0.5
                colours = np.abs(image[y, x].astype(float) - read(images[t - 1].astype(float), *to)).mean()
                w = 0.6 * np.exp(-colours / 20) if inside and agree else 0.0
                counted.append(w)
                expected[y, x] = w * read(before, *to) + (1 - w) * now[y, x]
        got = logits[0].softmax(0).permute(1, 2, 0).numpy()
        # A place at the edge of a condition may fall on either side, by rounding.
        wrong = np.abs(got - expected).max(-1) > 1e-4
        assert wrong.mean() < 0.01
        before = expected
    assert 0.1 < np.mean(np.array(counted) > 0.1) < 0.99, "some places count, some do not"


@torch.no_grad()
def test_without_weight_and_on_the_first_frame_it_is_the_network():
    with seeded():
        backbone = lively(TinyBackbone()).eval()
    clip = drive(3, (32, 40))
    for weight, frames in ((0.0, range(3)), (0.75, range(1))):
        state = None
        for t in range(3):
            logits, state = FlowAverage(backbone, weight=weight).step(clip[:, t], state)
            if t in frames:
                expected = backbone.segment(clip[:, t]).log_softmax(1)
                torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weight", [-0.1, 1.0, float("nan")])
def test_weight_out_of_range_is_refused(weight):
    with pytest.raises(InputError, match=f"weight {weight}: expected 0 to below 1"):
        FlowAverage(TinyBackbone(), weight=weight)


def test_frames_too_small_for_the_flow_are_told():
    model = FlowAverage(TinyBackbone()).eval()
    images = torch.rand(1, 3, 12, 40)
    _, state = model.step(images)
    with pytest.raises(InputError, match="40×12 pixels, optical flow needs at least 16×16"):
        model.step(images, state)
