import json
import math

import pytest

from lmanet.research.reproduce.cells import Evaluation, MemoryTraining, Weights
from lmanet.research.reproduce.data import DataConfig, Street
from lmanet.research.reproduce.plan import Plan, Point, Row, mean_of
from lmanet.research.reproduce.store import Store
from lmanet.research.reproduce.tables import Outcome, tables_of
from lmanet.research.reproduce.writing import write_report
from lmanet.training.recipes import LMANetRecipe

DATA = DataConfig("synthetic:", "val", street=Street(sequences=1, frames=2, size=(48, 64)))
NETWORK = Weights("one", "0", "tiny-cells")


def finished(store, cell, miou, flicker=0.1, classes=(0.5, None)):
    scores = {
        "miou": miou,
        "per_class_iou": list(classes),
        "flicker": flicker,
        "vc": {"8": 0.9, "16": None},
        "tc": 0.8,
        "median_ms": 12.34,
        "frames": 2,
    }
    store.begin(cell)
    store.finish(cell, {"scores": scores, "class_names": ["road", "car"], "conventions": {"flow": "DIS"}})
    return cell


@pytest.fixture
def plan(tmp_path):
    """A network of 20 %, and a memory of 30, 32 and 34 % on one place and 10 points more on another."""
    store = Store(tmp_path)
    single = finished(store, Evaluation(DATA, NETWORK), 0.2, flicker=0.2)
    ours, others = [], []
    for seed in range(3):
        training = MemoryTraining(DATA, LMANetRecipe(), NETWORK, seed)
        ours.append(
            (finished(store, Evaluation(DATA, training), 0.3 + 0.02 * seed, classes=(0.4, 0.1 * seed)),)
        )
        others.append((finished(store, Evaluation(DATA, training, window=3), 0.4 + 0.02 * seed),))
    rows = (
        Row("single-frame", ((single,),) * 3, "here"),
        Row("LMANet", tuple(ours), "here"),
        mean_of("both", "here", [Row("a", tuple(ours)), Row("b", tuple(others))]),
    )
    point = Point("noise", 0.5, "here", ("LMANet", "both"))
    return store, Plan("A table", rows, notes=("A note.",), per_class=True, points=(point,))


def test_a_table_has_mean_spread_and_number_of_seeds(plan):
    store, plan = plan
    scores, gains, classes = tables_of(Outcome(plan, store))
    assert scores.headings == ("", "mIoU", "Δ mIoU", "flicker", "VC8", "VC16", "TC", "n")
    assert scores.rows == (
        ("single-frame", "20.00", "", "20.00", "90.00", "n/a", "80.00", "1"),
        (
            "LMANet", "32.00 ± 2.00", "+12.00 ± 2.00", "10.00 ± 0.00", "90.00 ± 0.00", "n/a", "80.00 ± 0.00",
            "3",
        ),
        (
            "both", "37.00 ± 2.00", "+17.00 ± 2.00", "10.00 ± 0.00", "90.00 ± 0.00", "n/a", "80.00 ± 0.00",
            "3",
        ),
    )  # fmt: skip
    assert scores.notes[1] == "A note." and "Flow of TC: DIS." in scores.notes[0]
    assert gains.rows == (
        ("noise", "0.5", "+12.00 ± 2.00", "+17.00 ± 2.00", "-10.00 ± 0.00", "-10.00 ± 0.00"),
    )
    assert classes.headings == ("class", "single-frame", "LMANet", "both", "Δ LMANet", "Δ both")
    assert classes.rows[0][:3] == ("road", "50.00", "40.00 ± 0.00")
    # The mean over a place where the class is absent is that of the other; nothing to compare with is n/a.
    assert classes.rows[1] == ("car", "n/a", "10.00 ± 10.00", "10.00 ± 10.00", "n/a", "n/a")
    assert classes.rows[2][:3] == ("mean", "20.00", "32.00 ± 2.00")


def test_the_files_of_a_table(plan, tmp_path):
    store, plan = plan
    write_report("some", plan, store, tmp_path / "out", {"seeds": 3})
    content = json.loads((tmp_path / "out/some.json").read_text())
    assert content["settings"] == {"seeds": 3} and content["notes"] == ["A note."]
    row = content["rows"][2]
    assert row["miou"]["mean"] == pytest.approx(0.37) and row["miou"]["n"] == 3
    assert row["miou"]["per_seed"] == pytest.approx([0.35, 0.37, 0.39])
    assert math.isclose(row["miou_difference"]["std"], 0.02)
    assert row["vc16"]["mean"] is None
    assert [len(folds) for folds in row["cells"]] == [2, 2, 2]
    assert len(content["cells"]) == 7
    config = next(iter(content["cells"].values()))["config"]
    assert config["kind"] == "Evaluation" and config["data"]["split"] == "val"
    markdown = (tmp_path / "out/some.md").read_text()
    assert "| LMANet | 32.00 ± 2.00 | +12.00 ± 2.00 |" in markdown
    assert content["figures"] == ["some-classes.png", "some-gains.png"]
    assert all((tmp_path / "out" / picture).stat().st_size > 1000 for picture in content["figures"])
