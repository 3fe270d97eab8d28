from dataclasses import replace

import pytest
import torch

from contracts.tiny import tiny_backbone, tiny_data
from lmanet.errors import InputError
from lmanet.evaluation.models import ModelPredictor
from lmanet.evaluation.run import evaluate
from lmanet.methods.single_frame import SingleFrame
from lmanet.methods.training_free import TrainingFreeMemory
from lmanet.research.reproduce import scoring
from lmanet.research.reproduce.cells import Evaluation, Weights
from lmanet.research.reproduce.data import DataConfig
from lmanet.research.reproduce.scoring import score

DATA = tiny_data(sequences=2, frames=7)
CELL = Evaluation(DataConfig("synthetic:", "val"), Weights("x", "0", "tiny-cells"))


@pytest.mark.parametrize("forget", [False, True])
def test_scores_are_those_of_an_evaluation(model, forget):
    result = score(replace(CELL, forget=forget), model, DATA)
    expected = evaluate(DATA, {"x": ModelPredictor(model, forget=forget)}, vc=(8, 16)).scores["x"]
    assert result["scores"]["miou"] == expected.miou
    assert result["scores"]["flicker"] == expected.flicker
    assert result["scores"]["tc"] == expected.tc
    assert result["parts"]["evaluation"]["samples"] == 14
    assert result["parts"]["evaluation"]["pixels"] == 48 * 64


@pytest.mark.parametrize("changes", [{"memory_size": 5}, {"window": 1}, {"border": "zero"}, {"forget": True}])
def test_how_a_model_runs_changes_its_scores(model, changes):
    plain = score(CELL, model, DATA)["scores"]
    changed = score(replace(CELL, **changes), model, DATA)["scores"]
    assert changed["per_class_iou"] != plain["per_class_iou"]


def test_the_memory_without_training(model):
    single = SingleFrame(model.backbone)
    free = score(replace(CELL, method="training-free"), single, DATA)["scores"]
    expected = evaluate(DATA, {"x": ModelPredictor(TrainingFreeMemory(model.backbone))}).scores["x"]
    assert free["miou"] == expected.miou
    assert free["miou"] != score(CELL, single, DATA)["scores"]["miou"]


def test_what_cannot_be_is_refused(model):
    single = SingleFrame(tiny_backbone())
    with pytest.raises(InputError, match="single-frame has no window to be changed"):
        score(replace(CELL, window=3), single, DATA)
    with pytest.raises(InputError, match="a single-frame network has no memory"):
        score(replace(CELL, forget=True), single, DATA)
    with pytest.raises(InputError, match="training-free has no border to be changed"):
        score(replace(CELL, method="training-free", border="zero"), single, DATA)
    with pytest.raises(InputError, match="training-free on a model of lmanet: expected a single-frame"):
        score(replace(CELL, method="training-free"), model, DATA)
    with pytest.raises(InputError, match="evaluate it on data with its own classes"):
        other = SingleFrame(tiny_backbone())
        other.backbone.num_classes = 4
        score(CELL, other, DATA)


def test_convolutions_on_a_gpu_are_of_float32_and_cudnns(model, monkeypatch):
    seen = []

    def noting(*given, **options):
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))
        return evaluate(*given, **options)

    monkeypatch.setattr(scoring, "evaluate", noting)
    score(CELL, model, DATA)
    assert seen == [(True, False)]
