"""Memory without training."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.method import MethodContract
from contracts.networks import DEVICES, TinyBackbone, lively, seeded
from contracts.tiny import TinyData
from lmanet import Session, SingleFrame, TrainingFreeMemory
from lmanet.backbones import Backbone, ERFNet
from lmanet.data.camvid import load_camvid
from lmanet.data.protocols import Sequence
from lmanet.errors import InputError
from lmanet.evaluation.models import ModelPredictor
from lmanet.evaluation.results import Scores
from lmanet.evaluation.run import Predictor, evaluate
from lmanet.methods import labels, training_free
from lmanet.methods.memory import MemoryState
from lmanet.zoo import load

CAMVID = Path(os.environ.get("LMANET_CAMVID", Path(__file__).parents[2] / "../shared/camvid"))
SIZES = [(24, 32), (22, 31), (5, 7)]


class TestTrainingFreeMemory(MethodContract):
    kind = TrainingFreeMemory
    low_precision_error = 0.3
    arguments: ClassVar = {"memory_size": 3, "window": 5}
    adjustments: ClassVar = {
        "memory_size": 2,
        "window": 3,
        "temperature": 0.1,
        "strength": 0.3,
        "attention": "reference",
    }


@pytest.fixture(params=DEVICES)
def backbone(request) -> Iterator[Backbone]:
    """In float64, so that comparisons can be strict; sharp, so that it is sure of something."""
    with seeded():
        network = lively(TinyBackbone())
        network.head.weight.data *= 8
        yield network.to(request.param).double().eval()


def drive(backbone: Backbone, length: int, size: tuple[int, int] = (24, 32), batch: int = 1) -> Tensor:
    """(B, T, 3, H, W): a smooth scene that moves a pixel a frame, so that it can be followed, and some noise."""
    with seeded(1):
        scene = F.interpolate(torch.rand(batch, 3, 9, 14, dtype=torch.float64), (size[0], size[1] + length))
        frames = [scene[..., i : i + size[1]] for i in range(length)]
        clip = torch.stack(frames, 1)
        clip = (clip + 0.05 * torch.randn_like(clip)).clamp(0, 1)
    return clip.to(next(backbone.parameters()).device)


def stream(model: TrainingFreeMemory, clip: Tensor) -> tuple[list[Tensor], MemoryState]:
    outputs, state = [], None
    for images in clip.unbind(1):
        logits, state = model.step(images, state)
        outputs.append(logits)
    assert state is not None
    return outputs, state


def said_of(logits: Tensor, cells: tuple[int, int]) -> Tensor:
    """Shares of the labels of each cell, (h, w, K)."""
    labels = logits.argmax(0).unflatten(0, (cells[0], -1)).unflatten(2, (cells[1], -1))
    return torch.stack([(labels == k).double().mean((1, 3)) for k in range(len(logits))], -1)


def across(x: Tensor) -> Tensor:
    """Mean squared distance of neighbours, (h, w, C)."""
    down, right = (x[1:] - x[:-1]), (x[:, 1:] - x[:, :-1])
    return (down.square().sum(-1).mean() + right.square().sum(-1).mean()) / 2


def naive_step(
    model: TrainingFreeMemory, images: Tensor, past: list[tuple[Tensor, Tensor, float]]
) -> tuple[Tensor, tuple[Tensor, Tensor, float]]:
    """The formula, cell by cell, for one image (3, H, W) whose size fits the stride and channels need no projection.

    `past`: keys (h, w, Ck) and label shares (h, w, K) of the frames remembered, and how far each was followed.
    Returns logits (K, H, W), and what this frame leaves to the next.
    """
    features = model.backbone.encode(images[None])
    size = (images.shape[-2], images.shape[-1])
    logits = model.backbone.decode(features, size)[0]
    fused = features.fused[0]
    height, width = fused.shape[1:]
    side = size[0] // height
    by_cell = logits.unflatten(1, (height, side)).unflatten(3, (width, side)).mean((2, 4))
    best = by_cell.sort(0, descending=True).values
    scale = ((best[0] - best[1]).mean() / 5).clamp_min(1)
    probabilities = (logits / scale).softmax(0)
    key = torch.empty(height, width, len(fused) + 12, dtype=torch.float64)
    mean_colours = images.mean((1, 2))
    for y, x in itertools.product(range(height), range(width)):
        feature = torch.stack([(c[y, x] - c.mean()) / (c.var(correction=0) + 1e-5).sqrt() for c in fused])
        patch = images[:, y * side : (y + 1) * side, x * side : (x + 1) * side]
        half = side // 2
        colour = torch.stack(
            [
                patch[c, i * half : (i + 1) * half, j * half : (j + 1) * half].mean() - mean_colours[c]
                for c in range(3)
                for i in range(2)
                for j in range(2)
            ]
        )
        parts = 0.75**0.5 * feature / feature.norm(), 0.25**0.5 * colour / colour.norm()
        key[y, x] = torch.cat(parts)
    present = probabilities.unflatten(1, (height, side)).unflatten(3, (width, side)).mean((2, 4))
    now = 0.0
    shares = own = said_of(logits, (height, width))
    if past:
        remembered, before = torch.empty_like(present), torch.empty(height, width).to(present)
        found, matched = torch.empty(height, width, 2).to(present), torch.empty_like(key)
        for y, x in itertools.product(range(height), range(width)):
            scores, places = [], []
            for (keys, said, followed), dy, dx in itertools.product(
                past,
                *[range(-(model.window // 2), model.window // 2 + 1)] * 2,
            ):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    scores.append(key[y, x] @ keys[y + dy, x + dx] / model.temperature)
                    more = torch.tensor([dy, dx, followed]).to(present)
                    places.append(torch.cat([said[y + dy, x + dx], more, keys[y + dy, x + dx]]))
            read = torch.stack(scores).softmax(0) @ torch.stack(places)
            parts = read.split([len(present), 2, 1, key.shape[-1]])
            remembered[:, y, x], found[y, x], before[y, x], matched[y, x] = parts
        relative = (key - matched).square().sum(-1).mean() / across(key)
        now = max(
            (0.4 - float(relative)) / (0.4 - 0.25),
            min(1.0, (0.37 - float(across(found)) / (model.window // 2)) / (0.37 - 0.26))
            * min(1.0, max(0.0, (float(matched.norm(dim=-1).mean()) - 0.91) / (0.92 - 0.91))),
        )
        now = min(1.0, max(0.0, now))
        best = present.sort(0, descending=True).values
        agreement = (present * remembered).sqrt().sum(0)
        trust = model.strength * before.clamp_min(now) * (1 - 0.5 * (best[0] - best[1]) * (1 - agreement))
        change = F.interpolate((trust * (remembered - present))[None], size, mode="bilinear")[0]
        logits = logits + scale * (1 + change / probabilities.clamp_min(1e-30)).clamp_min(1e-6).log()
        shares = now * said_of(logits, (height, width)) + (1 - now) * own
    return logits, (key, shares, now)


@torch.no_grad()
@pytest.mark.parametrize("sure", [1, 30])
def test_is_the_formula(sure):
    with seeded():
        backbone = lively(TinyBackbone()).double().eval()
        backbone.head.weight.data *= 8 * sure
    model = TrainingFreeMemory(backbone, memory_size=2, window=3, temperature=0.05)
    clip = drive(backbone, 6)
    # Of two bad frames one can be followed in part, and one not at all, but for what the frame before vouches.
    with seeded(1):
        noise = torch.rand_like(clip[:, 2:4])
    clip[:, 2:4] = torch.lerp(
        clip[:, 2:4], noise, torch.tensor([0.4, 1.0]).to(clip)[None, :, None, None, None]
    )
    outputs, _ = stream(model, clip)
    past: list[tuple[Tensor, Tensor, float]] = []
    changed, seen = 0.0, []
    for images, logits in zip(clip[0], outputs, strict=True):
        expected, left = naive_step(model, images, past)
        torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-4)  # shares are float32
        past = [*past, left][-2:] if past else [left, left]
        seen.append(left[2])
        alone = backbone.segment(images[None])[0].softmax(0)
        changed = max(changed, float((expected.softmax(0) - alone).abs().max()))
    assert changed > 0.05, "the clip is one that the memory changes"
    assert 0 < seen[2] < 1 and seen[3] == 0 and seen[-1] == 1, seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("memory_size", "window"), [(1, 1), (3, 5), (2, 99)])
@torch.no_grad()
def test_forward_equals_step_after_step_at_any_size(backbone, size, memory_size, window):
    model = TrainingFreeMemory(backbone, memory_size=memory_size, window=window)
    clip = drive(backbone, 5, size, batch=2)
    outputs, state = stream(model, clip)
    assert outputs[-1].shape == (2, 5, *size) and outputs[-1].dtype == torch.float64
    torch.testing.assert_close(model(clip), outputs[-1], rtol=0, atol=0)
    assert state.keys.shape[:3] == (2, memory_size, model.key_channels)
    assert state.values.shape[:3] == (2, memory_size, model.value_channels)
    assert all(output.isfinite().all() for output in outputs)


@torch.no_grad()
def test_streams_of_a_batch_do_not_mix(backbone):
    model = TrainingFreeMemory(backbone, window=5)
    clip = drive(backbone, 4, batch=3)
    # The second is cut in the middle: what becomes of it is no matter of the others.
    clip[1, 2:] = 1 - clip[1, 2:].flip(-1)
    alone = torch.cat([model(one[None]) for one in clip])
    torch.testing.assert_close(model(clip), alone)


@torch.no_grad()
def test_without_strength_and_on_the_first_frame_it_is_the_single_frame_network(backbone):
    clip = drive(backbone, 4, (22, 31))
    for strength, frames in ((0.0, range(4)), (0.75, range(1))):
        outputs, _ = stream(TrainingFreeMemory(backbone, strength=strength), clip)
        for i in frames:
            assert torch.equal(outputs[i], backbone.segment(clip[:, i]))


@torch.no_grad()
def test_a_still_picture_s_labels_come_to_rest(backbone):
    images = drive(backbone, 1, (48, 64))[:, 0]
    outputs, _ = stream(TrainingFreeMemory(backbone), images[:, None].expand(-1, 30, -1, -1, -1))
    labels = [output.argmax(1) for output in outputs]
    assert (labels[-1] != labels[-2]).double().mean() < 0.005


@torch.no_grad()
def test_what_cannot_be_followed_is_labelled_by_itself(backbone):
    clip = torch.rand(1, 4, 3, 48, 64, dtype=torch.float64).to(next(backbone.parameters()).device)
    # Of independent noise a cell's own place is as bad a match as any other.
    outputs, _ = stream(TrainingFreeMemory(backbone, window=1), clip)
    for images, logits in zip(clip.unbind(1), outputs, strict=True):
        assert torch.equal(logits, backbone.segment(images))


def spread(height: int, width: int) -> Tensor:
    """(2, h, w), rows and columns as a still scene's cells find themselves."""
    ranges = [torch.arange(n) - n // 2 for n in (height, width)]
    return torch.stack(torch.meshgrid(*ranges, indexing="ij")).float()


def test_a_match_is_judged_by_the_cells_beside():
    with seeded():
        key = torch.randn(2, 6, 8, 9)
        anywhere = torch.randint(-3, 4, (2, 2, 8, 9)) + spread(8, 9)
    beside = key.roll(1, -1)
    middle = key + 0.325**0.5 * (beside - key)
    matched = torch.where(torch.tensor([0, 1])[:, None, None, None] > 0, beside, key)
    followed = labels.followed(key, matched, anywhere, 3)
    assert followed.shape == (2, 1, 1, 1) and followed.flatten().tolist() == [1, 0]
    assert 0.2 < float(labels.followed(key, middle, anywhere, 3).mean()) < 0.8


def test_places_are_whole_cells_in_bfloat16():
    places = labels._places(torch.zeros(1, 1, 3, 512, dtype=torch.bfloat16))
    assert places[0, 1, 0].tolist() == list(range(-256, 256)) and places[0, 0, :, 0].tolist() == [-1, 0, 1]


def test_a_bad_match_that_moves_together_is_followed():
    still = spread(8, 9)
    # Every second column is found 2.1 cells beside: 4.41 between columns, nothing between rows.
    torn = still + 2.1 * (torch.arange(9) % 2) * torch.tensor([0.0, 1.0])[:, None, None]
    with seeded():
        key = F.normalize(torch.randn(3, 6, 8, 9), dim=1)
    got = labels.followed(key, -key, torch.stack([still, still + 3, torn]), 7).flatten()
    torch.testing.assert_close(got, torch.tensor([1, 1, (0.37 - 4.41 / 2 / 7) / 0.11]))
    blurred = labels.followed(key, -0.9 * key, still.expand(3, -1, -1, -1), 7)
    assert blurred.flatten().tolist() == [0, 0, 0], "what is read of many places lies in place whatever moves"
    one = torch.zeros(1, 6, 1, 1)
    assert labels.followed(one, one + 1, torch.zeros(1, 2, 1, 1), 7).item() == 1
    assert labels.followed(key, -key, still.expand(3, -1, -1, -1), 0).flatten().tolist() == [0, 0, 0]


@torch.no_grad()
def test_a_flickering_frame_is_steadied(backbone):
    images = drive(backbone, 1, (48, 64))[:, 0]
    with seeded(2):
        noise = 0.1 * torch.randn(16, *images.shape, dtype=torch.float64).to(images.device)
    clip = (images + noise).clamp(0, 1).movedim(0, 1)
    steadied, _ = stream(TrainingFreeMemory(backbone), clip)
    alone = [backbone.segment(one) for one in clip.unbind(1)]

    def flicker(outputs: list[Tensor]) -> float:
        labels = [output.argmax(1) for output in outputs[4:]]
        return float(torch.stack([(a != b).double().mean() for a, b in itertools.pairwise(labels)]).mean())

    assert 0 < flicker(steadied) < 0.7 * flicker(alone)


@torch.no_grad()
def test_networks_surer_than_usual_are_steadied_alike(backbone):
    clip = drive(backbone, 6)
    backbone.head.weight.data *= 20
    backbone.head.bias.data *= 20
    outputs, _ = stream(TrainingFreeMemory(backbone), clip)
    alone = [backbone.segment(one) for one in clip.unbind(1)]
    assert any(not torch.equal(a.argmax(1), b.argmax(1)) for a, b in zip(outputs, alone, strict=True))
    backbone.head.weight.data *= 4
    backbone.head.bias.data *= 4
    surer, _ = stream(TrainingFreeMemory(backbone), clip)
    for one, other in zip(outputs, surer, strict=True):
        torch.testing.assert_close(4 * one, other, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_size_and_window_may_change_between_streams(backbone):
    model = TrainingFreeMemory(backbone)
    clip = drive(backbone, 3)
    outputs, state = stream(model.adjusted(memory_size=5, window=7), clip)
    fresh, _ = stream(TrainingFreeMemory(backbone, memory_size=5, window=7), clip)
    assert state.size == 5 and torch.equal(outputs[-1], fresh[-1])


@torch.no_grad()
def test_wide_features_are_projected_alike_everywhere():
    with seeded():
        backbone = lively(ERFNet(5)).eval()
    one, other = TrainingFreeMemory(backbone), TrainingFreeMemory(backbone)
    assert one.key_channels == training_free.KEY_FEATURES + 12 < backbone.channels
    assert one.projection is not None and other.projection is not None
    assert torch.equal(one.projection, other.projection)
    flat = one.projection.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(len(flat)))
    assert "projection" not in one.state_dict()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@torch.no_grad()
def test_optimize(dtype):
    with seeded():
        backbone = lively(TinyBackbone()).train()
    model = TrainingFreeMemory(backbone, strength=0.6)
    fast = model.optimize(dtype)
    assert fast.optimized and not model.optimized and not fast.training and model.training
    assert fast.optimize(dtype) is fast and not any(p.requires_grad for p in fast.parameters())
    clip = drive(backbone, 4).float()
    expected, _ = stream(model.eval(), clip)
    got, state = stream(fast, clip)
    assert got[-1].dtype == torch.float32 and state.keys.dtype == (dtype or torch.float32)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype is None else {"rtol": 0.1, "atol": 0.1}
    torch.testing.assert_close(got[-1].softmax(1), expected[-1].softmax(1), **tolerance)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_session_goes_on_where_another_was(precision):
    with seeded():
        model = TrainingFreeMemory(lively(TinyBackbone()).eval())
    frames = (drive(model.backbone, 6, (22, 31))[0].movedim(1, -1) * 255).byte().numpy()
    session = Session(model, precision=precision)
    expected = [session.step(frame).logits for frame in frames]
    first, second = Session(model, precision=precision), Session(model, precision=precision)
    for frame in frames[:3]:
        first.step(frame)
    second.load_state_dict(first.state_dict())
    for frame, logits in zip(frames[3:], expected[3:], strict=True):
        assert torch.equal(second.step(frame).logits, logits)
    with pytest.raises(InputError, match="frame size"):
        second.step(frames[0][:-8])
    second.reset()
    np.testing.assert_array_equal(second.step(frames[0]).logits, expected[0])


def test_classes_and_card_are_the_backbone_s():
    backbone = load("erfnet-camvid").backbone
    model = TrainingFreeMemory(backbone)
    assert model.classes is backbone.classes and model.card is backbone.card
    assert TrainingFreeMemory(ERFNet(3)).classes.names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"temperature": math.nan}, "temperature nan"),
        ({"strength": 1.5}, "strength 1.5: expected 0 to 1"),
        ({"strength": math.nan}, "strength nan"),
        ({"memory_size": 0}, "memory size 0"),
        ({"window": 4}, "window 4"),
    ],
)
def test_refuses(options, words):
    with pytest.raises(InputError, match=words):
        TrainingFreeMemory(TinyBackbone(), **options)


@torch.no_grad()
def test_refuses_a_frame_of_another_size(backbone):
    model = TrainingFreeMemory(backbone)
    _, state = model.step(drive(backbone, 1)[:, 0])
    with pytest.raises(InputError, match="frame size"):
        model.step(drive(backbone, 1, (40, 32))[:, 0], state)
    with pytest.raises(InputError, match="clip"):
        model(drive(backbone, 1)[:, 0])


needs_camvid = pytest.mark.skipif(not (CAMVID / "val").is_dir(), reason=f"no CamVid at {CAMVID}")


@needs_camvid
def test_steadies_a_real_drive_and_costs_nothing():
    before, after = single_and_steadied(range(20))
    assert after.flicker < 0.7 * before.flicker
    assert after.miou > before.miou - 0.002 and after.vc[8] > before.vc[8]


@needs_camvid
def test_costs_nothing_at_one_frame_a_second():
    before, after = single_and_steadied(range(0, 101, 15))
    assert after.miou > before.miou - 0.002 and after.flicker <= before.flicker


@needs_camvid
@torch.no_grad()
def test_a_still_photograph_keeps_its_labels():
    image = load_camvid(CAMVID, "val").sequences[0].image(0)
    session = Session(TrainingFreeMemory(load("erfnet-camvid").backbone))
    labels = [session.step(image).labels for _ in range(16)]
    assert np.mean(labels[-1] != labels[0]) < 0.02
    assert np.mean(labels[-1] != labels[-2]) < 0.0005


def single_and_steadied(frames: range) -> list[Scores]:
    whole = load_camvid(CAMVID, "val")
    data = TinyData((Part(whole.sequences[0], frames),), whole.name, whole.classes)
    single = load("erfnet-camvid").backbone
    models = {"before": SingleFrame(single), "after": TrainingFreeMemory(single)}
    predictors: dict[str, Predictor] = {name: ModelPredictor(model) for name, model in models.items()}
    return list(evaluate(data, predictors, vc=(8,), tc=False).scores.values())


class Part:
    """Some frames of a sequence."""

    def __init__(self, sequence: Sequence, frames: range) -> None:
        self.name, self.spacing_s = sequence.name, sequence.spacing_s * frames.step
        self.frame_names = tuple(sequence.frame_names[i] for i in frames)
        self._sequence, self._frames = sequence, frames

    def image(self, index: int) -> np.ndarray:
        return self._sequence.image(self._frames[index])

    def label(self, index: int) -> np.ndarray | None:
        return self._sequence.label(self._frames[index])
