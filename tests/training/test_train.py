import json
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

import lmanet
from contracts.tiny import CLASSES, tiny_data
from lmanet.backbones import ERFNet
from lmanet.errors import DataError, InputError
from lmanet.session import Session
from lmanet.training.augment import Augmentation
from lmanet.training.config import Stage
from lmanet.training.recipes import MemoryRecipe, SingleRecipe
from lmanet.training.train import train_memory, train_single, validate
from lmanet.zoo.files import read_config

STAGE = Stage(epochs=1, batch_size=2, lr=1e-3)
SINGLE = SingleRecipe(augmentation=Augmentation(crop=(32, 48)), stage=STAGE)
MEMORY = MemoryRecipe(
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


def backbone(num_classes=3):
    torch.manual_seed(0)
    return ERFNet(num_classes).eval()


def memory(folder, recipe=MEMORY, *, network=None, **arguments):
    if "accelerator" not in arguments:
        arguments["accelerator"] = accelerator()
    return train_memory(TRAIN, VAL, network or backbone(), recipe, folder, workers=0, **arguments)


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
        accelerator=accelerator(),
        seed=4,
        workers=0,
        report=lambda name, progress: reports.append(name),
    )
    network = lmanet.load(str(single))
    assert isinstance(network, ERFNet)
    assert network.classes == CLASSES
    assert network.card["data"] == "tiny/train"
    assert network.card["seed"] == 4
    assert network.card["val_miou"] == pytest.approx(validate(network, VAL, accelerator()), abs=1e-6)
    encoder = {name: value.clone() for name, value in network.encoder.state_dict().items()}

    path = memory(
        tmp_path / "video",
        network=network,
        report=lambda name, progress: reports.append(name),
    )
    assert list(dict.fromkeys(reports)) == [
        "reading train",
        "reading val",
        "step 0",
        "encoding",
        "step 1",
        "step 2",
    ]
    segmenter = lmanet.load(str(path))
    assert isinstance(segmenter, lmanet.VideoSegmenter)
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


def test_bfloat16_without_a_cache(tmp_path):
    # Accelerate keeps one precision per process for as long as its state lives.
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        half = Accelerator(cpu=True, mixed_precision="bf16")
        path = memory(tmp_path, replace(MEMORY, memories="real", pseudo=0), accelerator=half, use_cache=False)
        assert not list(tmp_path.glob("features-*"))
        for value in lmanet.load(str(path)).state_dict().values():
            assert torch.isfinite(value.float()).all()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


class Killed(BaseException):
    pass


def test_killed_in_step_2_and_called_again_gives_the_same_file(tmp_path):
    def kill(name, progress):
        if name == "step 2" and progress.step == 2:
            raise Killed

    whole = memory(tmp_path / "whole")
    with pytest.raises(Killed):
        memory(tmp_path / "killed", report=kill)
    assert not (tmp_path / "killed/lmanet.safetensors").exists()
    assert same_weights(memory(tmp_path / "killed"), whole)


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    memory(tmp_path)
    with pytest.raises(InputError, match="another recipe"):
        memory(tmp_path, replace(MEMORY, memories="current"))


def test_weights_of_another_number_of_classes_are_refused(tmp_path):
    message = "the network has 5 classes, the data 3: train a single-frame network"
    with pytest.raises(InputError, match=message):
        memory(tmp_path, network=backbone(5))
    with pytest.raises(InputError, match=message):
        train_single(TRAIN, VAL, SINGLE, tmp_path, accelerator=accelerator(), initial=backbone(5), workers=0)


def test_sequences_of_different_sizes_are_refused(tmp_path):
    other = tiny_data(sequences=2, frames=1, size=(32, 48)).sequences[1]
    mixed = replace(TRAIN, sequences=(TRAIN.sequences[0], other))
    with pytest.raises(DataError, match=r"sequences of different sizes.*bring them to one size"):
        train_memory(mixed, VAL, backbone(), MEMORY, tmp_path, accelerator=accelerator(), workers=0)
