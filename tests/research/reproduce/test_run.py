import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from contracts.trees import snippet
from lmanet.errors import InputError
from lmanet.research.reproduce.cells import MemoryTraining, SingleTraining, Timings, needs, weights_of
from lmanet.research.reproduce.experiments import EXPERIMENTS
from lmanet.research.reproduce.plan import Plan, Row
from lmanet.research.reproduce.run import estimate_plans, make_plans, make_setup, run_plans
from lmanet.research.reproduce.store import Store

CAMVID = Path(os.environ.get("LMANET_CAMVID", Path(__file__).parents[3] / "../shared/camvid"))
PICTURES = {
    "table-1": ["table-1-classes.png"],
    "table-2": ["table-2-classes.png"],
    "table-6": ["table-6-classes.png"],
    "robustness": ["robustness-gains.png"],
    "figure-1": ["figure-1.png"],
    "figure-3": ["figure-3.png"],
    "figure-5": ["figure-5.png"],
}


@pytest.fixture(scope="module")
def everything(budget, weights, tmp_path_factory):
    """Every experiment on a small synthetic drive: setup, plans, folder and tables."""
    out = tmp_path_factory.mktemp("everything")
    setup = make_setup("synthetic:", weights=weights, seeds=1, budget=budget)
    plans = make_plans([], setup)
    return setup, plans, out, run_plans(plans, setup, out, workers=0)


def test_every_experiment_is_run(everything):
    _, plans, _, tables = everything
    assert list(plans) == list(tables) == list(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_writes_json_a_table_and_pictures(everything, name):
    _, plans, out, tables = everything
    folder = out / "synthetic"
    content = json.loads((folder / f"{name}.json").read_text())
    assert content["schema_version"] == 2 and content["experiment"] == name
    assert [place["torch"] for place in content["environments"]] == [torch.__version__]
    assert [row["name"] for row in content["rows"]] == [row.name for row in plans[name].rows]
    for row in content["rows"]:
        assert row["miou"]["n"] == 1 and 0 <= row["miou"]["mean"] <= 1
        for key in ("flicker", "tc", "vc8", "vc16"):
            assert set(row[key]) == {"mean", "std", "n", "per_seed"}
        for hash_ in row["cells"][0]:
            assert content["cells"][hash_]["result"]["scores"]["median_ms"] > 0
    assert len(content["cells"]) == len(set(plans[name].cells)) > 0
    markdown = (folder / f"{name}.md").read_text()
    assert markdown.startswith(f"# {plans[name].title}\n")
    assert all(table.title in markdown for table in tables[name])
    assert content["figures"] == PICTURES.get(name, [])
    for picture in content["figures"]:
        assert f"]({picture})" in markdown
        with Image.open(folder / picture) as opened:
            assert opened.width > 200


def test_what_a_training_leaves(everything):
    _, plans, out, _ = everything
    store = Store(out)
    trainings = {cell for plan in plans.values() for one in plan.cells for cell in needs(one)}
    assert len(trainings) > 15
    for training in trainings:
        kept = sorted(path.name for path in store.folder(training).iterdir())
        assert not {"frames", "step0", "step1", "step2"}.intersection(kept)
        assert store.weights(training).is_file()
        assert set(store.result(training)["parts"]) <= {"memory", "single", "encoding"}
    assert not any(path.is_symlink() for path in out.glob("cells/*/*"))
    assert list((out / "shared").glob("[!.]*")) == []  # of drives of their own, nothing is kept


def test_finished_cells_are_not_run_again(everything, times):
    setup, plans, out, tables = everything
    before = times(out)
    for path in (out / "synthetic").iterdir():
        path.unlink()
    assert run_plans(plans, setup, out) == tables
    assert times(out) == before
    assert {f"{name}.md" for name in plans} <= {path.name for path in (out / "synthetic").iterdir()}
    estimates = estimate_plans(plans, out)
    assert all(one.cached and one.seconds == 0 for one in estimates)
    assert {one.cell for one in estimates} >= {cell for plan in plans.values() for cell in plan.cells}


def test_a_lost_training_is_run_again_only_if_something_needs_it(everything, times, tmp_path):
    setup, plans, out, _ = everything
    store = Store(out)
    training = next(iter(needs(plans["table-3"].rows[1].cells[0][0])))
    weights = store.weights(training).read_bytes()
    store.weights(training).unlink()
    before = times(out)
    run_plans({"table-3": plans["table-3"]}, setup, out)
    assert times(out) == before
    evaluation = plans["table-3"].rows[1].cells[0][0]
    scores = store.result(evaluation)["scores"]
    (store.folder(evaluation) / "result.json").unlink()
    run_plans({"table-3": plans["table-3"]}, setup, out, workers=0)
    changed = {name for name, time in times(out).items() if before[name] != time}
    assert changed == {store.folder(cell).name for cell in (training, evaluation)}
    # Trained and scored anew, it is what it was.
    assert store.weights(training).read_bytes() == weights
    again = store.result(evaluation)["scores"]
    assert again["per_class_iou"] == scores["per_class_iou"] and again["tc"] == scores["tc"]


def test_a_cell_that_fails_keeps_no_finished_table_back(everything):
    setup, plans, out, _ = everything
    evaluation = replace(plans["table-3"].rows[0].cells[0][0], window=3)
    failing = Plan("Fails", (Row("a network with a window", ((evaluation,),)),))
    written = out / "synthetic/table-3.md"
    written.unlink()
    with pytest.raises(InputError, match="single-frame has no window to be changed"):
        run_plans({"failing": failing, "table-3": plans["table-3"]}, setup, out)
    assert written.is_file() and not (out / "synthetic/failing.md").exists()


def test_a_table_of_other_weights_is_not_written_over(everything):
    setup, plans, out, _ = everything
    before = (out / "synthetic/table-3.json").read_bytes()
    with pytest.raises(
        InputError,
        match=r"table-3\.json is of tiny\.safetensors \([0-9a-f]{16}\), not of a network to be trained",
    ):
        run_plans({"table-3": plans["table-3"]}, replace(setup, weights=None), out)
    assert setup.weights is not None
    renamed = replace(setup.weights, sha256="0" * 64)  # another file of the same name
    with pytest.raises(InputError, match=r"not of tiny\.safetensors \(0{16}\): give another --out"):
        run_plans({"table-3": plans["table-3"]}, replace(setup, weights=renamed), out)
    assert (out / "synthetic/table-3.json").read_bytes() == before


def test_what_keeps_the_network_is_beside_it_on_the_same_frames(everything):
    _, plans, _, _ = everything
    rows = {row.name: row.cells[0][0] for row in plans["control"].rows}
    flows = [f"flow average, {weight}" for weight in (0.5, 0.75, 0.9)]
    assert list(rows) == ["single-frame", *flows, "memory without training", "label memory"]
    single, trained = rows["single-frame"], rows["label memory"]
    assert len({cell.data for cell in rows.values()}) == 1
    assert isinstance(trained.model, MemoryTraining) and trained.model.network == single.model
    for name in flows:
        assert rows[name] == replace(single, method="flow-average", weight=float(name.split()[-1]))
    assert rows["memory without training"] == replace(single, method="training-free")


def test_the_control_and_lmanet_differ_in_what_they_see_alone(everything):
    _, plans, _, _ = everything
    rows = {row.name: row.cells[0][0] for row in plans["presets"].rows}
    control, ours = rows["LMANet, control"], rows["LMANet"]
    assert isinstance(control.model, MemoryTraining) and isinstance(ours.model, MemoryTraining)
    assert control.forget and not ours.forget
    assert replace(control.model, recipe=ours.model.recipe) == ours.model
    assert replace(control.model.recipe, memories=ours.model.recipe.memories) == ours.model.recipe


def test_windows_are_the_papers_in_cells_up_to_the_whole_map(everything):
    _, plans, _, _ = everything
    windows = {row.name: row.cells[0][0].model.recipe.window for row in plans["table-2"].rows[1:6]}
    # 48×64 at stride 4 is a map of 12×16.
    assert windows == {"G, S=3": 31, "R=41, S=3": 31, "R=21, S=3": 21, "R=11, S=3": 11, "R=1, S=3": 1}
    assert any("this one 12×16" in note and "G as 31, 41 as 31" in note for note in plans["table-2"].notes)


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"no CamVid at {CAMVID}: set LMANET_CAMVID")
def test_folds_of_camvid_have_networks_of_their_own_that_saw_none_of_their_frames(tmp_path):
    setup = make_setup(f"camvid:{CAMVID}", weights="erfnet-camvid", seeds=2, folds=True)
    plan = make_plans(["control"], setup)["control"]
    places = list(dict.fromkeys(row.place for row in plan.rows))
    folds = ["fold 0016E5-a", "fold 0016E5-b"]
    rates = ["every frame", *(f"every {k}. frame" for k in (2, 4, 15))]
    assert places == [*rates, "mean of the folds", *folds]
    rows = {(row.place, row.name): row for row in plan.rows}
    for seed in range(2):
        parts = tuple(rows[fold, "label memory"].cells[seed][0] for fold in folds)
        assert rows["mean of the folds", "label memory"].cells[seed] == parts
        for cell in parts:
            training = cell.model
            assert isinstance(training, MemoryTraining) and isinstance(training.network, SingleTraining)
            assert training.network.seed == 0 and training.network.data == training.data
            names = [
                {n for s in data.open().sequences for n in s.frame_names}
                for data in (training.data, cell.data)
            ]
            assert names[0].isdisjoint(names[1]) and sum(map(len, names)) == 367
    assert rows["every frame", "label memory"].cells[0][0].model.network == setup.weights
    # The cells of one fold are run one after the other, as its features take much room.
    order = [cell.data.fold for cell in plan.cells]
    assert order[: len(set(plan.cells))] == sorted(order[: len(set(plan.cells))], key=lambda fold: fold or "")
    estimates = estimate_plans({"control": plan}, tmp_path)
    start = weights_of("erfnet-synthetic")  # has seen no CamVid
    assert sum(
        isinstance(one.cell, SingleTraining) and one.cell.initial == start for one in estimates
    ) == len(folds)


def test_tables_share_the_cells_of_the_same_module():
    setup = make_setup("synthetic:", weights="erfnet-synthetic")
    plans = make_plans(["table-1", "table-2", "table-3", "table-s4"], setup)
    rows = {(name, row.name): row.cells for name, plan in plans.items() for row in plan.rows}
    for size in (3, 4):
        assert rows["table-1", f"S={size}"] == rows["table-2", f"R=21, S={size}"]
    assert rows["table-3", "gated fusion"] == rows["table-1", "S=3"]
    assert rows["table-s4", "S=4"] == rows["table-1", "S=4"]
    assert rows["table-s4", "S=9"][0][0].model == rows["table-1", "S=4"][0][0].model


def test_seeds_have_trainings_of_their_own_and_the_network_is_shared(budget, weights, tmp_path):
    setup = make_setup("synthetic:", weights=weights, seeds=3, budget=budget)
    plan = make_plans(["table-3"], setup)["table-3"]
    estimates = estimate_plans({"table-3": plan}, tmp_path)
    memories = [one.cell for one in estimates if isinstance(one.cell, MemoryTraining)]
    assert sorted(cell.seed for cell in memories) == [0, 0, 1, 1, 2, 2]
    assert len(estimates) == 6 + 6 + 1
    assert not any(tmp_path.iterdir())


def test_cityscapes_on_a_made_tree_with_networks_of_its_own(budget, tmp_path, times):
    for split in ("train", "val"):
        for number in range(2):
            snippet(tmp_path / "data", number=number, split=split, before=4)
    recipe = replace(budget.paper, memory_size=2)
    tiny = replace(budget, paper=recipe, street=None, scored_street=None, hard_street=None)
    setup = make_setup(f"cityscapes:{tmp_path / 'data'},size=48x64", seeds=2, budget=tiny)
    names = ["table-3", "control"]
    tables = run_plans(make_plans(names, setup), setup, tmp_path / "out", workers=0)
    content = json.loads((tmp_path / "out/cityscapes/table-3.json").read_text())
    assert [row["miou"]["n"] for row in content["rows"]] == [1, 2, 2]
    assert len(content["class_names"]) == 19
    options = {cell["config"]["data"]["options"] for cell in content["cells"].values()}
    assert options == {"past=4,size=48x64"}
    cell = next(iter(content["cells"].values()))
    assert cell["result"]["scores"]["labelled_frames"] == 2 and cell["result"]["scores"]["frames"] == 10
    # One network, trained once, for all of them.
    singles = [f for f in (tmp_path / "out/cells").iterdir() if '"SingleTraining"' in _kind(f)]
    assert len(singles) == 1
    assert " ± " in tables["table-3"][0].markdown()


def _kind(folder):
    return json.dumps(json.loads((folder / "config.json").read_text())["kind"])


@pytest.mark.parametrize(
    ("arguments", "names", "message"),
    [
        ({"data": "synthetic:", "seeds": 0}, [], "seeds 0: expected at least 1"),
        ({"data": "synthetic:"}, ["table-9"], "no experiment named 'table-9': there are table-1"),
        ({"data": "cityscapes:/x"}, ["robustness"], "robustness runs on synthetic data, not on cityscapes"),
        ({"data": "synthetic:", "folds": True}, ["control"], "the folds are CamVid's"),
        (
            {"data": "camvid:/x", "folds": True},
            ["table-1"],
            "`control` and `training-free` are made on folds, name",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(budget, arguments, names, message):
    with pytest.raises(InputError, match=message):
        make_plans(names, make_setup(**{"budget": budget, **arguments}))


def test_timings_are_run_last(everything):
    from lmanet.research.reproduce.schedule import in_order

    _, plans, _, _ = everything
    order = in_order(cell for plan in plans.values() for cell in plan.cells)
    assert isinstance(order[-1], Timings)
    for place, cell in enumerate(order):
        assert all(order.index(needed) < place for needed in needs(cell))
