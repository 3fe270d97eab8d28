"""Published checkpoints, made with their keys and shapes. What all kinds have in common is tested on ERFNet's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from contracts.checkpoints import (
    Tensors,
    erfnet_checkpoint,
    espnetv2_checkpoint,
    lmanet_erfnet_checkpoint,
    lmanet_pspnet_checkpoint,
    pspnet_checkpoint,
)
from contracts.espnetv2 import espnetv2_by_formula
from contracts.formulas import (
    erfnet_decoder_by_formula,
    erfnet_encoder_by_formula,
    lmanet_erfnet_by_formula,
    lmanet_pspnet_by_formula,
    pspnet_by_formula,
)
from lmanet import ERFNet, LMANet, SingleFrame
from lmanet.backbones import ESPNetv2, PSPNet
from lmanet.backbones.espnetv2 import WIDTHS
from lmanet.errors import WeightsError
from lmanet.zoo import load_official, load_official_erfnet


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "erfnet_pretrained.pth"


def without(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not key.startswith(start)}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "as PyTorch 0.3 wrote"])
def test_every_weight_is_taken(path, zipped):
    tensors = erfnet_checkpoint()
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
    torch.save(erfnet_checkpoint(), path)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = load_official_erfnet(path)(image)
    torch.save(VARIANTS[variant](erfnet_checkpoint()), path)
    assert torch.equal(load_official_erfnet(path)(image), expected)


def test_batch_counters_are_kept_where_there_are_any(path):
    torch.save(VARIANTS["with batch counters"](erfnet_checkpoint()), path)
    assert load_official_erfnet(path).encoder.initial_block.bn.num_batches_tracked == 9


@pytest.mark.parametrize("num_classes", [1, 12])
def test_number_of_classes_is_read_off(path, num_classes):
    torch.save(erfnet_checkpoint(num_classes), path)
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
    torch.save(change(erfnet_checkpoint()), path)
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
    torch.save(
        erfnet_checkpoint() | {"x": Unsafe(tmp_path / "run")}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(WeightsError, match="could run code and was not loaded"):
        load_official_erfnet(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", [0, 1e-5, 0.5, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file(path, zipped, share):
    torch.save(erfnet_checkpoint(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=f"{re.escape(path.name)} is damaged"):
        load_official_erfnet(path)


def test_other_files(path):
    with pytest.raises(WeightsError, match=r"is not a file: give the \.pth"):
        load_official_erfnet(path)
    path.write_text("<html>404: not found</html>")
    with pytest.raises(WeightsError, match="is not a checkpoint of PyTorch"):
        load_official_erfnet(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match="is not a checkpoint of PyTorch"):
        load_official_erfnet(path)


def bare(tensors: Tensors) -> Tensors:
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def assert_equal_to(logits: Tensor, expected: Tensor) -> None:
    """To 1e-5 of their range."""
    assert logits.shape == expected.shape
    assert (logits - expected).abs().max() < 1e-5 * (expected.max() - expected.min())


def draw(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_erfnet_is_its_formula(path):
    torch.save(erfnet_checkpoint(), path)
    official = load_official(path)
    assert isinstance(official.model, SingleFrame) and "ERFNet" in official.kind
    network = official.model.backbone
    assert isinstance(network, ERFNet)
    assert official.left_out == ("encoder.output_conv.weight", "encoder.output_conv.bias")
    images = draw(1, 3, 64, 96)
    state = bare(erfnet_checkpoint())
    expected = erfnet_decoder_by_formula(state, erfnet_encoder_by_formula(state, images))
    assert_equal_to(network(images), expected)


@pytest.mark.parametrize("layers", [50, 101])
@torch.no_grad()
def test_pspnet_is_its_formula(path, layers):
    tensors = pspnet_checkpoint(layers)
    torch.save({"epoch": 200, "state_dict": tensors, "optimizer": {"state": {}}}, path)
    official = load_official(path)
    assert isinstance(official.model, SingleFrame)
    network = official.model.backbone
    assert isinstance(network, PSPNet) and network.config == {"layers": layers}
    assert {key.split(".")[0] for key in official.left_out} == {"aux"} and len(official.left_out) == 8
    images = draw(1, 3, 65, 97)
    assert_equal_to(network(images), pspnet_by_formula(bare(tensors), images))


@torch.no_grad()
def test_pspnet_of_an_evaluation_s_state_without_the_auxiliary_head(path):
    torch.save(without(pspnet_checkpoint(50, 150), "module.aux"), path)
    official = load_official(path)
    assert isinstance(official.model, SingleFrame) and official.model.backbone.num_classes == 150
    assert official.left_out == ()


@pytest.mark.parametrize(("num_classes", "data"), [(20, "Cityscapes"), (21, "PASCAL VOC 2012")])
@torch.no_grad()
def test_espnetv2_is_its_formula(path, num_classes, data):
    tensors = espnetv2_checkpoint(num_classes)
    torch.save(tensors, path)
    official = load_official(path)
    network = official.model.backbone
    assert isinstance(official.model, SingleFrame) and isinstance(network, ESPNetv2)
    assert network.num_classes == num_classes and network.config == {"scale": 2.0} and not network.training
    assert official.left_out == tuple(f"base_net.level{n}_0.eesp.module_act.weight" for n in (2, 3, 4))
    assert official.card["data"] == data and "MIT" in official.card["licence"]
    images = draw(1, 3, 64, 96)
    assert_equal_to(network(images), espnetv2_by_formula(bare(tensors), images))


@pytest.mark.parametrize("scale", WIDTHS)
def test_espnetv2_s_scale_and_classes_are_read_off(path, scale):
    torch.save(espnetv2_checkpoint(5, WIDTHS[scale]), path)
    official = load_official(path)
    assert official.model.backbone.num_classes == 5 and official.model.backbone.config == {"scale": scale}
    assert "data" not in official.card


@torch.no_grad()
def test_lmanet_on_erfnet_is_its_formula(path):
    tensors = lmanet_erfnet_checkpoint()
    torch.save(tensors, path)
    model = load_official(path).model
    assert isinstance(model, LMANet) and not model.training
    assert (model.memory_size, model.window, model.border, model.fusion_name) == (4, 21, "zero", "gated")
    clip = draw(1, 7, 3, 64, 96)
    assert_equal_to(model(clip), lmanet_erfnet_by_formula(bare(tensors), clip[:, 2:], window=21))


@torch.no_grad()
def test_lmanet_on_pspnet_is_its_formula(path):
    tensors = lmanet_pspnet_checkpoint()
    torch.save(tensors, path)
    official = load_official(path)
    model = official.model
    assert isinstance(model, LMANet) and model.backbone.config == {"layers": 101}
    assert (model.memory_size, model.window, model.border, model.fusion_name) == (3, 21, "zero", "bottleneck")
    assert official.left_out == ("memory_fusion.conv_layer_2.weight", "memory_fusion.conv_layer_2.bias")
    clip = draw(1, 5, 3, 33, 49)
    expected = lmanet_pspnet_by_formula(bare(tensors), clip[:, 1:], window=21)
    assert_equal_to(model(clip), expected)
    state = None
    for image in clip.unbind(1):
        logits, state = model.step(image, state)
    assert_equal_to(logits, expected)
    with pytest.raises(AssertionError):
        assert_equal_to(model.adjusted(border="mask")(clip), expected)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda: {}, "it holds no weights"),
        (lambda: {"conv1.weight": torch.ones(3)}, "it holds 1 weights, the first 'conv1.weight'"),
        (lambda: pspnet_checkpoint(152), "it holds 'layer2.4.conv1.weight', which PSPNet has not"),
        (lambda: without(pspnet_checkpoint(50), "module.cls"), "it lacks 'cls.0.weight'"),
        (
            lambda: without(espnetv2_checkpoint(), "module.bu_br_l3.1"),
            "it lacks 'bu_br_l3.1.weight', the first key of ESPNetv2",
        ),
        (
            lambda: without(espnetv2_checkpoint(), "module.bu_dec_l4.merge_layer.3"),
            "it lacks 'bu_dec_l4.merge_layer.3.weight'",
        ),
        (
            lambda: espnetv2_checkpoint() | {"module.base_net.level5_0.act.weight": torch.ones(1024)},
            "it holds 'base_net.level5_0.act.weight', which ESPNetv2 has not",
        ),
        (
            lambda: (
                espnetv2_checkpoint() | {"module.bu_dec_l1.merge_layer.3.weight": torch.ones(128, 10, 1, 1)}
            ),
            "'bu_dec_l1.merge_layer.3.weight' is (128, 10, 1, 1)",
        ),
        (
            lambda: without(lmanet_erfnet_checkpoint(), "module.kv_Q_r4.Value"),
            "it lacks 'key_value.query_value.weight'",
        ),
        (
            lambda: lmanet_erfnet_checkpoint() | {"module.memory_module_local.const": torch.zeros(1)},
            "it holds 'memory_module_local.const', which LMANet has not",
        ),
    ],
    ids=[
        "empty",
        "another",
        "PSPNet-152",
        "headless",
        "ESPNetv2 without an activation",
        "headless ESPNetv2",
        "ESPNetv2 for ImageNet",
        "ESPNetv2 for COCO",
        "without values",
        "with a learnt constant",
    ],
)
def test_what_is_not_recognised_names_the_key(path, tensors, message):
    torch.save(tensors(), path)
    with pytest.raises(WeightsError, match=re.escape(message)) as caught:
        load_official(path)
    assert str(path) in str(caught.value)
