import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import torch

import lmanet
from contracts.networks import seeded
from lmanet.backbones import ERFNet
from lmanet.data.camvid import CAMVID_CLASSES
from lmanet.errors import InputError, LmanetError
from lmanet.methods.single_frame import SingleFrame
from lmanet.research.reproduce.cells import Evaluation, MemoryTraining, SingleTraining, title, weights_of
from lmanet.research.reproduce.data import DataConfig, Street
from lmanet.research.reproduce.estimate import DEFAULT_S, estimate, readable
from lmanet.research.reproduce.run import make_plans, make_setup, run_plans
from lmanet.research.reproduce.schedule import Watcher, _finished, ready, run_cells
from lmanet.research.reproduce.store import Store, locked, using
from lmanet.research.reproduce.work import run_cell
from lmanet.training.config import Stage
from lmanet.zoo import save_model


@pytest.fixture
def cells(budget, weights):
    """A training and its evaluation."""
    train = DataConfig("synthetic:", "train", street=budget.street)
    recipe = replace(budget.paper, module=replace(budget.paper.module, samples=0))
    training = MemoryTraining(train, recipe, weights_of(weights))
    return training, Evaluation(DataConfig("synthetic:", "test", street=budget.scored_street), training)


class Killed(BaseException):
    """Stands for a signal."""


def test_a_killed_training_goes_on_where_it_was(cells, tmp_path):
    training, _ = cells
    whole, killed = Store(tmp_path / "whole"), Store(tmp_path / "killed")
    run_cell(training, whole)

    def kill(name, progress):
        if name == "step 2":
            raise Killed

    with pytest.raises(Killed):
        run_cell(training, killed, report=kill)
    assert not killed.is_finished(training)
    seen = []
    run_cell(training, killed, report=lambda name, progress: seen.append(name))
    assert "step 2" in seen and "step 1" not in seen and "encoding" not in seen
    one, other = (lmanet.load(str(store.weights(training))).state_dict() for store in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert killed.is_finished(training)
    assert killed.result(training)["parts"]["memory"]["samples"] == 4 + 2


def test_a_cell_that_runs_elsewhere_is_waited_for(cells, tmp_path):
    _, evaluation = cells
    store = Store(tmp_path)
    other = Thread(target=run_cell, args=(evaluation, store))
    with locked(store.begin(evaluation)):
        other.start()
        other.join(0.5)
        assert other.is_alive()
        store.finish(evaluation, {"made": "elsewhere"})
    other.join()
    assert store.result(evaluation)["made"] == "elsewhere"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_lock_is_let_go_though_a_forked_process_has_the_file(tmp_path):
    with locked(tmp_path):
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        process.start()
    again = Thread(target=lambda: locked(tmp_path).__enter__(), daemon=True)
    again.start()
    again.join(30)
    process.kill()
    assert not again.is_alive()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGKILL")
def test_processes_end_with_the_one_that_was_killed(tmp_path):
    program = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from lmanet.research.reproduce.schedule import _begin_process

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_begin_process, initargs=(1, os.getpid())) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, tmp_path / "program.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(600):
        if not _runs(child):
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("it went on by itself")


def _runs(process: int) -> bool:
    """Whether there is such a process, one that has ended and was not waited for excepted."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_process_that_is_killed_is_told_by_its_cell(cells):
    future = Future()
    future.set_exception(BrokenProcessPool("terminated abruptly"))
    with pytest.raises(
        LmanetError, match=r"memory training, .* was running: out of memory\?.*fewer --processes"
    ):
        _finished(future, cells[0])


def test_weights_that_changed_meanwhile_are_refused(cells, tmp_path):
    training, evaluation = cells
    name = tmp_path / "replaced.safetensors"
    name.write_bytes(Path(training.network.name).read_bytes())
    network = weights_of(str(name))
    with seeded(1):
        save_model(SingleFrame(ERFNet(11)), name, classes=CAMVID_CLASSES)
    with pytest.raises(InputError, match=r"replaced\.safetensors is not what it was when the run began"):
        run_cell(replace(evaluation, model=network), Store(tmp_path))


class Noting(Watcher):
    def __init__(self):
        self.begun, self.ended = [], []

    def begin(self, cell, number, total):
        self.begun.append((title(cell), number, total))

    def end(self, cell):
        self.ended.append(title(cell))


def test_a_cell_is_run_after_what_it_needs(cells, tmp_path):
    training, evaluation = cells
    noting, store = Noting(), Store(tmp_path)
    run_cells([evaluation], store, workers=0, watcher=noting)
    assert noting.begun == [(title(training), 1, 2), (title(evaluation), 2, 2)]
    assert noting.ended == [title(training), title(evaluation)]
    noting = Noting()
    run_cells([evaluation, training], store, workers=0, watcher=noting)
    assert noting.begun == []


def test_features_and_frames_of_trainings_on_the_same_network_are_shared(cells, tmp_path, budget):
    training, _ = cells
    # The plain split's are kept; a drive of its own stands for it here, so the cells are run one by one.
    store = Store(tmp_path)
    seen = []
    for cell in (
        training,
        replace(training, seed=1),
        replace(training, recipe=replace(training.recipe, memories="current")),
    ):
        run_cell(cell, store, report=lambda name, progress: seen.append(name))
    assert seen.count("encoding") == seen.count("reading train") == 4
    assert len(list(store.shared(training.data).glob("features-*"))) == 1


def test_what_another_run_is_using_is_not_dropped(cells, tmp_path):
    store, data = Store(tmp_path), cells[0].data
    store.shared(data).mkdir(parents=True)
    with using(store.shared(data)), using(store.shared(data)) as held:
        assert held
        store.drop_shared(data)
        assert store.shared(data).is_dir()
    store.drop_shared(data)
    assert not store.shared(data).exists()


def test_memories_that_would_wait_for_features_come_last(cells):
    training, evaluation = cells
    same, other = replace(training, seed=1), replace(training, data=replace(training.data, split="val"))
    assert ready([training, evaluation, same, other], []) == [training, same, other]
    assert ready([evaluation, same, other], [training]) == [other, same]
    assert ready([evaluation, same], [other]) == [evaluation, same]


def test_two_processes_give_what_one_gives(budget, tmp_path):
    with seeded():
        save_model(SingleFrame(ERFNet(11)), tmp_path / "erfnet.safetensors", classes=CAMVID_CLASSES)
    # A network of lmanet's own: that of the other tests is registered in this process alone. It is a large one for
    # such frames, which are therefore few, and too small for optical flow.
    size = (32, 48)
    small = replace(
        budget,
        paper=replace(budget.paper, key_channels=None, value_channels=None),
        street=Street(sequences=1, frames=3, size=size),
        scored_street=Street(sequences=1, frames=4, size=size),
    )
    setup = make_setup("synthetic:", weights=str(tmp_path / "erfnet.safetensors"), seeds=1, budget=small)
    plans = make_plans(["table-3"], setup)
    noting = Noting()
    for processes in (1, 2):
        run_plans(plans, setup, tmp_path / str(processes), processes=processes, workers=0, watcher=noting)
    assert len(noting.ended) == 2 * 5
    one, two = Store(tmp_path / "1"), Store(tmp_path / "2")
    for cell in plans["table-3"].cells:
        assert one.result(cell)["scores"]["frames"] == two.result(cell)["scores"]["frames"] == 4
        expected = pytest.approx(one.result(cell)["scores"]["miou"], abs=0.02)
        assert two.result(cell)["scores"]["miou"] == expected
    assert list((tmp_path / "2/shared").glob("[!.]*")) == []


def test_an_error_in_a_process_is_raised_here(cells, tmp_path):
    training, _ = cells
    lost = replace(training, network=replace(training.network, name=str(tmp_path / "lost.safetensors")))
    with pytest.raises(lmanet.errors.WeightsError, match=r"lost\.safetensors: no such file"):
        run_cells([lost, replace(lost, seed=1)], Store(tmp_path), processes=2)


def test_no_process_is_refused(tmp_path):
    with pytest.raises(InputError, match="processes 0: expected at least 1"):
        run_cells([], Store(tmp_path), processes=0)


def test_times_are_estimated_from_pixels_and_then_from_what_was_measured(cells, tmp_path):
    training, evaluation = cells
    store = Store(tmp_path)
    other = replace(training, seed=1)
    estimates = {one.cell: one for one in estimate([evaluation, other], store)}
    assert list(estimates) == [training, evaluation, other]
    pixels = 48 * 64
    # 4 samples of step 1 and 2 of step 2; each of 4 frames under one view, encoded for both trainings.
    trained = 6 * pixels * DEFAULT_S["memory"]
    assert estimates[training].seconds == pytest.approx(trained + 4 * pixels * DEFAULT_S["encoding"])
    assert estimates[other].seconds == pytest.approx(trained)
    assert estimates[evaluation].seconds == pytest.approx(7 * pixels * DEFAULT_S["evaluation"])
    assert not any(one.cached for one in estimates.values())
    single = SingleTraining(training.data, _single(samples=2))
    assert estimate([single], store)[0].seconds == pytest.approx(4 * 32 * 32 * DEFAULT_S["single"])

    store.begin(training)
    parts = {
        "memory": {"seconds": 30.0, "samples": 6, "pixels": pixels},
        "encoding": {"seconds": 8.0, "samples": 4, "pixels": pixels},
    }
    store.finish(training, {"parts": parts})
    store.weights(training).touch()
    estimates = {one.cell: one for one in estimate([evaluation, other], store)}
    assert estimates[training].cached and estimates[training].seconds == 0
    assert "cached" in estimates[training].line
    assert estimates[other].seconds == pytest.approx(30.0 + 8.0)
    assert estimates[other].line.endswith("to do, about 38 s")


def _single(samples):
    from lmanet.training.augment import Augmentation
    from lmanet.training.recipes import SingleRecipe

    stage = Stage(epochs=2, batch_size=2, lr=1e-3, samples=samples)
    return SingleRecipe(augmentation=Augmentation(crop=(32, 32)), stage=stage)


def test_seconds_are_read_in_words():
    assert [readable(s) for s in (12.4, 600, 9000)] == ["12 s", "10 min", "2.5 h"]
