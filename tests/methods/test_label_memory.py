from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lmanet
from contracts.method import MethodContract
from contracts.networks import DEVICES, TinyBackbone, lively, seeded
from contracts.tiny import CLASSES
from lmanet import LabelMemory, Session, VideoModel
from lmanet.backbones import ERFNet
from lmanet.errors import InputError, WeightsError
from lmanet.methods.label_memory import MOST_TRUST
from lmanet.methods.labels import Reading
from lmanet.methods.memory import MemoryState
from lmanet.nn.cells import label_shares
from lmanet.zoo.files import save_model

SIZES = [(48, 64), (45, 61)]


class TestLabelMemory(MethodContract):
    kind = LabelMemory
    low_precision_error = 0.1
    arguments: ClassVar = {"memory_size": 3, "window": 5, "hidden": 8}
    adjustments: ClassVar = {"memory_size": 2, "window": 3, "persistence": 1.0, "attention": "reference"}

    @classmethod
    def prepare(cls, model: VideoModel) -> None:
        """As after a training: the trust differs from place to place."""
        assert isinstance(model, LabelMemory)
        nn.init.normal_(model.trust_out.weight, std=0.5)


def trusting(device: str = "cpu", **arguments: float) -> LabelMemory:
    """One whose trust differs from place to place, as after a training."""
    with seeded():
        model = LabelMemory(lively(ERFNet(5)), **{"window": 5, **arguments})  # pyright: ignore[reportArgumentType]
        nn.init.normal_(model.trust_out.weight, std=0.5)
    return model.to(device).eval()


def trust_everywhere(model: LabelMemory) -> None:
    """As much as it can."""
    nn.init.zeros_(model.trust_out.weight)
    nn.init.constant_(model.trust_out.bias, 100.0)


def as_if_said(label: int, state: MemoryState) -> MemoryState:
    """A memory of the same frames in which every pixel was given this label, of 5."""
    values = state.values.clone()
    values[:, :, :5] = 0
    values[:, :, label] = 1
    return MemoryState(state.keys, values)


def drive(frames: int, size: tuple[int, int] = (48, 64), device: str = "cpu") -> Tensor:
    """A textured scene that moves by a few pixels from frame to frame, with noise: (1, T, 3, H, W)."""
    generator = torch.Generator().manual_seed(3)
    scene = torch.rand(1, 3, 12, 16, generator=generator)
    scene = nn.functional.interpolate(scene, (size[0] + 8, size[1] + 40), mode="bicubic").clamp(0, 1)
    clip = [scene[..., 4 : 4 + size[0], 3 * t : 3 * t + size[1]] for t in range(frames)]
    clip = torch.stack(clip, 1)
    return (clip + 0.02 * torch.randn(clip.shape, generator=generator)).clamp(0, 1).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_forward_over_a_clip_is_step_after_step(size: tuple[int, int], device: str) -> None:
    model, clip = trusting(device), drive(4, size, device)
    state = None
    for images in clip.unbind(1):
        logits, state = model.step(images, state)
    assert logits.shape == (1, 5, *size)
    torch.testing.assert_close(model(clip), logits)
    assert (logits - model.backbone.segment(clip[:, -1])).abs().max() > 0.1


@torch.no_grad()
def test_first_frame_and_no_trust_are_the_network_itself() -> None:
    model, clip = trusting(), drive(3)
    first, state = model.step(clip[:, 0])
    assert torch.equal(first, model.backbone.segment(clip[:, 0]))
    nn.init.zeros_(model.trust_out.weight)
    nn.init.constant_(model.trust_out.bias, -100)
    later, _ = model.step(clip[:, 1], state)
    assert torch.equal(later, model.backbone.segment(clip[:, 1]))


@torch.no_grad()
def test_formula_by_hand() -> None:
    """Of one cell where p = (0.6, 0.4), m = (0, 1) and the trust is 0.4: p + t (m - p) = (0.36, 0.64)."""
    model = LabelMemory(TinyBackbone(2), window=1)
    nn.init.constant_(model.trust_out.bias, 0.0)  # sigmoid 0.5
    cells = (3, 4)
    logits = torch.tensor([0.6, 0.4]).log()[None, :, None, None].expand(1, 2, 12, 16).clone()
    key = nn.functional.normalize(torch.randn(1, model.key_channels, *cells), dim=1)
    shares = torch.tensor([0.0, 1.0])[None, :, None, None].expand(1, 2, *cells)
    fused = torch.randn(1, model.backbone.channels, *cells)
    steadied = model.steadied(logits, fused, key, Reading(shares, torch.ones(1, 1, *cells), key))
    expected = torch.tensor([0.36, 0.64])[None, :, None, None].expand_as(logits)
    assert MOST_TRUST == 0.8
    torch.testing.assert_close(steadied.softmax(1), expected)


@torch.no_grad()
def test_a_frame_that_cannot_be_followed_is_the_network_itself() -> None:
    model, clip = trusting(), drive(2, (96, 128))
    _, state = model.step(clip[:, 0])
    other = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(8))
    logits, _ = model.step(other, state)
    torch.testing.assert_close(logits, model.backbone.segment(other), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_bad_frame_among_good_ones_is_told_what_they_said_and_passes_nothing_on() -> None:
    model, clip = trusting(), drive(4, (96, 128))
    clip[:, 2] = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(8))
    state, followed = None, []
    for images in clip.unbind(1):
        logits, state = model.step(images, state)
        followed.append(float(state.values[:, -1, -1].mean()))
        if len(followed) == 3:
            alone = model.backbone.segment(images)
            assert (logits - alone).abs().max() > 0.1
            own = label_shares(alone, (12, 16))
            torch.testing.assert_close(state.values[:, -1, :5], own)
    assert followed == [0, 1, 0, 1]


@torch.no_grad()
def test_the_less_persistent_a_wrong_label_the_sooner_it_is_let_go() -> None:
    """A still scene whose memory says another class throughout, and a trust that follows it."""
    images, left = drive(1)[:, 0], {}
    for persistence in (0.0, 0.5, 1.0):
        model = trusting(persistence=persistence)
        model.backbone.decoder.output_conv.weight.mul_(3)  # surer of what it says
        trust_everywhere(model)
        logits, state = model.step(images)
        said = logits.argmax(1)
        state = as_if_said(3, state)
        for _ in range(6):
            logits, state = model.step(images, state)
        left[persistence] = float((logits.argmax(1) != said).float().mean())
    assert left[0.0] < left[0.5] < 0.35 < 0.5 < left[1.0]


def test_persistence_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"persistence 1\.5: expected 0 to 1"):
        trusting(persistence=1.5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match=f"temperature {temperature}: expected above 0"):
        trusting(temperature=temperature)


@torch.no_grad()
def test_a_wrong_flash_is_voted_down() -> None:
    """One frame says another class of a still scene; the memory holds what was said before."""
    model, images = trusting(), drive(1)[:, 0]
    trust_everywhere(model)
    logits, state = model.step(images)
    said = logits.argmax(1)
    flipped, _ = model.step(images, as_if_said(3, state))
    assert (said == 3).float().mean() < 0.5
    assert (flipped.argmax(1) == 3).float().mean() > (said == 3).float().mean() + 0.2


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_what_is_trained_is_what_streams(size: tuple[int, int]) -> None:
    """From the observations of two frames as from the frames; the control as the network by itself."""
    model, clip = trusting(memory_size=1), drive(2, size)
    with torch.autocast("cpu", enabled=False):
        before, now = (model.observe(images) for images in clip.unbind(1))
        trained = model.from_observed(now, before.fused[:, None], size)
        control = model.from_observed(now, None, size)
    torch.testing.assert_close(trained, model(clip))
    assert torch.equal(control, model.backbone.segment(clip[:, 1]))


def test_only_the_memory_learns_at_first_and_no_gradient_is_lost() -> None:
    model, clip = trusting(), drive(2)
    before, now = (model.observe(images) for images in clip.unbind(1))
    model.from_observed(now, before.fused[:, None].detach(), (48, 64)).square().mean().backward()
    for name in ("key_projection", "trust_in", "trust_out"):
        gradient = getattr(model, name).weight.grad
        assert gradient is not None and gradient.abs().sum() > 0, name


@torch.no_grad()
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_optimised_copy_says_the_same(dtype: torch.dtype | None) -> None:
    model, clip = trusting(), drive(3)
    expected, got = model(clip), model.optimize(dtype)(clip)
    tolerance = 1e-3 if dtype is None else 0.1
    assert (got.float() - expected).norm() < tolerance * expected.norm()


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = trusting(memory_size=3, hidden=7)
    path = tmp_path / "model.safetensors"
    classes = replace(CLASSES, names=tuple("abcde"), palette=((0, 0, 0),) * 5)
    save_model(model, path, classes=classes, card={"n": 1})
    loaded = lmanet.load(str(path))
    assert isinstance(loaded, LabelMemory)
    assert loaded.arguments == model.arguments and loaded.classes == classes
    clip = drive(3)
    with torch.no_grad():
        assert torch.equal(loaded(clip), model(clip))
    with pytest.raises(WeightsError, match="copy for inference"):
        save_model(model.optimize(), path, classes=classes)


def test_a_session_goes_on_from_another(tmp_path: Path) -> None:
    model, clip = trusting(), (drive(4)[0] * 255).byte().permute(0, 2, 3, 1).numpy()
    one, other = Session(model), Session(model)
    for frame in clip[:3]:
        one.step(np.ascontiguousarray(frame))
    other.load_state_dict(one.state_dict())
    last = np.ascontiguousarray(clip[3])
    assert np.array_equal(one.step(last).labels, other.step(last).labels)


def test_sizes_are_checked() -> None:
    with pytest.raises(InputError, match="hidden 0"):
        LabelMemory(TinyBackbone(2), hidden=0)
    with pytest.raises(InputError, match="memory size 0"):
        LabelMemory(TinyBackbone(2), memory_size=0)
