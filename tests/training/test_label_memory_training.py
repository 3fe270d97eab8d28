"""The memory of labels in training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

import lmanet
from contracts.networks import seeded
from contracts.tiny import tiny_backbone, tiny_data
from lmanet.backbones import ERFNet
from lmanet.errors import InputError
from lmanet.methods.label_memory import LabelMemory
from lmanet.methods.lmanet import LMANet
from lmanet.training.config import Stage
from lmanet.training.features import observe
from lmanet.training.method import train_method
from lmanet.training.options import RunOptions
from lmanet.training.recipes import LabelMemoryRecipe, LMANetRecipe

STAGE = Stage(epochs=1, batch_size=2, lr=1e-2)
RECIPE = LabelMemoryRecipe(window=3, draws=2, pseudo=2, memories="pseudo", module=STAGE)
TRAIN, VAL = tiny_data(frames=2), replace(tiny_data(sequences=1, frames=2, seed=9), name="tiny/val")


def train(folder: Path, recipe: LabelMemoryRecipe | LMANetRecipe = RECIPE, **arguments: object) -> Path:
    with seeded():
        network = ERFNet(3).eval()
    options = RunOptions(Accelerator(cpu=True, mixed_precision="no"), workers=0)
    return train_method(TRAIN, VAL, network, recipe, folder, options=options, **arguments).path


def test_trained_with_a_cache_and_without(tmp_path: Path) -> None:
    one = lmanet.load(str(train(tmp_path / "one")))
    other = lmanet.load(str(train(tmp_path / "other", use_cache=False)))
    assert isinstance(one, LabelMemory) and isinstance(other, LabelMemory)
    assert one.card["recipe"]["hidden"] == 32
    start = LabelMemory(ERFNet(3), window=3)
    assert not torch.equal(one.trust_out.weight, start.trust_out.weight)
    # The cache keeps bfloat16, in both runs.
    torch.testing.assert_close(one.trust_out.weight, other.trust_out.weight, rtol=0.05, atol=2e-3)


def test_the_network_stays_as_it_is(tmp_path: Path) -> None:
    model = lmanet.load(str(train(tmp_path)))
    with seeded():
        network = ERFNet(3)
    weights = model.backbone.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_its_decoder_is_not_trained_and_its_control_is_the_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 epochs of step 2: label-memory leaves the decoder as it is"):
        train(tmp_path, replace(RECIPE, joint=STAGE))
    with pytest.raises(InputError, match="without a past label-memory is the network itself"):
        train(tmp_path, replace(RECIPE, memories="current"))


def test_goes_on_from_a_model_of_the_same_kind_only(tmp_path: Path) -> None:
    start = lmanet.load(str(train(tmp_path / "start")))
    assert isinstance(start, LabelMemory)
    slow = replace(RECIPE, module=replace(STAGE, lr=1e-12))
    again = lmanet.load(str(train(tmp_path / "again", slow, initial=start)))
    assert isinstance(again, LabelMemory)
    torch.testing.assert_close(again.trust_out.weight, start.trust_out.weight, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="has method lmanet, this training label-memory"):
        train(tmp_path / "other", initial=LMANet(ERFNet(3)))
    with pytest.raises(InputError, match="hidden 32, this training 8"):
        train(tmp_path / "narrow", replace(RECIPE, hidden=8), initial=start)


def test_observations_are_kept_in_bfloat16_without_loss_of_shares() -> None:
    model = LabelMemory(tiny_backbone(), window=3).eval()
    images = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    observed = observe(model, images).fused
    shares = observed[:, -3:].float()
    torch.testing.assert_close(shares.sum(1), torch.ones_like(shares[:, 0]))
