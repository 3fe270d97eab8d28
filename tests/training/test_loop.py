import csv
import gc
import os
import re
import signal
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from contracts.disk import files_no_larger_than
from contracts.tiny import tiny_backbone, tiny_data
from lmanet.errors import InputError, OutputError
from lmanet.methods.lmanet import LMANet
from lmanet.training.augment import Augmentation
from lmanet.training.clips import ClipSamples, FromImages, PseudoMemory, make_views
from lmanet.training.config import Stage
from lmanet.training.loop import Trainee, fit
from lmanet.training.options import RunOptions
from lmanet.training.progress import Phase, silent
from lmanet.training.sampler import EpochSampler
from lmanet.training.single import LabelledFrames, TrainedNetwork
from lmanet.training.steps import set_mode, set_trainable

ONE_CYCLE = Stage(epochs=3, batch_size=2, lr=1e-2, ema=0.9, validate_every=2)
PLATEAU = Stage(
    epochs=3, batch_size=2, lr=1e-2, optimizer="adam", schedule="plateau", weight_decay=0.0, patience=0
)
AUGMENTATION = Augmentation(crop=(24, 32), scale=(0.8, 1.2), noise=4.0)
WEIGHTS = torch.tensor([1.0, 2.0, 3.0])


class Killed(BaseException):
    """Stands for a signal: nothing in the code under test catches it."""


class KillAt:
    """Raises after so many steps in all."""

    def __init__(self, step):
        self.left = step

    def __call__(self, phase, progress):
        self.left -= 1
        if self.left == 0:
            raise Killed


def value_of(module):
    """A stand-in for validation that depends on the weights, so that the best epoch does too."""
    return float(sum(p.double().abs().mean() for p in module.state_dict().values())) % 1.0


def options(*, report=silent, workers=0, seed=0):
    return RunOptions(Accelerator(cpu=True), seed, workers, report)


def train(
    folder,
    stage=ONE_CYCLE,
    *,
    report=silent,
    workers=0,
    seed=3,
    validate=value_of,
    made_with=None,
    data=None,
    network_seed=0,
    teacher=None,
):
    module = TrainedNetwork(tiny_backbone(network_seed))
    fitted = fit(
        Trainee(module, validate, teacher=None if teacher is None else TrainedNetwork(teacher)),
        data or LabelledFrames(tiny_data(), AUGMENTATION, seed=seed),
        stage,
        class_weights=WEIGHTS,
        folder=folder,
        options=options(report=report, workers=workers, seed=seed),
        made_with=made_with,
    )
    return module, fitted.best


def log_of(folder):
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert float(row.pop("seconds")) >= 0  # the only column that is not the training's own
    return rows


def assert_same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert list(one) == list(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("stage", [ONE_CYCLE, PLATEAU], ids=["one-cycle with ema", "plateau"])
@pytest.mark.parametrize("kills", [[5], [4], [1, 1, 6]], ids=["inside", "after a whole epoch", "thrice"])
def test_killed_and_resumed_equals_not_killed(tmp_path, stage, kills):
    whole, best = train(tmp_path / "whole", stage)
    for step in kills:
        with pytest.raises(Killed):
            train(tmp_path / "killed", stage, report=KillAt(step))
    resumed, best_resumed = train(tmp_path / "killed", stage)
    assert_same_weights(resumed, whole)
    assert best_resumed == best
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")
    assert [row["epoch"] for row in log_of(tmp_path / "whole")] == ["1", "2", "3"]


def test_killed_between_epochs(tmp_path):
    whole, _ = train(tmp_path / "whole")

    def killed_while_validating(module):
        raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "killed", validate=killed_while_validating)
    resumed, _ = train(tmp_path / "killed")
    assert_same_weights(resumed, whole)


def test_worker_processes_change_nothing_also_when_resumed(tmp_path):
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", workers=1, report=KillAt(5))
    resumed, _ = train(tmp_path / "killed", workers=1)
    assert_same_weights(resumed, whole)


CHILD = """
import sys, time
from pathlib import Path
import test_loop
def report(phase, p):
    print("step", p.epoch, p.step, flush=True)
    if (p.epoch, p.step) == (1, 2):
        time.sleep(600)  # until it is killed
test_loop.train(Path(sys.argv[1]), report=report)
"""


def test_a_process_killed_by_signal_9_is_resumed(tmp_path):
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests / "training"), *filter(None, sys.path)])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "killed")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    with child:
        assert child.stdout is not None
        for line in child.stdout:
            if line == "step 1 2\n":
                child.kill()
                break
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "killed/last.pt").is_file()
    steps = []
    resumed, _ = train(tmp_path / "killed", report=lambda phase, p: steps.append((p.epoch, p.step)))
    assert steps[0] == (1, 1)
    whole, _ = train(tmp_path / "whole")
    assert_same_weights(resumed, whole)


def test_seconds_of_the_epochs_before_a_resumption_count(tmp_path):
    module, data = TrainedNetwork(tiny_backbone()), LabelledFrames(tiny_data(), AUGMENTATION)

    def seconds(report=silent):
        where = {"class_weights": WEIGHTS, "folder": tmp_path, "options": options(report=report)}
        return fit(Trainee(module), data, ONE_CYCLE, **where).seconds

    start = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(Killed):
        seconds(KillAt(8))
    before = torch.load(tmp_path / "last.pt", weights_only=True)["seconds"]
    module.load_state_dict(start)
    whole = seconds()
    module.load_state_dict(start)
    assert 0 < before < whole == seconds(KillAt(1))


def test_the_progress_is_told_of_the_phase_that_was_named(tmp_path):
    seen, phase = [], Phase("training", "step 7")
    fit(
        Trainee(TrainedNetwork(tiny_backbone())),
        LabelledFrames(tiny_data(), AUGMENTATION),
        replace(ONE_CYCLE, epochs=1),
        class_weights=WEIGHTS,
        folder=tmp_path,
        options=options(report=lambda *told: seen.append(told)),
        phase=phase,
    )
    assert [(told[0], told[1].step, told[1].steps) for told in seen] == [(phase, n, 3) for n in (1, 2, 3)]


def test_a_finished_training_gives_its_best_weights_again(tmp_path):
    module, best = train(tmp_path)
    again, best_again = train(tmp_path, report=KillAt(1))
    assert_same_weights(again, module)
    assert best == best_again


def test_the_best_validated_weights_are_kept(tmp_path):
    values, seen = iter([0.3, 0.9, 0.1]), []

    def validate(module):
        assert not module.training
        seen.append({k: v.clone() for k, v in module.state_dict().items()})
        return next(values)

    module, best = train(tmp_path, replace(ONE_CYCLE, validate_every=1), validate=validate)
    assert (best.miou, best.epoch) == (0.9, 2)
    for name, value in module.state_dict().items():
        assert torch.equal(value, seen[1][name])
    assert [row["val_miou_percent"] for row in log_of(tmp_path)] == ["30.00", "90.00", "10.00"]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_without_validation_the_last_epochs_weights_are_kept(tmp_path, ema):
    stage = replace(ONE_CYCLE, ema=ema, validate_every=1)
    # A validation that likes each epoch better than the one before keeps the last one's weights too.
    rising = iter([0.1, 0.2, 0.3])
    expected, _ = train(tmp_path / "validated", stage, validate=lambda module: next(rising))
    module, best = train(tmp_path / "not", stage, validate=None)
    assert_same_weights(module, expected)
    assert best.epoch == 3 and best.miou != best.miou
    assert [row["val_miou_percent"] for row in log_of(tmp_path / "not")] == ["", "", ""]


@pytest.mark.parametrize("step", [4, 5, 6])
def test_without_validation_killed_and_resumed_equals_not_killed(tmp_path, step):
    whole, _ = train(tmp_path / "whole", validate=None)
    with pytest.raises(Killed):
        train(tmp_path / "killed", validate=None, report=KillAt(step))
    resumed, _ = train(tmp_path / "killed", validate=None)
    assert_same_weights(resumed, whole)
    again, best = train(tmp_path / "killed", validate=None, report=KillAt(1))
    assert_same_weights(again, whole)
    assert best.epoch == 3


@pytest.mark.parametrize(("first", "then"), [(None, value_of), (value_of, None)])
def test_a_checkpoint_with_another_choice_of_epoch_is_refused(tmp_path, first, then):
    train(tmp_path, replace(ONE_CYCLE, epochs=1), validate=first)
    with pytest.raises(InputError, match="was made with another validation"):
        train(tmp_path, replace(ONE_CYCLE, epochs=1), validate=then)


def test_training_lowers_the_loss(tmp_path):
    train(tmp_path, replace(ONE_CYCLE, epochs=12))
    losses = [float(row["loss"]) for row in log_of(tmp_path)]
    assert losses[-1] < 0.6 * losses[0]


def test_plateau_lowers_the_rate_when_the_loss_stays(tmp_path):
    class Same:
        """One sample, all void: the loss is 0 and stays."""

        def __len__(self):
            return 2

        def sample(self, epoch, index):
            return (torch.zeros(3, 16, 16, dtype=torch.uint8),), torch.full((16, 16), 255, dtype=torch.uint8)

    train(tmp_path, replace(PLATEAU, epochs=4), data=Same())
    rates = [float(row["lr"]) for row in log_of(tmp_path)]
    assert rates == pytest.approx([1e-2, 8e-3, 6.4e-3, 5.12e-3])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stage": replace(ONE_CYCLE, lr=2e-2)}, "another stage"),
        ({"seed": 4}, "another seed"),
        ({"made_with": {"memories": "current"}}, "another memories: real, now current"),
    ],
)
def test_checkpoint_of_another_configuration_is_refused(tmp_path, change, named):
    made_with = {"memories": "real", "shape": (1, 2)}
    train(tmp_path, replace(ONE_CYCLE, epochs=1), made_with=made_with)
    train(tmp_path, replace(ONE_CYCLE, epochs=1), made_with=made_with)
    arguments = {"stage": replace(ONE_CYCLE, epochs=1), "made_with": made_with, **change}
    with pytest.raises(
        InputError,
        match=f"{named}.*delete {re.escape(str(tmp_path))} to train this step anew, or train into another folder",
    ):
        train(tmp_path, **arguments)


def test_a_loss_that_is_not_a_number_stops_the_training(tmp_path):
    def spoil(phase, progress):
        if progress.epoch == 1:
            with torch.no_grad():
                module.backbone.head.bias.fill_(float("nan"))

    module = TrainedNetwork(tiny_backbone())
    with pytest.raises(
        InputError, match=f"loss became nan in epoch 2, step 2, .*delete {re.escape(str(tmp_path))}.*lower lr"
    ):
        fit(
            Trainee(module, value_of),
            LabelledFrames(tiny_data(), AUGMENTATION),
            ONE_CYCLE,
            class_weights=WEIGHTS,
            folder=tmp_path,
            options=options(report=spoil),
        )
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["numbers"][0] == 1
    assert all(torch.isfinite(value).all() for value in state["module"].values())


def test_checkpoint_of_other_starting_weights_is_refused(tmp_path):
    train(tmp_path, replace(ONE_CYCLE, epochs=1))
    with pytest.raises(
        InputError, match=r"was made with another starting point: [0-9a-f]{16}, now [0-9a-f]{16}: delete"
    ):
        train(tmp_path, replace(ONE_CYCLE, epochs=1), network_seed=1)


def test_checkpoint_of_before_the_best_epoch_was_noted(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path / "old", report=KillAt(7))
    path = tmp_path / "old/last.pt"
    values = torch.load(path, weights_only=True)
    del values["best_epoch"], values["seconds"], values["config"]["starting point"]
    values["numbers"][3] = 2.0  # better than anything that comes
    torch.save(values, path)
    _, best = train(tmp_path / "old")
    assert (best.miou, best.epoch) == (2.0, None)
    assert torch.load(path, weights_only=True)["numbers"][0] == 3


def test_a_full_disk_keeps_the_checkpoint_of_before(tmp_path):
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "full", report=KillAt(4))
    before = (tmp_path / "full/last.pt").read_bytes()
    with (
        pytest.raises(OutputError, match=r"last\.pt: cannot be written.*free some space"),
        files_no_larger_than(5000),
    ):
        train(tmp_path / "full")
    assert (tmp_path / "full/last.pt").read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["last.pt", "log.csv"]
    resumed, _ = train(tmp_path / "full")
    assert_same_weights(resumed, whole)
    assert log_of(tmp_path / "full") == log_of(tmp_path / "whole")


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / ".last.part-1.pt").touch()
    train(tmp_path, replace(ONE_CYCLE, epochs=1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "log.csv"]


def test_a_folder_that_cannot_be_made_is_told_first(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        train(tmp_path / "file/step0", report=KillAt(1))


def test_accelerate_holds_nothing_afterwards(tmp_path):
    run = options()
    module = TrainedNetwork(tiny_backbone())
    alive = weakref.ref(module)
    for number in range(2):
        fit(
            Trainee(module, value_of),
            LabelledFrames(tiny_data(), AUGMENTATION),
            replace(ONE_CYCLE, epochs=1),
            class_weights=WEIGHTS,
            folder=tmp_path / str(number),
            options=run,
        )
    del module
    gc.collect()
    assert alive() is None
    assert run.accelerator.num_processes == 1


def test_sampler_gives_every_index_once_an_epoch():
    sampler = EpochSampler(10, 5, seed=0)
    orders = []
    for sampler.epoch in range(3):
        keys = [key for batch in sampler for key in batch]
        assert {epoch for epoch, _ in keys} == {sampler.epoch}
        assert sorted(index for _, index in keys) == list(range(10))
        orders.append(keys)
    assert len({tuple(i for _, i in keys) for keys in orders}) == 3
    sampler.epoch = 0
    assert [key for batch in sampler for key in batch] == orders[0]


@pytest.mark.parametrize(("length", "batch", "samples"), [(7, 3, 0), (2, 4, 0), (20, 4, 6), (5, 5, 99)])
def test_sampler_fills_the_last_batch(length, batch, samples):
    sampler = EpochSampler(length, batch, seed=1, samples=samples)
    batches = list(sampler)
    expected = min(samples, length) or length
    assert len(batches) == len(sampler) == -(-expected // batch)
    assert all(len(b) == batch for b in batches)
    assert len({key for b in batches for key in b}) == expected


@pytest.mark.parametrize("world", [2, 3])
def test_the_processes_shares_make_up_the_joint_batch(world):
    joint = list(EpochSampler(10, 6, seed=2))
    shares = [list(EpochSampler(10, 6, seed=2, rank=rank, world=world)) for rank in range(world)]
    for number, batch in enumerate(joint):
        assert [key for share in shares for key in share[number]] == batch


@pytest.mark.parametrize(
    "change",
    [{"epochs": -1}, {"lr": 0.0}, {"ema": 1.0}, {"validate_every": 0}, {"samples": -1}, {"grad_clip": -1.0}],
)
def test_a_stage_out_of_range_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        replace(ONE_CYCLE, **change)


def test_batch_must_divide_among_the_processes():
    with pytest.raises(InputError, match="batch_size 5 does not divide among 2 processes"):
        EpochSampler(10, 5, seed=0, world=2)


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize(
    ("step", "frozen", "trained"),
    [(1, ("stem", "body", "up", "head"), ()), (2, ("stem", "body"), ("up", "head"))],
)
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_frozen_parts_stay_bit_for_bit(tmp_path, step, frozen, trained, ema):
    segmenter = LMANet(tiny_backbone(), key_channels=4, value_channels=6, memory_size=2, window=3)
    views = make_views(Augmentation(), (48, 64), draws=2, pseudo=0, ranges=PseudoMemory())
    before = {name: snapshot(part) for name, part in segmenter.named_children()}
    backbone = {name: snapshot(part) for name, part in segmenter.backbone.named_children()}
    set_trainable(segmenter, step)
    fit(
        Trainee(FromImages(segmenter, (48, 64)), value_of, lambda module: set_mode(segmenter, step)),
        ClipSamples(tiny_data(), views, memory_size=2, memories="real", cache=None),
        replace(ONE_CYCLE, epochs=1, ema=ema),
        class_weights=WEIGHTS,
        folder=tmp_path,
        options=options(),
    )
    for name in frozen:
        now = segmenter.backbone.get_submodule(name).state_dict()
        floats = [key for key in now if not key.endswith("num_batches_tracked")]
        assert floats
        assert all(torch.equal(now[key], backbone[name][key]) for key in floats)
    for name in trained:
        now = segmenter.backbone.get_submodule(name).state_dict()
        assert all(not torch.equal(now[key], backbone[name][key]) for key in now if "weight" in key)
    for name in ("key_value", "fusion"):
        now = segmenter.get_submodule(name).state_dict()
        assert all(not torch.equal(now[key], before[name][key]) for key in now if key.endswith("weight"))


def test_a_network_comes_nearer_to_its_teacher(tmp_path):
    teacher = tiny_backbone(5)
    images = torch.from_numpy(tiny_data().sequences[0].image(0).copy()).permute(2, 0, 1)[None]

    def apart(module):
        with torch.no_grad():
            said, taught = (n.eval().segment(images).log_softmax(1) for n in (module.backbone, teacher))
        return float((taught.exp() * (taught - said)).sum(1).mean())

    stage = replace(ONE_CYCLE, epochs=6)
    alone, _ = train(tmp_path / "alone", stage)
    taught, _ = train(tmp_path / "taught", replace(stage, distillation=5.0), teacher=teacher)
    assert apart(taught) < 0.7 * apart(alone)


def test_a_taught_training_is_resumed_with_the_same_teacher_alone(tmp_path):
    stage = replace(ONE_CYCLE, distillation=1.0)
    whole, _ = train(tmp_path / "whole", stage, teacher=tiny_backbone(5))
    with pytest.raises(Killed):
        train(tmp_path / "killed", stage, teacher=tiny_backbone(5), report=KillAt(5))
    with pytest.raises(InputError, match="teacher"):
        train(tmp_path / "killed", stage, teacher=tiny_backbone(6))
    resumed, _ = train(tmp_path / "killed", stage, teacher=tiny_backbone(5))
    assert_same_weights(resumed, whole)


@pytest.mark.parametrize(("weight", "teacher", "words"), [(1.0, None, "without"), (0.0, 5, "with")])
def test_distillation_and_teacher_go_together(tmp_path, weight, teacher, words):
    given = None if teacher is None else tiny_backbone(teacher)
    with pytest.raises(InputError, match=f"distillation {weight} {words} a teacher: give both"):
        train(tmp_path, replace(ONE_CYCLE, distillation=weight), teacher=given)
