"""The published ERFNet checkpoint, made here with its keys and shapes: PyTorch 0.3 knew no batch counter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lmanet.errors import WeightsError
from lmanet.zoo import load_official_erfnet


def official(num_classes: int = 20) -> dict[str, Tensor]:
    """Random weights under the published keys, in the published order."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}

    def conv(name: str, *shape: int, bias: int) -> None:
        tensors[f"module.{name}.weight"] = torch.randn(shape, generator=generator) * 0.1
        tensors[f"module.{name}.bias"] = torch.randn(bias, generator=generator) * 0.1

    def norm(name: str, channels: int) -> None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"module.{name}.{key}"] = torch.rand(channels, generator=generator) + 0.5

    def down(name: str, inputs: int, outputs: int) -> None:
        conv(f"{name}.conv", outputs - inputs, inputs, 3, 3, bias=outputs - inputs)
        norm(f"{name}.bn", outputs)

    def block(name: str, channels: int) -> None:
        for pair in (1, 2):
            conv(f"{name}.conv3x1_{pair}", channels, channels, 3, 1, bias=channels)
            conv(f"{name}.conv1x3_{pair}", channels, channels, 1, 3, bias=channels)
            norm(f"{name}.bn{pair}", channels)

    def up(name: str, inputs: int, outputs: int) -> None:
        conv(f"{name}.conv", inputs, outputs, 3, 3, bias=outputs)
        norm(f"{name}.bn", outputs)

    down("encoder.initial_block", 3, 16)
    down("encoder.layers.0", 16, 64)
    for i in range(1, 6):
        block(f"encoder.layers.{i}", 64)
    down("encoder.layers.6", 64, 128)
    for i in range(7, 15):
        block(f"encoder.layers.{i}", 128)
    conv("encoder.output_conv", num_classes, 128, 1, 1, bias=num_classes)
    up("decoder.layers.0", 128, 64)
    block("decoder.layers.1", 64)
    block("decoder.layers.2", 64)
    up("decoder.layers.3", 64, 16)
    block("decoder.layers.4", 16)
    block("decoder.layers.5", 16)
    conv("decoder.output_conv", 16, num_classes, 2, 2, bias=num_classes)
    return tensors


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "erfnet_pretrained.pth"


def without(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not key.startswith(start)}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "as PyTorch 0.3 wrote"])
def test_every_weight_is_taken(path, zipped):
    tensors = official()
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    network = load_official_erfnet(path)
    assert network.num_classes == 20 and not network.training
    state = network.state_dict()
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    expected = {key.removeprefix("module."): value for key, value in tensors.items()}
    assert set(expected) - set(state) == {"encoder.output_conv.weight", "encoder.output_conv.bias"}
    assert set(state) - set(expected) == counters and len(counters) == 39
    for key in set(state) - counters:
        assert torch.equal(state[key], expected[key]), key
    assert network(torch.rand(1, 3, 16, 16)).shape == (1, 20, 16, 16)


VARIANTS = {
    "within a training checkpoint": lambda t: {
        "epoch": 150,
        "arch": "erfnet",
        "state_dict": t,
        "best_acc": 0.7,
    },
    "without the encoder's classifier": lambda t: without(t, "module.encoder.output_conv"),
    "with batch counters": lambda t: (
        t
        | {
            key.replace("running_mean", "num_batches_tracked"): torch.tensor(9)
            for key in t
            if key.endswith("running_mean")
        }
    ),
    "without the prefix": lambda t: {key.removeprefix("module."): value for key, value in t.items()},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_the_file(path, variant):
    torch.save(official(), path)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = load_official_erfnet(path)(image)
    torch.save(VARIANTS[variant](official()), path)
    assert torch.equal(load_official_erfnet(path)(image), expected)


def test_batch_counters_are_kept_where_there_are_any(path):
    torch.save(VARIANTS["with batch counters"](official()), path)
    assert load_official_erfnet(path).encoder.initial_block.bn.num_batches_tracked == 9


@pytest.mark.parametrize("num_classes", [1, 12])
def test_number_of_classes_is_read_off(path, num_classes):
    torch.save(official(num_classes), path)
    assert load_official_erfnet(path).num_classes == num_classes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: without(t, "module.encoder.layers.7.bn1.bias"), "lacks 'encoder.layers.7.bn1.bias'"),
        (lambda t: without(t, "module.decoder.output_conv"), "lacks 'decoder.output_conv.weight'"),
        (lambda t: without(t, "module.decoder"), "lacks 'decoder.layers.0.conv.weight'"),
        (
            lambda t: t | {"module.encoder.layers.15.conv.weight": torch.ones(1)},
            "holds 'encoder.layers.15.conv.w",
        ),
        (
            lambda t: t | {"module.encoder.layers.2.bn2.weight": torch.ones(32)},
            r"bn2.weight' is \(32,\).*\(64,\)",
        ),
        (
            lambda t: t | {"module.decoder.output_conv.weight": torch.ones(3)},
            r"output_conv.weight' is \(3,\)",
        ),
        (lambda t: t | {"module.decoder.output_conv.bias": torch.ones(19)}, r"bias' is \(19,\).*\(20,\)"),
        (lambda t: {"conv1.weight": torch.ones(3)}, "lacks 'encoder.initial_block.conv.weight'"),
        (lambda t: {}, "lacks 'encoder.initial_block.conv.weight'"),
    ],
)
def test_another_architecture_names_the_first_key(path, change, message):
    torch.save(change(official()), path)
    with pytest.raises(WeightsError, match=f"belongs to another architecture.*{message}"):
        load_official_erfnet(path)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {"weight": "text"}, {3: torch.ones(1)}])
def test_no_state_dict(path, content):
    torch.save(content, path)
    with pytest.raises(WeightsError, match=f"holds a {type(content).__name__} that is no state dict"):
        load_official_erfnet(path)


class Unsafe:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_the_file_is_not_run(path, tmp_path, zipped):
    torch.save(official() | {"x": Unsafe(tmp_path / "run")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="could run code and was not loaded"):
        load_official_erfnet(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", [0, 1e-5, 0.5, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file(path, zipped, share):
    torch.save(official(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=f"{re.escape(path.name)} is damaged"):
        load_official_erfnet(path)


def test_other_files(path):
    with pytest.raises(WeightsError, match=r"is not a file: give the \.pth"):
        load_official_erfnet(path)
    path.write_text("<html>404: not found</html>")
    with pytest.raises(WeightsError, match="is damaged"):
        load_official_erfnet(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match="is damaged"):
        load_official_erfnet(path)
