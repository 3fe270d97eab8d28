"""Committed results are found again: their hashes are those of the same cells, whatever classes are called by now."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lmanet.data.street.degrade import Degradation
from lmanet.research.benchmarks.model import Variant
from lmanet.research.reproduce import data, spelling
from lmanet.research.reproduce.cells import (
    AttentionMaps,
    Changes,
    Evaluation,
    MemoryTraining,
    SingleTraining,
    Timings,
    Weights,
)
from lmanet.research.reproduce.data import DataConfig, Street
from lmanet.research.reproduce.run import make_plans, make_setup
from lmanet.research.reproduce.spelling import cell_hash, configuration, spelled
from lmanet.training.augment import Augmentation
from lmanet.training.config import Stage
from lmanet.training.recipes import LabelMemoryRecipe, LMANetRecipe, SingleRecipe

ROOT = Path(__file__).parents[3]
CAMVID = Path(os.environ.get("LMANET_CAMVID", ROOT / "../shared/camvid"))
COMMITTED = sorted((ROOT / "results/reproduce").glob("*/*.json"))
FIRST_CAMVID = Weights(
    "erfnet-camvid", "a3d2265ad5fbcf982dee617a39059c1160d7c99d8c619a0b33ec2305597ca8e7", "erfnet"
)
"""Bundled with the first release; LMANet's tables are of memories on it."""

STAGE = Stage(epochs=2, batch_size=3, lr=1e-3, ema=0.5)
AUGMENTATION = Augmentation(crop=(32, 48), gain=0.5)
TRAINING = {
    "memory_size": 3,
    "window": 7,
    "memories": "pseudo",
    "draws": 2,
    "pseudo": 1,
    "augmentation": AUGMENTATION,
    "module": STAGE,
    "joint": STAGE,
}
STREET = Street(sequences=1, frames=3, size=(48, 64), degradation=Degradation(noise=0.25))
TRAIN, VAL = DataConfig("synthetic:", "train", street=STREET), DataConfig("camvid:/a,size=48x64", "val")
NETWORK = Weights("one.safetensors", "0" * 64, "erfnet")
SINGLE = SingleTraining(TRAIN, SingleRecipe(augmentation=AUGMENTATION, stage=STAGE), 1, NETWORK)
LABELS = MemoryTraining(TRAIN, LabelMemoryRecipe(hidden=8, persistence=0.25, **TRAINING), SINGLE, 2)
FEATURES = MemoryTraining(
    TRAIN,
    LMANetRecipe(key_channels=4, value_channels=6, fusion="concat", convolutions="fast", **TRAINING),
    NETWORK,
    2,
)
TIMED = (
    Variant(),
    Variant(memory="labels", window=15, memory_size=2),
    Variant(memory="paper"),
    Variant("pspnet50", "bf16", "fast", window=11, memory_size=3, optimized=False),
)
# Of commit 786dc48, when configurations were written by the classes' own names.
HASHES = [
    (SINGLE, "0e370639d6ddcc0a"),
    (LABELS, "09c3e313c0202a7f"),
    (FEATURES, "092e7a3f04642878"),
    (Evaluation(VAL, NETWORK), "657d67ac97c7e7a4"),
    (Evaluation(VAL, LABELS, memory_size=3, window=5), "ed8d1f88756eeddd"),
    (Evaluation(VAL, FEATURES, border="zero", forget=True), "98829ba834e90945"),
    (Timings(TIMED, (48, 64), 2), "95d0468d24b0e7f7"),
    (Changes(VAL, SINGLE, LABELS, 3), "63bc798e82e2ff1c"),
    (AttentionMaps(VAL, FEATURES), "e133d88fffe5129c"),
]


@pytest.mark.parametrize(("cell", "expected"), HASHES, ids=lambda one: one if isinstance(one, str) else "")
def test_fixed_cells_keep_their_hashes(cell, expected, monkeypatch):
    monkeypatch.setattr(data, "_digest", lambda config: "f" * 16)  # of the frames, which are not there
    cell_hash.cache_clear()
    assert cell_hash(cell) == expected, json.dumps(configuration(cell), indent=1)
    cell_hash.cache_clear()


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_committed_cells_are_those_of_the_plans(path):
    content = json.loads(path.read_text())
    settings, name = content["settings"], content["experiment"]
    spec = "synthetic:"
    if settings["data"] == "camvid":
        if not CAMVID.is_dir():
            pytest.skip(f"no CamVid at {CAMVID}: set LMANET_CAMVID")
        spec = f"camvid:{CAMVID}"
    setup = make_setup(spec, weights=settings["weights"], seeds=settings["seeds"], folds=settings["folds"])
    if path.parent.name == "camvid-lmanet":
        setup = replace(setup, weights=FIRST_CAMVID)
    planned = {cell_hash(cell) for cell in make_plans([name], setup)[name].cells}
    assert set(content["cells"]) <= planned
    for row in content["rows"]:
        assert planned.issuperset(hash_ for seed in row["cells"] for hash_ in seed), row["name"]


def test_methods_without_training_have_cells_of_their_own(monkeypatch):
    monkeypatch.setattr(data, "_digest", lambda config: "f" * 16)
    alone, flow = (configuration(Evaluation(VAL, NETWORK, method=one)) for one in (None, "flow-average"))
    assert flow == {**alone, "method": "flow-average"} and alone["training_free"] is False


def test_there_are_committed_results():
    assert len(COMMITTED) > 15


def test_a_class_may_be_renamed():
    @dataclass(frozen=True)
    class Renamed:
        rounds: int = 3

    spelled_as = spelling.Spelling("Stage", {"rounds": "epochs"})
    assert spelled_as(Renamed()) == {"kind": "Stage", "epochs": 3}


def test_a_class_without_a_spelling_is_refused():
    @dataclass(frozen=True)
    class Unknown:
        pass

    with pytest.raises(TypeError, match="a Unknown in a cell has no spelling: add one to SPELLINGS"):
        spelled(replace(SINGLE, recipe=Unknown()))
