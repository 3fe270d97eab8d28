import csv
import json
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import lmanet
from contracts.networks import TinyBackbone, seeded
from contracts.tiny import CLASSES, tiny_backbone, tiny_data
from lmanet.backbones import ERFNet
from lmanet.classes import VOID
from lmanet.errors import DataError, InputError, OutputError, WeightsError
from lmanet.methods import METHODS, register
from lmanet.session import Session
from lmanet.training.augment import Augmentation
from lmanet.training.checkpoint import copy_weights, remove_resumable
from lmanet.training.config import Stage
from lmanet.training.method import train_method
from lmanet.training.options import RunOptions
from lmanet.training.recipes import LabelMemoryRecipe, LMANetRecipe, MethodRecipe, SingleRecipe
from lmanet.training.single import train_single
from lmanet.training.steps import steps_of
from lmanet.training.train import train
from lmanet.training.validation import validate
from lmanet.zoo import register_backbone
from lmanet.zoo.architectures import BACKBONES
from lmanet.zoo.files import read_config

STAGE = Stage(epochs=1, batch_size=2, lr=1e-3)
SINGLE = SingleRecipe(augmentation=Augmentation(crop=(32, 48)), stage=STAGE)
TINY = replace(SINGLE, network="tiny")
MEMORY = LMANetRecipe(
    key_channels=4,
    value_channels=8,
    memory_size=2,
    window=3,
    draws=2,
    pseudo=2,
    module=STAGE,
    joint=replace(STAGE, ema=0.9),
)
TRAIN, VAL = tiny_data(frames=2), replace(tiny_data(sequences=1, frames=2, seed=9), name="tiny/val")


def accelerator():
    return Accelerator(cpu=True, mixed_precision="no")


class OwnBackbone(TinyBackbone):
    """A small network of its own name, so that others of the class stay unknown."""


@pytest.fixture(scope="module", autouse=True)
def tiny_architecture():
    register_backbone("tiny", OwnBackbone)
    yield
    del BACKBONES["tiny"]


def backbone(num_classes=3):
    with seeded():
        return OwnBackbone(num_classes).eval()


class Fading(lmanet.TrainableVideoModel):
    """A method of the user's own: the past's features, weighed, are added to the present's."""

    class State(NamedTuple):
        fused: torch.Tensor

    method = "test-fading"
    adjustable = ("gain",)

    def __init__(self, backbone, *, width=1, gain=1.0):
        super().__init__(backbone)
        self.width, self.gain = width, gain
        self.weigh = nn.Conv2d(backbone.channels, backbone.channels, width, padding=width // 2)

    @property
    def arguments(self):
        return {"width": self.width, "gain": self.gain}

    def step(self, images, state=None):
        features, size = self.backbone.encode_any_size(images)
        past = features.fused if state is None else state.fused
        return self.from_observed(features, past[:, None], size), self.State(features.fused)

    def observe(self, images):
        return self.backbone.encode_any_size(images)[0]

    def observed_parts(self):
        return self.backbone.encoder_parts()

    def from_observed(self, frame, memory, size):
        past = frame.fused if memory is None else memory[:, -1]
        fused = frame.fused + self.gain * self.weigh(past)
        return self.backbone.decode_to_size(frame.with_fused(fused), size)


@pytest.fixture
def fading():
    yield register(Fading)
    del METHODS[Fading.method]


def options(**given):
    return RunOptions(accelerator(), **{"workers": 0, **given})


def memory(folder, recipe=MEMORY, *, network=None, run=None, **arguments):
    run = run or options()
    return train_method(TRAIN, VAL, network or backbone(), recipe, folder, options=run, **arguments).path


def same_weights(one, other):
    one, other = lmanet.load(str(one)).state_dict(), lmanet.load(str(other)).state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_from_data_to_weights_files(tmp_path):
    reports = []
    single = train_single(
        TRAIN,
        VAL,
        SINGLE,
        tmp_path / "single",
        options=options(seed=4, report=lambda phase, progress: reports.append(phase)),
    ).path
    model = lmanet.load(str(single))
    network = model.backbone
    assert isinstance(network, ERFNet) and model.method == "single-frame"
    assert network.classes == CLASSES
    assert network.card["data"] == "tiny/train"
    assert network.card["seed"] == 4
    assert network.card["val_miou"] == pytest.approx(validate(model, VAL, accelerator()), abs=1e-6)
    encoder = {name: value.clone() for name, value in network.encoder.state_dict().items()}

    path = memory(
        tmp_path / "video",
        network=network,
        run=options(report=lambda phase, progress: reports.append(phase)),
    )
    assert [(phase.kind, phase.name) for phase in dict.fromkeys(reports)] == [
        ("reading", "reading train"),
        ("reading", "reading val"),
        ("training", "step 0"),
        ("encoding", "encoding"),
        ("training", "step 1"),
        ("training", "step 2"),
    ]
    segmenter = lmanet.load(str(path))
    assert isinstance(segmenter, lmanet.LMANet)
    assert (segmenter.memory_size, segmenter.window, segmenter.key_channels) == (2, 3, 4)
    for name, value in segmenter.backbone.encoder.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, encoder[name])
    config = read_config(path)
    assert config["single_frame"] == "single-frame.safetensors"
    assert config["card"]["control"] is False
    assert config["card"]["recipe"]["joint"]["epochs"] == 1
    assert config["card"]["val_miou"] == pytest.approx(validate(segmenter, VAL, accelerator()), abs=1e-6)
    json.dumps(config)
    session = Session(segmenter)
    for i in range(2):
        assert session.step(VAL.sequences[0].image(i)).labels.shape == (48, 64)


def test_control_says_so_in_its_card_and_is_validated_without_a_past(tmp_path):
    path = memory(tmp_path, replace(MEMORY, memories="current"))
    segmenter = lmanet.load(str(path))
    assert segmenter.card["control"] is True
    forgetting = validate(segmenter, VAL, accelerator(), forget=True)
    assert segmenter.card["val_miou"] == pytest.approx(forgetting, abs=1e-6)


def test_without_validation_data_the_last_epoch_is_kept_and_the_card_says_so(tmp_path):
    recipe = replace(MEMORY, joint=replace(STAGE, epochs=2))
    path = train_method(TRAIN, None, backbone(), recipe, tmp_path / "not", options=options()).path
    card = read_config(path)["card"]
    assert (card["val"], card["val_miou"], card["step"], card["epoch"]) == (None, None, 2, 2)
    assert not (tmp_path / "not/frames/val").exists()
    last = torch.load(tmp_path / "not/step2/last.pt", weights_only=True)["module"]
    kept = lmanet.load(str(path)).state_dict()
    assert all(torch.equal(kept[name.removeprefix("model.")], value) for name, value in last.items())

    single = train_single(TRAIN, None, TINY, tmp_path / "single", options=options()).path
    card = read_config(single)["card"]
    assert (card["val"], card["val_miou"], card["epoch"]) == (None, None, 1)


def test_bfloat16_without_a_cache(tmp_path):
    # Accelerate keeps one precision per process for as long as its state lives.
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        half = Accelerator(cpu=True, mixed_precision="bf16")
        path = memory(
            tmp_path,
            replace(MEMORY, memories="real", pseudo=0),
            run=RunOptions(half, workers=0),
            use_cache=False,
        )
        assert not list(tmp_path.glob("features-*"))
        for value in lmanet.load(str(path)).state_dict().values():
            assert torch.isfinite(value.float()).all()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_fast_convolutions_are_trained_saved_and_started_from(tmp_path):
    recipe = replace(MEMORY, convolutions="fast")
    first = memory(tmp_path / "first", recipe)
    assert read_config(first)["method"]["arguments"]["convolutions"] == "fast"
    trained = lmanet.load(str(first))
    assert trained.convolutions == "fast" and trained.fusion.gate.kernel_size == (1, 1)
    again = lmanet.load(str(memory(tmp_path / "again", recipe, initial=trained)))
    # Its weights were started from: only trained on, the second time from where the first stopped.
    assert not torch.equal(again.fusion.gate.weight, trained.fusion.gate.weight)
    torch.testing.assert_close(again.fusion.gate.weight, trained.fusion.gate.weight, rtol=0, atol=0.02)


def test_a_folder_of_another_network_is_refused(tmp_path):
    memory(tmp_path)
    single, video = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("single-frame", "lmanet"))
    other = backbone()
    with torch.no_grad():
        other.head.bias += 1
    with pytest.raises(
        InputError, match=r"step1.last\.pt was made with another starting point.*delete .*step1"
    ):
        memory(tmp_path, network=other)
    assert (tmp_path / "single-frame.safetensors").read_bytes() == single
    assert (tmp_path / "lmanet.safetensors").read_bytes() == video


class Killed(BaseException):
    pass


def test_killed_in_step_2_and_called_again_gives_the_same_file(tmp_path):
    def kill(phase, progress):
        if phase.name == "step 2" and progress.step == 2:
            raise Killed

    whole = memory(tmp_path / "whole")
    with pytest.raises(Killed):
        memory(tmp_path / "killed", run=options(report=kill))
    assert not (tmp_path / "killed/lmanet.safetensors").exists()
    assert same_weights(memory(tmp_path / "killed"), whole)


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    memory(tmp_path)
    with pytest.raises(InputError, match="another recipe"):
        memory(tmp_path, replace(MEMORY, memories="current"))


def test_a_step_without_epochs_is_left_out(tmp_path):
    model = lmanet.load(str(memory(tmp_path, replace(MEMORY, joint=replace(MEMORY.joint, epochs=0)))))
    assert model.card["step"] == 1 and not (tmp_path / "step2").exists()


def test_a_training_without_a_step_is_refused(tmp_path):
    none = replace(MEMORY.module, epochs=0)
    with pytest.raises(InputError, match="neither step 1 nor step 2 has an epoch"):
        memory(tmp_path / "out", replace(MEMORY, module=none, joint=none))
    assert not (tmp_path / "out").exists()
    single = replace(SINGLE, stage=replace(SINGLE.stage, epochs=0))
    with pytest.raises(InputError, match="epochs 0: expected at least 1"):
        train_single(TRAIN, VAL, single, tmp_path, options=options())


def started(folder, network, kind):
    """A training that must be refused before any work: whatever it says, it leaves no folder."""
    folder = folder / "out"
    try:
        if kind == "memory":
            memory(folder, network=network)
        else:
            train_single(TRAIN, VAL, SINGLE, folder, options=options(), initial=network)
    finally:
        assert not folder.exists()


@pytest.mark.parametrize("kind", ["memory", "single"])
def test_weights_of_other_classes_are_refused(tmp_path, kind):
    with pytest.raises(
        InputError, match=r"the network has 5 classes, tiny/train 3: give a network.*3 outputs.*step 0"
    ):
        started(tmp_path, backbone(5), kind)
    network = backbone()
    network.classes = replace(CLASSES, names=("sky", "street", "vehicle"))
    with pytest.raises(
        InputError, match="class 1 is 'street' in the network, 'road' in tiny/train: give a network"
    ):
        started(tmp_path, network, kind)


def test_another_architecture_to_start_from_is_refused(tmp_path):
    with pytest.raises(InputError, match="are of a 'tiny', the recipe trains a 'erfnet'"):
        started(tmp_path, backbone(), "single")


def test_a_network_that_could_not_be_saved_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"a TinyBackbone cannot be saved.*register_backbone"):
        started(tmp_path, tiny_backbone(), "memory")


def test_validation_data_of_other_classes_are_refused(tmp_path):
    val = replace(VAL, classes=replace(CLASSES, names=("sky", "road", "van")))
    for run in (
        lambda: train_method(TRAIN, val, backbone(), MEMORY, tmp_path / "a", options=options()),
        lambda: train_single(TRAIN, val, SINGLE, tmp_path / "b", options=options()),
    ):
        with pytest.raises(InputError, match="class 2 is 'van' in tiny/val, 'car' in tiny/train"):
            run()
    assert list(tmp_path.iterdir()) == []


def test_validation_data_without_labels_are_refused(tmp_path):
    val = tiny_data(sequences=1, frames=2)
    for label in val.sequences[0].labels:
        label[:] = VOID
    with pytest.raises(DataError, match="has no labelled pixel"):
        train_method(TRAIN, val, backbone(), MEMORY, tmp_path, options=options())


def test_a_crop_is_refused_for_a_memory(tmp_path):
    recipe = replace(MEMORY, augmentation=Augmentation(crop=(32, 48)))
    with pytest.raises(InputError, match=r"augmentation\.crop \(32, 48\).*whole frames.*leave crop out"):
        memory(tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_channels": 5}, "key_channels 5, this training 4"),
        ({"value_channels": 9}, "value_channels 9, this training 8"),
        ({"fusion": "concat", "value_channels": 6}, "value_channels 6, this training 8"),
        ({"convolutions": "fast"}, "convolutions fast, this training paper"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(tmp_path, options, message):
    options = {"key_channels": 4, "value_channels": 8, **options}
    with pytest.raises(InputError, match=message):
        memory(tmp_path / "out", initial=lmanet.LMANet(backbone(), **options))
    with pytest.raises(InputError, match="channels of the network 128, this training 12"):
        wide = lmanet.LMANet(ERFNet(3), key_channels=4, value_channels=8)
        memory(tmp_path / "out", initial=wide)
    with pytest.raises(InputError, match="method label-memory, this training lmanet"):
        memory(tmp_path / "out", initial=lmanet.LabelMemory(backbone()))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["folder", "cache"])
def test_a_folder_that_cannot_be_written_to_is_told_before_any_work(tmp_path, place):
    (tmp_path / "file").touch()
    arguments = {"cache_folder": tmp_path / "file/cache"} if place == "cache" else {}
    folder = tmp_path / ("file/out" if place == "folder" else "out")
    reports = []
    with pytest.raises(OutputError, match="cannot be written"):
        memory(folder, run=options(report=lambda *told: reports.append(told)), **arguments)
    assert reports == []


def logs(folder):
    """(step, epoch, mIoU in percent) of every validation."""
    found = []
    for step in (1, 2):
        with (folder / f"step{step}/log.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["val_miou_percent"]]
        found += [(step, int(row["epoch"]), float(row["val_miou_percent"])) for row in rows]
    return found


@pytest.mark.parametrize(
    ("module_lr", "joint_lr", "better"), [(1e-3, 3.0, 1), (1e-5, 1e-2, 2)], ids=["step 1", "step 2"]
)
def test_the_better_step_is_kept_and_a_network_of_the_users_own_is_trained(
    tmp_path, module_lr, joint_lr, better
):
    stage = Stage(epochs=2, batch_size=2, lr=1e-2, validate_every=1)
    single = train_single(
        TRAIN,
        VAL,
        replace(TINY, stage=replace(stage, epochs=15)),
        tmp_path,
        options=options(),
    ).path
    network = lmanet.load(str(single)).backbone
    assert isinstance(network, OwnBackbone)
    assert network.card["step"] == 0
    before = copy_weights(network)
    module, joint = replace(stage, lr=module_lr), replace(stage, lr=joint_lr, epochs=3)
    recipe = replace(MEMORY, module=module, joint=joint)
    path = memory(tmp_path, recipe, network=network)
    step, epoch, miou = max(logs(tmp_path), key=lambda row: row[2])
    segmenter = lmanet.load(str(path))
    assert isinstance(segmenter, lmanet.LMANet)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert step == better
    assert (segmenter.card["step"], segmenter.card["epoch"]) == (step, epoch)
    assert 100 * segmenter.card["val_miou"] == pytest.approx(miou, abs=0.01)
    assert segmenter.card["val_miou"] == pytest.approx(validate(segmenter, VAL, accelerator()), abs=1e-6)


def test_sequences_of_different_sizes_are_refused(tmp_path):
    other = tiny_data(sequences=2, frames=1, size=(32, 48)).sequences[1]
    mixed = replace(TRAIN, sequences=(TRAIN.sequences[0], other))
    with pytest.raises(DataError, match=r"sequences of different sizes.*bring them to one size"):
        train_method(mixed, VAL, backbone(), MEMORY, tmp_path, options=options())


def test_what_the_time_went_into_and_what_only_resuming_needs(tmp_path):
    def again():
        return train_method(TRAIN, VAL, backbone(), MEMORY, tmp_path, options=options()).timings

    first, second = again(), again()
    assert (first.encoded, second.encoded) == (4, 0) and first.encoding_s > second.encoding_s == 0
    assert set(first.steps_s) == {1, 2} and min(first.steps_s.values()) > 0
    assert second.steps_s == first.steps_s, "of what was trained before"
    kept = {"lmanet.safetensors", "single-frame.safetensors"}
    assert {"step1", "step2", "frames"} < {path.name for path in tmp_path.iterdir()} - kept
    remove_resumable(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_method_of_the_users_own_is_trained_saved_and_started_from(tmp_path, fading):
    recipe = MethodRecipe(
        method=fading.method, arguments={"width": 3}, memory_size=1, draws=1, module=STAGE, joint=STAGE
    )

    def run(folder, **arguments):
        folder = tmp_path / folder
        return train(recipe, TRAIN, VAL, folder, options=options(), network=backbone(), **arguments).path

    path = run("first")
    assert path.name == "test-fading.safetensors"
    model = lmanet.load(str(path))
    assert isinstance(model, Fading) and model.arguments == {"width": 3, "gain": 1.0}
    assert model.card["val_miou"] == pytest.approx(validate(model, VAL, accelerator()), abs=1e-6)
    with pytest.raises(InputError, match="has width 1, this training 3"):
        run("no", initial=Fading(backbone(), width=1))
    run("again", initial=model.adjusted(gain=0.5))  # what may be changed without training may differ


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (MethodRecipe(method="training-free"), "training-free has nothing to train.*label-memory, lmanet"),
        (MethodRecipe(method="nothing"), "no method named 'nothing': there are"),
        (MethodRecipe(method="lmanet", arguments={"depth": 3}), "arguments {'depth': 3}: .*'depth'"),
    ],
)
def test_a_method_that_cannot_be_trained_is_refused(tmp_path, recipe, message):
    with pytest.raises(InputError, match=message):
        memory(tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


def test_a_method_without_a_network_is_refused(tmp_path):
    with pytest.raises(InputError, match="put on a trained network: give --weights"):
        train(MEMORY, TRAIN, VAL, tmp_path / "out", options=options())
    with pytest.raises(InputError, match="it is a memory that learns without labels"):
        train(SINGLE, TRAIN, None, tmp_path / "out", options=options(), unlabelled=0.5)
    assert not (tmp_path / "out").exists()


def test_which_steps_are_run():
    assert list(steps_of(LMANetRecipe())) == list(steps_of(LMANetRecipe(memories="current"))) == [1, 2]
    assert list(steps_of(LabelMemoryRecipe())) == [1]
