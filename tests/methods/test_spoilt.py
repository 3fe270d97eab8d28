"""Spoilt frames among good ones, in the memory without training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.networks import seeded
from lmanet import TrainingFreeMemory
from lmanet.data.street.degrade import Degradation
from lmanet.data.synthetic import SyntheticDrive
from lmanet.methods.spoilt import AGREEMENT, HALF, LESS_SURE, LONGEST, SURE, agreement, share_of_past
from lmanet.methods.training_free import FollowedState
from lmanet.zoo import load

FRAMES = 6
BAD = 3


def naive_agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Of probabilities (K, h, w)."""
    counted = (one.max(0) > SURE) & (other.max(0) > SURE)
    a, b = one.argmax(0)[counted], other.argmax(0)[counted]
    ious = [((a == k) & (b == k)).sum() / ((a == k) | (b == k)).sum() for k in np.unique(a)]
    return float(np.mean(ious)) if ious else 0.0


def probabilities(sharp: float, seed: int = 0) -> Tensor:
    """(2, 4, 10, 12), of two streams."""
    with seeded(seed):
        return (sharp * torch.randn(2, 4, 10, 12, dtype=torch.float64)).softmax(1)


@pytest.mark.parametrize("sharp", [0.1, 3.0, 8.0])
def test_agreement_is_the_mean_iou_of_what_both_are_sure_of(sharp):
    one = probabilities(sharp)
    other = torch.where(torch.rand(2, 1, 10, 12) < 0.7, one, probabilities(sharp, seed=1))
    expected = [naive_agreement(a.numpy(), b.numpy()) for a, b in zip(one, other, strict=True)]
    assert agreement(one, other).flatten().tolist() == pytest.approx(expected)
    assert agreement(one, one).flatten().tolist() == pytest.approx([float(sharp > 1)] * 2)


def test_the_past_counts_where_the_same_picture_is_seen_less_surely():
    now = probabilities(8)
    blurred = torch.lerp(now, torch.full_like(now, 0.25), 0.2)  # the same labels, less sure
    less = float((now.amax(1) - blurred.amax(1)).mean())
    assert less > LESS_SURE[1]
    assert share_of_past(blurred, now, now).flatten().tolist() == [HALF, HALF]
    assert not share_of_past(now, blurred, blurred).any(), "as sure as before"
    assert not share_of_past(blurred, now.roll(1, 1), now).any(), "another picture"
    half = torch.lerp(now, torch.full_like(now, 0.25), 0.2 * 0.02 / less)
    share = share_of_past(half[:1], now[:1], now[:1])
    fallen = float((now[0].amax(0) - half[0].amax(0)).mean())
    assert share.item() == pytest.approx(HALF * fallen / (LESS_SURE[1] - LESS_SURE[0]), rel=1e-3)
    assert AGREEMENT[0] < AGREEMENT[1] <= 1


@pytest.fixture(scope="module")
def model() -> TrainingFreeMemory:
    return TrainingFreeMemory(load("erfnet-synthetic").backbone).eval()


@pytest.fixture(scope="module")
def drives() -> tuple[Tensor, Tensor, Tensor]:
    """Two clean drives (T, 3, H, W) uint8, and the labels (T, H, W) of the first."""
    data = SyntheticDrive(split="val", sequences=2, frames=FRAMES, degradation=Degradation.none())
    clips = [
        torch.stack([torch.from_numpy(np.array(s.image(i))).permute(2, 0, 1) for i in range(FRAMES)])
        for s in data.sequences
    ]
    labels = [np.array(data.sequences[0].label(i)) for i in range(FRAMES)]
    return clips[0], clips[1], torch.from_numpy(np.stack(labels))


def spoilt(images: Tensor) -> Tensor:
    """Dark, and full of noise."""
    with seeded(1):
        noise = 15 * torch.randn(images.shape)
    return (0.15 * images + noise).clamp(0, 255).byte()


def stream(model: TrainingFreeMemory, clip: Tensor) -> tuple[list[Tensor], list[FollowedState]]:
    """Logits and states of each frame of a clip (T, B, 3, H, W)."""
    state, logits, states = None, [], []
    with torch.no_grad():
        for images in clip:
            one, state = model.step(images, state)
            logits.append(one)
            states.append(state)
    return logits, states


def right(logits: Tensor, labels: Tensor) -> float:
    counted = labels < logits.shape[1]
    return float((logits.argmax(1)[0] == labels)[counted].double().mean())


def test_a_spoilt_frame_is_labelled_by_those_before_too(model, drives):
    clip, _, labels = drives
    clip = clip.clone()
    clip[BAD] = spoilt(clip[BAD])
    logits, states = stream(model, clip[:, None])
    with torch.no_grad():
        alone = [model.backbone.segment(images) for images in clip[:, None]]
    assert [int(state.age) for state in states] == [0, 1, 1, 2, 1, 1]
    before, after = right(alone[BAD], labels[BAD]), right(logits[BAD], labels[BAD])
    assert after > before + 0.05, (before, after)
    # What it is remembered by is the network's own, the last good frame stays beside it.
    assert torch.equal(states[BAD].labels, alone[BAD].argmax(1).byte())
    assert torch.equal(states[BAD].found_labels, states[BAD - 1].labels)
    # The next is followed to the last good one: the same as if the spoilt one had not been there.
    without = torch.cat([clip[:BAD], clip[BAD + 1 :]])
    expected, _ = stream(model, without[:, None])
    assert torch.equal(logits[BAD + 1].argmax(1), expected[BAD].argmax(1))


def test_another_picture_is_labelled_by_itself_however_unsure_the_network_is(model, drives):
    clip, other, _ = drives
    clip = torch.cat([clip[:BAD], other[BAD:].flip(-2)])  # upside down
    logits, states = stream(model, clip[:, None])
    with torch.no_grad():
        alone = model.seen(clip[BAD, None])
    sure = states[BAD - 1].probabilities.amax(1).mean()
    assert alone.now.amax(1).mean() < sure - LESS_SURE[1] and int(states[BAD].age) == 2
    assert torch.equal(logits[BAD].argmax(1), alone.logits.argmax(1))


def test_streams_side_by_side_do_not_meet(model, drives):
    clip, other, _ = drives
    clip = clip.clone()
    clip[BAD] = spoilt(clip[BAD])
    both, states = stream(model, torch.stack([clip, other], 1))
    for index, one in enumerate((clip, other)):
        alone, own = stream(model, one[:, None])
        for a, b in zip(both, alone, strict=True):
            assert (a[index].argmax(0) != b[0].argmax(0)).double().mean() < 1e-3
        assert [float(s.age[index]) for s in states] == [float(s.age) for s in own]


def test_the_last_good_frame_is_forgotten_in_the_end(model, drives):
    clip, _, _ = drives
    with seeded(3):
        noise = torch.randint(0, 256, (LONGEST + 2, *clip.shape[1:]), dtype=torch.uint8)
    _, states = stream(model, torch.cat([clip[:2], noise])[:, None])
    assert [int(state.age) for state in states] == [0, 1, *range(2, LONGEST + 1), 0, 0, 0]
