from dataclasses import fields, replace

import pytest
from PIL import Image

from contracts.trees import segnet
from lmanet.data import synthetic
from lmanet.errors import DataError, InputError, WeightsError
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
    needs,
    title,
    weights_of,
)
from lmanet.research.reproduce.data import DataConfig, Street, checked_spec, with_past
from lmanet.research.reproduce.spelling import cell_hash, spelled
from lmanet.training.recipes import LMANetRecipe, SingleRecipe

STREET = Street(sequences=1, frames=3, size=(48, 64))
DATA = DataConfig("synthetic:", "train", street=STREET)
WEIGHTS = Weights("one.safetensors", "0" * 64, "erfnet")
FIRST = SingleTraining(DATA, SingleRecipe())
MEMORY = MemoryTraining(DATA, LMANetRecipe(), WEIGHTS)
OTHER = MemoryTraining(DATA, LMANetRecipe(), WEIGHTS, seed=9)
EVALUATION = Evaluation(replace(DATA, split="val"), MEMORY)
MOVED = {
    DataConfig: {"split": "test", "street": replace(STREET, fps=30.0), "every": 2},
    SingleTraining: {"recipe": SingleRecipe(network="tiny-cells"), "seed": 1, "initial": WEIGHTS},
    MemoryTraining: {"recipe": LMANetRecipe(memory_size=3), "seed": 1, "network": FIRST},
    Evaluation: {
        "model": OTHER,
        "memory_size": 3,
        "window": 5,
        "border": "zero",
        "spacing": 2,
        "forget": True,
        "method": "training-free",
        "weight": 0.9,
    },
    Timings: {"variants": (Variant(), Variant(window=3)), "size": (48, 72), "repeats": 3},
    Changes: {"single": FIRST, "video": OTHER, "parts": 5},
    AttentionMaps: {"video": OTHER},
}
CELLS = (
    FIRST,
    MEMORY,
    EVALUATION,
    Timings((Variant(),), (48, 64), 2),
    Changes(DATA, WEIGHTS, MEMORY),
    AttentionMaps(DATA, MEMORY),
)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: type(cell).__name__)
def test_the_hash_changes_with_every_field(cell):
    for field in fields(cell):
        changes = MOVED[type(cell)]
        if field.name == "data":
            moved = [replace(cell, data=replace(cell.data, **{k: v})) for k, v in MOVED[DataConfig].items()]
        else:
            moved = [replace(cell, **{field.name: changes[field.name]})]
        for other in moved:
            assert cell_hash(other) != cell_hash(cell), field.name
    assert cell_hash(replace(cell)) == cell_hash(cell)


def test_hashes_of_all_kinds_differ_and_titles_say_what_they_are():
    assert len({cell_hash(cell) for cell in CELLS}) == len(CELLS)
    assert title(EVALUATION) == "evaluation of lmanet S=4 gated paper, seed 0, synthetic/val"
    assert title(MEMORY) == "memory training, lmanet S=4 gated paper, synthetic/train, seed 0"


def test_the_cell_version_and_the_networks_contents_count_and_its_name_does_not(monkeypatch):
    before = cell_hash(MEMORY)
    assert cell_hash(replace(MEMORY, network=replace(WEIGHTS, name="renamed"))) == before
    assert cell_hash(replace(MEMORY, network=replace(WEIGHTS, sha256="1" * 64))) != before
    cell_hash.cache_clear()
    monkeypatch.setattr(spelling, "CELL_VERSION", spelling.CELL_VERSION + 1)
    assert cell_hash(MEMORY) != before
    cell_hash.cache_clear()


def test_what_cells_need():
    trained = replace(MEMORY, network=FIRST)
    assert needs(FIRST) == needs(MEMORY) == needs(CELLS[3]) == ()
    assert needs(trained) == (FIRST,)
    assert needs(replace(FIRST, initial=FIRST)) == (FIRST,)
    assert needs(EVALUATION) == needs(CELLS[4]) == needs(CELLS[5]) == (MEMORY,)


def test_weights_are_known_by_their_contents(weights, tmp_path):
    found = weights_of(weights)
    assert found.network == "tiny-cells" and len(found.sha256) == 64
    with pytest.raises(
        WeightsError, match="is a model of the method label-memory: give the single-frame network"
    ):
        weights_of("label-memory-erfnet-camvid")


def test_where_data_lie_does_not_count_and_what_they_are_does(tmp_path):
    names = ["0001TP_006690", "0001TP_006720", "0001TP_006750"]
    one, moved, other = (
        DataConfig(f"camvid:{tmp_path / name}", "train") for name in ("one", "moved", "other")
    )
    for config, taken in ((one, 3), (moved, 3), (other, 2)):
        segnet(tmp_path / config.spec.rpartition("/")[2], names[:taken])
    assert spelled(one) == spelled(moved) != spelled(other)
    larger = DataConfig(f"camvid:{tmp_path / 'larger'}", "train")
    segnet(tmp_path / "larger", names)
    for path in (tmp_path / "larger").glob("*/*.png"):
        with Image.open(path) as image:
            image.resize((32, 24), Image.Resampling.NEAREST).save(path)
    assert spelled(larger) != spelled(one), "the same names, other pixels"
    resized = replace(one, spec=f"{one.spec},size=24x32")
    assert spelled(resized) != spelled(one)
    assert (one.size(), resized.size()) == ((12, 16), (24, 32))


def _darker(scene):
    return replace(scene, image=scene.image // 2)


def test_rendered_frames_say_when_they_change(monkeypatch):
    sequences = [replace(DATA, street=replace(STREET, fps=fps)).open().sequences for fps in (15.0, 30.0)]
    assert sequences[0][0].stamp != sequences[1][0].stamp
    assert sequences[0][0].image(0).shape == (48, 64, 3)
    drawn = synthetic.render
    monkeypatch.setattr(synthetic, "render", lambda *given: _darker(drawn(*given)))
    data._opened.cache_clear()
    again = replace(DATA, street=replace(STREET, fps=15.0)).open().sequences
    assert again[0].stamp != sequences[0][0].stamp, "another renderer"
    data._opened.cache_clear()
    assert DataConfig("synthetic:", "val").size() == (360, 480)


@pytest.mark.parametrize("spec", ["vspw:/data", "synthetic", "nowhere"])
def test_other_data_are_refused(spec):
    with pytest.raises(InputError, match="expected camvid:ROOT, synthetic: or cityscapes:ROOT"):
        checked_spec(spec)


def test_cityscapes_comes_at_the_papers_size_and_with_as_many_frames_as_are_read():
    assert checked_spec("cityscapes:/x") == "cityscapes:/x,size=512x1024"
    assert checked_spec("cityscapes:/x,past=4,size=8x8") == "cityscapes:/x,past=4,size=8x8"
    assert with_past("cityscapes:/x,size=8x8", 5) == "cityscapes:/x,size=8x8,past=5"
    assert with_past("cityscapes:/x", 40) == "cityscapes:/x,past=19"
    assert with_past("cityscapes:/x,past=2", 5) == "cityscapes:/x,past=2"
    assert with_past("camvid:/x", 5) == "camvid:/x"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig("synthetic:", "train", fold="0001TP"), "folds are of CamVid at its own size"),
        (DataConfig("camvid:/x,size=8x8", "train", fold="0001TP"), "folds are of CamVid at its own size"),
        (DataConfig("synthetic:", "held-out"), "name the fold"),
        (DataConfig("synthetic:,size=8x8", "val", street=STREET), "a street is synthetic data's"),
    ],
)
def test_frames_that_there_are_not_are_told(config, message):
    with pytest.raises(DataError, match=message):
        config.open()
