"""Memory without training."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contracts.maps import read
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
from lmanet.methods import training_free
from lmanet.methods.following import flows
from lmanet.methods.gate import SHAPES
from lmanet.methods.training_free import FollowedState
from lmanet.zoo import load

CAMVID = Path(os.environ.get("LMANET_CAMVID", Path(__file__).parents[2] / "../shared/camvid"))


class TestTrainingFreeMemory(MethodContract):
    kind = TrainingFreeMemory
    low_precision_error = 0.3
    arguments: ClassVar = {"window": 5}
    adjustments: ClassVar = {"window": 1, "attention": "reference"}


@pytest.fixture(params=DEVICES)
def backbone(request) -> Iterator[Backbone]:
    """In float64, so that comparisons can be strict; sharp, so that it is sure of something."""
    with seeded():
        network = lively(TinyBackbone())
        network.head.weight.data *= 8
        yield network.to(request.param).double().eval()


def drive(backbone: Backbone, length: int, size: tuple[int, int] = (48, 64), batch: int = 1) -> Tensor:
    """(B, T, 3, H, W): a textured scene that moves by two pixels a frame, and some noise."""
    with seeded(1):
        wide = (size[0], size[1] + 2 * length)
        coarse, fine = (torch.rand(batch, 3, *n, dtype=torch.float64) for n in ((9, 14), (24, 40)))
        scene = F.interpolate(coarse, wide, mode="bicubic") + 0.4 * F.interpolate(fine, wide, mode="bicubic")
        clip = torch.stack([scene[..., 2 * i : 2 * i + size[1]] for i in range(length)], 1)
        clip = (clip / 1.4 + 0.01 * torch.randn_like(clip)).clamp(0, 1)
    return clip.to(next(backbone.parameters()).device)


def stream(model: TrainingFreeMemory, clip: Tensor) -> tuple[list[Tensor], FollowedState]:
    outputs, state = [], None
    for images in clip.unbind(1):
        logits, state = model.step(images, state)
        outputs.append(logits)
    assert state is not None
    return outputs, state


# The formula, place by place, on maps (H, W, C) of NumPy


def patches(map_: np.ndarray) -> np.ndarray:
    rows, columns = (range(0, n, 4) for n in map_.shape[:2])
    return np.array([[map_[y : y + 4, x : x + 4].mean((0, 1)) for x in columns] for y in rows])


def larger(map_: np.ndarray, factor: int, size: tuple[int, int]) -> np.ndarray:
    """By bilinear interpolation between the middles, cut at a size."""
    return np.array(
        [
            [read(map_, (x + 0.5) / factor - 0.5, (y + 0.5) / factor - 0.5) for x in range(size[1])]
            for y in range(size[0])
        ]
    )


def widened(map_: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    below, right = size[0] - map_.shape[0], size[1] - map_.shape[1]
    return np.pad(map_, [(0, below), (0, right)] + [(0, 0)] * (map_.ndim - 2), mode="edge")


def in_cells(map_: np.ndarray, side: int) -> np.ndarray:
    height, width = (n // side for n in map_.shape[:2])
    return map_.reshape(height, side, width, side, -1).mean((1, 3))


def ramp(x, low: float, high: float):
    return np.clip((x - low) / (high - low), 0, 1)


def keys(now: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(h, w, Ck) of the patches' probabilities (h', w', K), which need no projection, and of an image (H, W, 3)."""
    height, width = (-(-n // 2) for n in now.shape[:2])
    whole = (2 * height, 2 * width)
    said = np.log(in_cells(widened(now, whole), 2) + 0.01)
    said = (said - said.mean((0, 1))) / np.sqrt(said.var((0, 1)) + 1e-5)
    colours = widened(patches(image.astype(float)), whole)
    colours = colours - colours.mean((0, 1))
    parts = colours.reshape(height, 2, width, 2, 3).transpose(0, 2, 4, 1, 3).reshape(height, width, 12)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    return np.concatenate([0.75**0.5 * unit(said), 0.25**0.5 * unit(parts)], -1)


def naive_step(
    model: TrainingFreeMemory, image: np.ndarray, logits: np.ndarray, past: dict | None
) -> tuple[np.ndarray, dict]:
    """Probabilities (H, W, K) of a frame (H, W, 3) uint8 of logits (H, W, K)."""
    size = image.shape[:2]
    said = np.exp(logits - logits.max(-1, keepdims=True))
    said /= said.sum(-1, keepdims=True)
    fused = now = patches(said)
    key = keys(now, image)
    share = np.zeros((*now.shape[:2], 1))
    if past is not None:
        pair = (as_pixels(x) for x in (image, past["image"]))
        there, back = (x[0].permute(1, 2, 0).double().numpy() for x in flows(*pair, refinements=2))
        flow, returns = patches(there) / 4, patches(back) / 4
        colours, before = patches(image.astype(float)), patches(past["image"].astype(float))
        trip, error, squares, apart, inside = (np.zeros((*now.shape[:2], 1)) for _ in range(5))
        carried, found = np.zeros_like(now), np.zeros_like(colours)
        for y, x in np.ndindex(now.shape[:2]):
            to = x + flow[y, x, 0], y + flow[y, x, 1]
            b = read(returns, *to)
            error[y, x] = 16 * ((flow[y, x] + b) ** 2).sum()
            squares[y, x] = 16 * ((flow[y, x] ** 2).sum() + (b**2).sum())
            inside[y, x] = 0 <= to[0] <= now.shape[1] - 1 and 0 <= to[1] <= now.shape[0] - 1
            found[y, x] = read(before, *to)
            apart[y, x] = np.abs(colours[y, x] - found[y, x]).mean()
            carried[y, x] = read(past["probabilities"], *to)
        trip = np.exp(-error / (4 + squares / 100)) * inside
        followed = ramp(around(trip, 8), 0.5, 0.9)
        ordered = np.sort(apart.ravel())
        usual = ordered[(len(ordered) - 1) // 2]  # torch's median: the lower of two
        contrasts = [c - around(c, 2) for c in (colours, found)]
        change = around(((contrasts[0] - contrasts[1]) ** 2).mean(-1, keepdims=True), 2)
        texture = around((contrasts[0] ** 2 + contrasts[1] ** 2).mean(-1, keepdims=True), 2) + 1
        whole = change.mean() / texture.mean()
        answer, match = naive_cells(model, now, key, past, flow)
        cues = [
            np.log(error + 0.05),
            np.log(squares + 0.1) / 2,
            np.log(apart + 1) - 1.5,
            np.log((apart + 1) / (usual + 1)),
            np.log(texture) / 2 - 1.5,
            np.log(change / texture + 0.02) + 2,
            2 * followed - 1,
            np.full_like(followed, 2 * followed.mean() - 1),
            np.full_like(followed, 2 * whole - 1),
            inside,
            match,
        ]
        fused, share = naive_gate(model, now, carried, answer, np.concatenate(cues, -1))
        trust = ramp(followed.mean(), 0.2, 0.6) * (1 - ramp(whole, 0.5, 0.9))
        fused, share = now + trust * (fused - now), trust * share
        label = np.zeros((*size, now.shape[2]))
        for y, x in np.ndindex(size):
            to = np.round(y + there[y, x, 1]), np.round(x + there[y, x, 0])
            row, column = (int(np.clip(a, 0, n - 1)) for a, n in zip(to, size, strict=True))
            label[y, x, past["labels"][row, column]] = 1
        said = said + larger(fused - now, 4, size) + 0.25 * larger(share, 4, size) * label
    left = {"image": image, "labels": said.argmax(-1), "probabilities": fused, "key": key, "share": share}
    return said, left


def around(map_: np.ndarray, reach: int) -> np.ndarray:
    """Means over what lies on the map of the squares around each place."""
    mean = np.zeros_like(map_)
    for y, x in np.ndindex(map_.shape[:2]):
        rows, columns = (slice(max(0, n - reach), n + reach + 1) for n in (y, x))
        mean[y, x] = map_[rows, columns].mean((0, 1))
    return mean


def naive_cells(model, now, key, past, flow) -> tuple[np.ndarray, np.ndarray]:
    cells, whole = key.shape[:2], (2 * key.shape[0], 2 * key.shape[1])
    led = in_cells(widened(flow, whole), 2) / 2
    before = in_cells(widened(past["probabilities"], whole), 2)
    found = [
        np.array(
            [
                [read(map_, x + led[y, x, 0], y + led[y, x, 1]) for x in range(cells[1])]
                for y in range(cells[0])
            ]
        )
        for map_ in (past["key"], before)
    ]
    means = in_cells(widened(now, whole), 2)
    change, apart = np.zeros_like(means), np.zeros((*cells, 1))
    reach = model.window // 2
    for y, x in np.ndindex(cells):
        rows, columns = (slice(max(0, n - reach), n + reach + 1) for n in (y, x))
        scores = np.exp((found[0][rows, columns] @ key[y, x] - 1) / 0.02)[..., None]
        said, matched = ((scores * f[rows, columns]).sum((0, 1)) / scores.sum() for f in found[::-1])
        change[y, x] = (said / said.sum() + 1e-3) / (means[y, x] + 1e-3)
        apart[y, x] = ((key[y, x] - matched) ** 2).sum()
    steps = [(np.diff(key, axis=n) ** 2).sum(-1).ravel() for n in (0, 1)]
    apart /= np.concatenate(steps).mean()
    answer = now * larger(change, 2, now.shape[:2])
    return answer / answer.sum(-1, keepdims=True), np.log(larger(apart, 2, now.shape[:2]) + 0.05)


def naive_gate(model, now, carried, answer, cues) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices(now.shape[:2])
    said, before = now.argmax(-1), carried.argmax(-1)

    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.abs(a - b).sum(-1) / 2

    shares = [
        now.max(-1),
        carried.max(-1),
        answer.max(-1),
        apart(now, carried),
        apart(now, answer),
        apart(carried, answer),
        carried[rows, columns, said],
        now[rows, columns, before],
        answer[rows, columns, said],
        answer[rows, columns, before],
    ]
    odds = np.clip(np.stack(shares, -1), 0.01, 0.99)
    seen = np.concatenate([cues, np.log(odds / (1 - odds)) / 2], -1)
    w = {name: getattr(model.gate, name).double().numpy() for name in SHAPES}
    padded = np.pad(seen, [(1, 1), (1, 1), (0, 0)])
    hidden = w["around_bias"] + sum(
        padded[y : y + now.shape[0], x : x + now.shape[1]] @ w["around"][:, :, y, x].T
        for y in range(3)
        for x in range(3)
    )
    hidden = np.maximum(np.maximum(hidden, 0) @ w["mixed"][:, :, 0, 0].T + w["mixed_bias"], 0)
    scores = np.exp(hidden @ w["out"][:, :, 0, 0].T + w["out_bias"])
    a, b, c = np.moveaxis(scores / scores.sum(-1, keepdims=True), -1, 0)[..., None]
    return a * now + b * carried + c * answer, 1 - a


def as_pixels(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@torch.no_grad()
@pytest.mark.parametrize("size", [(48, 64), (45, 57)])
def test_is_the_formula_place_by_place(size):
    with seeded():
        backbone = lively(ERFNet(5)).double().eval()
    model = TrainingFreeMemory(backbone)
    with seeded():
        model.gate.out.normal_(0, 0.02)  # whatever it has learned
        model.gate.out_bias.zero_()
    clip = (drive(backbone, 4, size) * 255).byte()
    with seeded(2):
        clip[:, 2, :, :, :24] = torch.randint(0, 256, (1, 3, size[0], 24))  # part of it is not found again
    state, past, seen = None, None, []
    for images in clip.unbind(1):
        logits, state = model.step(images, state)
        alone = backbone.segment(images)[0].permute(1, 2, 0).numpy()
        said, past = naive_step(model, images[0].permute(1, 2, 0).numpy(), alone, past)
        got = logits.softmax(1)[0].permute(1, 2, 0).numpy()
        expected = said / said.sum(-1, keepdims=True)
        # A place at the edge of the frame, or between two pixels, may fall on either side by rounding.
        assert (np.abs(got - expected).max(-1) > 2e-3).mean() < 0.01
        assert (state.labels[0].numpy() != past["labels"]).mean() < 0.01
        remembered = state.probabilities[0].permute(1, 2, 0).numpy()
        assert (np.abs(remembered - past["probabilities"]).max(-1) > 2e-3).mean() < 0.02
        seen.append(past["share"].mean())
    assert seen[0] == 0 and 0.05 < min(seen[1:]) < max(seen[1:]) < 0.95, seen


@torch.no_grad()
def test_the_first_frame_is_the_network_s_own(backbone):
    clip = drive(backbone, 1, (46, 63))
    logits, _ = TrainingFreeMemory(backbone).step(clip[:, 0])
    assert torch.equal(logits, backbone.segment(clip[:, 0]))


@torch.no_grad()
def test_what_cannot_be_followed_is_labelled_by_itself(backbone):
    with seeded(1):
        clip = torch.rand(1, 5, 3, 96, 128, dtype=torch.float64).to(next(backbone.parameters()).device)
    outputs, _ = stream(TrainingFreeMemory(backbone), clip)
    for images, logits in zip(clip.unbind(1), outputs, strict=True):
        alone = backbone.segment(images)
        assert torch.equal(logits.argmax(1), alone.argmax(1))
        torch.testing.assert_close(logits.softmax(1), alone.softmax(1))


@torch.no_grad()
def test_a_frame_after_a_cut_is_labelled_by_itself_and_the_next_is_followed(backbone):
    clip = drive(backbone, 8, (96, 128))
    clip[:, 4:] = (1 - clip[:, 4:]).flip(-1, -2)
    outputs, _ = stream(TrainingFreeMemory(backbone), clip)
    alone = [backbone.segment(images) for images in clip.unbind(1)]
    assert torch.equal(outputs[4].argmax(1), alone[4].argmax(1))
    assert not torch.allclose(outputs[5].softmax(1), alone[5].softmax(1))


@torch.no_grad()
def test_labels_move_with_what_they_are_of(backbone):
    """Of a scene that moves and a network that says nothing from the second frame on, the labels go along."""
    clip = drive(backbone, 6, (96, 128))
    model = TrainingFreeMemory(backbone)
    _, state = model.step(clip[:, 0])
    first = state.labels[0]
    model.backbone.head.weight.data.zero_()
    model.backbone.head.bias.data.zero_()
    for t in range(1, 6):
        logits, state = model.step(clip[:, t], state)
    moved = first[8:-8, 24:-8]
    got = logits.argmax(1)[0][8:-8, 14:-18]  # 5 frames of 2 pixels to the left
    assert (got == moved).double().mean() > 0.75 > 1.2 * (first[8:-8, 14:-18] == moved).double().mean()


@torch.no_grad()
def test_a_still_picture_s_labels_come_to_rest_at_the_network_s(backbone):
    images = drive(backbone, 1)[:, 0]
    outputs, _ = stream(TrainingFreeMemory(backbone), images[:, None].expand(-1, 30, -1, -1, -1))
    labels = [output.argmax(1) for output in outputs]
    assert (labels[-1] != labels[-2]).double().mean() < 0.002
    assert (labels[-1] != labels[0]).double().mean() < 0.02


@torch.no_grad()
def test_a_flickering_frame_is_steadied(backbone):
    images = drive(backbone, 1, (96, 128))[:, 0]
    with seeded(2):
        noise = 0.04 * torch.randn(16, *images.shape, dtype=torch.float64).to(images.device)
    clip = (images + noise).clamp(0, 1).movedim(0, 1)
    steadied, _ = stream(TrainingFreeMemory(backbone), clip)
    alone = [backbone.segment(one) for one in clip.unbind(1)]

    def flicker(outputs: list[Tensor]) -> float:
        labels = [output.argmax(1) for output in outputs[4:]]
        return float(torch.stack([(a != b).double().mean() for a, b in itertools.pairwise(labels)]).mean())

    assert 0 < flicker(steadied) < 0.75 * flicker(alone)


@torch.no_grad()
def test_it_is_told_that_frames_are_too_small_for_the_flow(backbone):
    model = TrainingFreeMemory(backbone)
    images = drive(backbone, 1, (12, 40))[:, 0]
    _, state = model.step(images)
    with pytest.raises(InputError, match="40×12 pixels, optical flow needs at least 16×16"):
        model.step(images, state)


@torch.no_grad()
def test_many_classes_are_projected_alike_everywhere():
    backbone = TinyBackbone(num_classes=40)
    one, other = TrainingFreeMemory(backbone), TrainingFreeMemory(backbone)
    assert one.projection is not None and other.projection is not None
    assert len(one.projection) == training_free.KEY_CLASSES < backbone.num_classes
    assert torch.equal(one.projection, other.projection)
    flat = one.projection.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(len(flat)))
    assert "projection" not in one.state_dict()


def test_classes_and_card_are_the_backbone_s():
    backbone = load("erfnet-camvid").backbone
    model = TrainingFreeMemory(backbone)
    assert model.classes is backbone.classes and model.card is backbone.card
    assert TrainingFreeMemory(ERFNet(3)).classes.names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 4}, "window 4"),
    ],
)
def test_refuses(options, words):
    with pytest.raises(InputError, match=words):
        TrainingFreeMemory(TinyBackbone(), **options)


needs_camvid = pytest.mark.skipif(not (CAMVID / "val").is_dir(), reason=f"no CamVid at {CAMVID}")


@needs_camvid
def test_steadies_a_real_drive():
    before, after = single_and_steadied(range(20))
    assert after.flicker < 0.85 * before.flicker
    assert after.miou > before.miou and after.vc[8] > before.vc[8]


@needs_camvid
def test_costs_nothing_at_one_frame_a_second():
    before, after = single_and_steadied(range(0, 101, 15))
    assert after.miou > before.miou - 0.001 and after.flicker <= before.flicker


@needs_camvid
@torch.no_grad()
def test_a_still_photograph_keeps_its_labels():
    image = load_camvid(CAMVID, "val").sequences[0].image(0)
    session = Session(TrainingFreeMemory(load("erfnet-camvid").backbone))
    labels = [session.step(image).labels for _ in range(16)]
    assert np.mean(labels[-1] != labels[0]) < 0.01
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
