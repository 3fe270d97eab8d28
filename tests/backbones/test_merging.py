from __future__ import annotations

import pytest
import torch

from contracts.backbone import BackboneContract
from contracts.networks import TinyBackbone, lively, seeded
from lmanet import FlowAverage, LMANet, SingleFrame
from lmanet.backbones import ERFNet, Merged, Uncut, merged
from lmanet.classes import Classes
from lmanet.errors import InputError, WeightsError
from lmanet.methods.training_free import TrainingFreeMemory
from lmanet.zoo import load_model, register_backbone, save_model
from lmanet.zoo.files import read_config

NAMES = ("road", "car", "bus", "sky", "void")
PALETTE = ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), (0, 0, 0))
GROUPS = {"ground": ["road"], "above": ["sky"], "vehicle": ["bus", "car"]}


class TestMerged(BackboneContract):
    def make(self) -> Merged:
        return Merged(TinyBackbone(5), [[0, 3], [4], [1]])


@pytest.fixture
def network() -> ERFNet:
    with seeded():
        network = lively(ERFNet(5)).eval()
    network.classes = Classes(NAMES, PALETTE)
    return network


def images() -> torch.Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_probabilities_are_added_up_and_the_rest_is_shared_out(network):
    fewer = merged(network, GROUPS)
    assert fewer.classes == Classes(("ground", "above", "vehicle"), (PALETTE[0], PALETTE[3], PALETTE[2]))
    own = network(images()).softmax(1)
    summed = torch.stack([own[:, 0], own[:, 3], own[:, 1] + own[:, 2]], 1)
    torch.testing.assert_close(fewer(images()).softmax(1), summed / summed.sum(1, keepdim=True))
    assert merged(network, GROUPS, PALETTE[:3]).classes.palette == PALETTE[:3]


@pytest.mark.parametrize("method", [SingleFrame, FlowAverage, TrainingFreeMemory])
@torch.no_grad()
def test_methods_know_the_merged_classes_alone(network, method):
    logits, _ = method(merged(network, GROUPS)).eval().step(images())
    assert logits.shape == (2, 3, 16, 24)


@torch.no_grad()
def test_it_comes_back_from_a_file(network, tmp_path):
    fewer, path = merged(network, GROUPS), tmp_path / "fewer.safetensors"
    save_model(SingleFrame(fewer).eval(), path)
    config = {"network": {"name": "erfnet", "num_classes": 5}, "groups": [[0], [3], [2, 1]]}
    assert read_config(path)["backbone"] == {"name": "merged", "num_classes": 3, "config": config}
    loaded = load_model(path)
    assert loaded.classes == fewer.classes and isinstance(loaded.backbone, Merged)
    assert torch.equal(loaded.backbone(images()), fewer(images()))


def test_of_a_network_that_this_program_does_not_know(tmp_path):
    path = tmp_path / "fewer.safetensors"
    with pytest.raises(WeightsError, match="a TinyBackbone cannot be saved"):
        save_model(SingleFrame(Merged(TinyBackbone(), [[0], [1]])).eval(), path)


def test_its_name_is_taken():
    with pytest.raises(InputError, match=r"the name 'merged' is taken by lmanet\.backbones\.merging\.Merged"):
        register_backbone("merged", TinyBackbone)


def test_a_network_that_is_whole_stays_so():
    whole = Uncut(torch.nn.Conv2d(3, 4, 1), output=None)
    with pytest.raises(InputError, match="lmanet needs a network that is cut in two"):
        LMANet(Merged(whole, [[0, 1], [2]]))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([[0, 1]], "at least two groups"),
        ([[0], []], "none of them empty"),
        ([[0], [5]], "class 5 to be merged: expected 0 to 4"),
        ([[0], [-1]], "class -1 to be merged: expected 0 to 4"),
        ([[0, 1], [1, 2]], "class 1 of the network is to be merged twice"),
        ([[0, 0], [2]], "class 0 of the network is to be merged twice"),
    ],
)
def test_groups_that_make_no_sense(groups, message):
    with pytest.raises(InputError, match=message):
        Merged(TinyBackbone(5), groups)


def test_names_that_nobody_knows(network):
    with pytest.raises(InputError, match="has no class 'lorry' to merge: it has road, car, bus, sky, void"):
        merged(network, {"vehicle": ["lorry"], "sky": ["sky"]})
    with pytest.raises(InputError, match="of a network that does not know their names"):
        merged(TinyBackbone(), GROUPS)
