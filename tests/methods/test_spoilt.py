"""Spoilt frames among good ones, in the memory without training."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.networks import TinyBackbone, seeded
from lmanet import TrainingFreeMemory
from lmanet.data.street.degrade import Degradation
from lmanet.data.synthetic import SyntheticDrive
from lmanet.methods.following import bytes_of
from lmanet.methods.spoilt import AGREEMENT, BOTH_SURE, LESS_SURE, LONGEST, SURE, fallen, same_picture
from lmanet.methods.training_free import FollowedState, Motion
from lmanet.zoo import load

FRAMES = 6
BAD = 3


def naive_sameness(one: np.ndarray, other: np.ndarray) -> float:
    """Of probabilities (K, h, w)."""
    counted = (one.max(0) > SURE) & (other.max(0) > SURE)
    a, b = one.argmax(0)[counted], other.argmax(0)[counted]
    ious = [((a == k) & (b == k)).sum() / ((a == k) | (b == k)).sum() for k in np.unique(a)]
    agreement = float(np.mean(ious)) if ious else 0.0
    parts = (agreement, AGREEMENT), (counted.mean(), BOTH_SURE)
    return float(np.prod([np.clip((x - low) / (high - low), 0, 1) for x, (low, high) in parts]))


def probabilities(sharp: float, seed: int = 0) -> Tensor:
    """(1, 4, 10, 12)."""
    with seeded(seed):
        return (sharp * torch.randn(1, 4, 10, 12, dtype=torch.float64)).softmax(1)


@pytest.mark.parametrize("kept", [0.5, 0.7, 0.8, 0.95, 1])
@pytest.mark.parametrize("sharp", [0.1, 1.3, 1.6, 8.0])
def test_sameness_is_by_the_mean_iou_of_what_both_are_sure_of(sharp, kept):
    one = probabilities(sharp)
    with seeded(2):
        other = torch.where(torch.rand(1, 1, 10, 12) < kept, one, probabilities(sharp, seed=1))
    assert same_picture(one, other) == pytest.approx(naive_sameness(one[0].numpy(), other[0].numpy()))


def test_sameness_is_from_0_to_1():
    found = set()
    for sharp, kept in itertools.product((0.1, 1.3, 1.6, 8.0), (0.5, 0.7, 0.8, 0.95, 1)):
        one, other = probabilities(sharp), probabilities(sharp, seed=1)
        with seeded(2):
            found.add(same_picture(one, torch.where(torch.rand(1, 1, 10, 12) < kept, one, other)))
    assert {0, 1} < found


def test_less_sure_is_by_the_mean_of_the_largest_probabilities():
    now = probabilities(8)
    for share in (0, 0.01, 0.02, 0.2):
        blurred = torch.lerp(now, torch.full_like(now, 0.25), share)
        fall = float((now.amax(1) - blurred.amax(1)).mean())
        assert fallen(blurred, now) == pytest.approx(np.clip((fall - LESS_SURE[0]) / np.ptp(LESS_SURE), 0, 1))
        assert fallen(now, blurred) == 0
    assert fallen(blurred, now) == 1


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
    assert torch.equal(states[BAD].good_labels, states[BAD - 1].labels)
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


def test_a_run_of_spoilt_frames_that_are_like_each_other_is_bridged(model, drives):
    clip, _, labels = drives
    blurred = F.avg_pool2d(clip[BAD:-1].float(), 31, 1, 15, count_include_pad=False).byte()
    clip = torch.cat([clip[:BAD], blurred, clip[-1:]])
    logits, states = stream(model, clip[:, None])
    assert [int(state.age) for state in states] == [0, 1, 1, 2, 3, 1]
    for t in (BAD, BAD + 1):
        with torch.no_grad():
            alone = model.backbone.segment(clip[t, None])
        assert right(logits[t], labels[t]) > right(alone, labels[t]) + 0.05
    assert Motion.between(clip[BAD + 1, None], clip[BAD, None]).found


class Told(TinyBackbone):
    """Says of every pixel what it is told to."""

    said: tuple[float, ...]

    def segment(self, images: Tensor) -> Tensor:
        logits = torch.tensor(self.said, dtype=torch.float64).log()[None, :, None, None]
        return logits.expand(len(images), -1, *images.shape[-2:]).contiguous()


@pytest.mark.parametrize("sure", [0.93, 0.8])
def test_what_is_said_of_a_frame_that_is_found_but_spoilt_is_not_carried_on(sure):
    network = Told().double().eval()
    memory = TrainingFreeMemory(network)
    with seeded(1):
        picture = F.interpolate(torch.rand(1, 3, 24, 32), (96, 128), mode="bilinear")
    good, spoilt_ = (0.98, 0.005, 0.005, 0.005, 0.005), (0.01, sure, 0.01, 0.01, 0.97 - sure)
    state, ages = None, []
    with torch.no_grad():
        assert Motion.between(bytes_of(picture), bytes_of(picture)).found
        for number in range(8):
            network.said = spoilt_ if number in (4, 5) else good
            _, state = memory.step(picture, state)
            ages.append(int(state.age))
    assert ages == [0, 1, 1, 1, 2, 3, 1, 1]
    assert state is not None and state.probabilities[:, 0].min() > 0.97


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
