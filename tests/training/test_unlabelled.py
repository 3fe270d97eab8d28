from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import lmanet
from contracts.networks import seeded
from contracts.tiny import TinyData, tiny_data
from lmanet import LabelMemory, TrainingFreeMemory
from lmanet.backbones import ERFNet
from lmanet.classes import VOID
from lmanet.errors import InputError
from lmanet.session import Session
from lmanet.training.config import Stage
from lmanet.training.options import RunOptions
from lmanet.training.recipes import LabelMemoryRecipe
from lmanet.training.train import train
from lmanet.training.unlabelled import self_labelled

STAGE = Stage(epochs=1, batch_size=2, lr=1e-3)
RECIPE = LabelMemoryRecipe(window=3, draws=2, pseudo=2, memories="pseudo", module=STAGE)


def network() -> ERFNet:
    with seeded():
        return ERFNet(3).eval()


def without_labels(data: TinyData) -> TinyData:
    return replace(data, sequences=tuple(replace(s, labels=(None,) * len(s.labels)) for s in data.sequences))


def test_labels_are_the_networks_own_steadied_where_it_is_sure() -> None:
    data, own = without_labels(tiny_data()), network()
    session = Session(TrainingFreeMemory(own))
    said = [session.step(data.sequences[1].image(i)) for i in range(3)]
    best = said[2].probabilities().max(0).values.numpy()
    middle = float(np.median(best))
    labelled = self_labelled(data, own, confidence=middle).sequences[1]
    label = labelled.label(2)
    assert labelled.labelled == (True,) * 3 and label.dtype == np.uint8
    assert np.array_equal(label == VOID, best < middle)
    assert np.array_equal(label[label != VOID], said[2].labels[label != VOID])
    assert 0.3 < (label == VOID).mean() < 0.7


def test_labels_do_not_depend_on_what_was_asked_for_before() -> None:
    sequence = self_labelled(without_labels(tiny_data()), network()).sequences[0]
    in_order = [sequence.label(i) for i in range(3)]
    for index in (1, 1, 0, 2):
        assert np.array_equal(sequence.label(index), in_order[index])


def test_the_labels_of_the_data_are_not_looked_at() -> None:
    data = tiny_data()
    wrong = replace(
        data,
        sequences=tuple(
            replace(s, labels=tuple(np.zeros_like(x) for x in s.labels if x is not None))
            for s in data.sequences
        ),
    )
    one, other = (self_labelled(d, network(), confidence=0.0).sequences[0].label(1) for d in (data, wrong))
    assert np.array_equal(one, other) and (one != VOID).all()


def test_a_memory_learns_without_labels(tmp_path) -> None:
    data, own = without_labels(tiny_data(frames=2)), network()
    options = RunOptions(Accelerator(cpu=True, mixed_precision="no"), workers=0)
    result = train(RECIPE, data, None, tmp_path, options=options, network=own, unlabelled=0.0)
    model = lmanet.load(str(result.path))
    assert isinstance(model, LabelMemory)
    assert model.card["val_miou"] is None and "labelled by the network itself" in model.card["data"]
    assert model.card["recipe"]["augmentation"]["shrink"] == 3.0
    assert model.card["step"] == 1 and model.trust_out.weight.detach().abs().sum() > 0
    halves = {name: x.half() for name, x in own.state_dict().items() if x.is_floating_point()}
    kept = model.backbone.state_dict()
    assert all(torch.equal(kept[name].half(), x) for name, x in halves.items()), "the network stays as it is"


@pytest.mark.parametrize("confidence", [-0.1, 1.0])
def test_confidence_is_checked(confidence: float) -> None:
    with pytest.raises(InputError, match=f"confidence {confidence}"):
        self_labelled(tiny_data(), network(), confidence=confidence)


def test_no_memory_is_kept_of_a_sequence_that_is_over() -> None:
    sequence = self_labelled(without_labels(tiny_data()), network()).sequences[0]
    for i in range(3):
        assert bool(sequence.stream._session.state_dict()) == (i > 0)
        sequence.label(i)
    assert sequence.stream._session.state_dict() == {}
