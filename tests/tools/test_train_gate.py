"""The gate's training: what it learns from, and the module that it writes."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch

from contracts.networks import TinyBackbone, lively, seeded
from lmanet import TrainingFreeMemory
from lmanet.data.synthetic import SyntheticDrive
from lmanet.methods.gate import SHAPES, Gate, trained, untrained, written


@pytest.fixture(scope="module")
def clip_and_model():
    with seeded():
        model = TrainingFreeMemory(lively(TinyBackbone(11)).eval())
    return SyntheticDrive(split="val", sequences=1, frames=4, size=(64, 96)).sequences[0], model


def test_a_step_of_the_training_lowers_the_loss(tool, clip_and_model):
    sequence, model = clip_and_model
    train_gate = tool("train_gate")
    clip = train_gate.moments(model, sequence, range(4))
    assert clip[0].motion is None and all(moment.motion is not None for moment in clip[1:])
    assert all(moment.shares.sum(1).max() <= 1.001 for moment in clip)
    model.gate = gate = Gate(untrained())
    parameters = [getattr(gate, name).requires_grad_() for name in SHAPES]
    weights = train_gate.weights_of([clip])
    assert weights.shape == (11,) and weights.mean() == pytest.approx(1, abs=1e-5)
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    losses = []
    for _ in range(8):
        loss = train_gate.clip_loss(model, clip, weights, 0.3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_what_is_written_is_read_back(tool, tmp_path):
    weights = untrained(3)
    tool("train_gate").write(tmp_path / "weights.py", written(weights))
    content = {}
    exec((tmp_path / "weights.py").read_text(), content)
    read = np.frombuffer(base64.b85decode(content["WEIGHTS"]), "<f2").astype(np.float32)
    np.testing.assert_array_equal(read, weights.half().float().numpy())


def test_the_package_s_weights_are_of_the_gate_s_shapes():
    assert len(trained()) == len(untrained()) and trained().isfinite().all()
    assert not torch.equal(trained(), untrained().half().float())
