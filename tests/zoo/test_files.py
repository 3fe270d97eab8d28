from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from contracts.disk import files_no_larger_than
from contracts.networks import TinyBackbone, lively, seeded
from lmanet import ERFNet, LabelMemory, LMANet
from lmanet.classes import Classes
from lmanet.errors import OutputError, WeightsError
from lmanet.zoo import load_model, register_backbone, save_model
from lmanet.zoo.architectures import BACKBONES
from lmanet.zoo.files import load_strictly, read_config

CLASSES = Classes(("road", "sky", "naïve 車"), ((128, 64, 128), (0, 0, 255), (1, 2, 3)))
CARD = {"data": "none", "figures": {"mIoU": 61.5}, "limits": ["a test"]}


@pytest.fixture
def backbone() -> Iterator[ERFNet]:
    with seeded():
        yield lively(ERFNet(3)).eval()


@pytest.fixture
def segmenter(backbone) -> LMANet:
    model = LMANet(
        backbone,
        key_channels=4,
        value_channels=64,
        memory_size=3,
        window=5,
        fusion="concat",
        convolutions="fast",
        border="zero",
    )
    return lively(model).eval()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.safetensors"


@torch.no_grad()
def run(model: torch.nn.Module) -> torch.Tensor:
    """Logits of the last frame of a fixed clip, or of a fixed frame."""
    clip = torch.rand(1, 4, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    return model(clip if isinstance(model, LMANet) else clip[:, -1])


@pytest.mark.parametrize("kind", ["backbone", "segmenter"])
def test_a_model_comes_back_as_it_was(request, path, kind):
    model = request.getfixturevalue(kind)
    save_model(model, path, classes=CLASSES, card=CARD)
    loaded = load_model(path)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert torch.equal(run(loaded), run(model))
    assert loaded.classes == CLASSES
    assert loaded.card == CARD
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_options_come_back(segmenter, path):
    segmenter.memory_size, segmenter.window = 7, 9
    save_model(segmenter, str(path), classes=CLASSES)
    loaded = load_model(path)
    names = (
        "key_channels",
        "value_channels",
        "memory_size",
        "window",
        "fusion_name",
        "convolutions",
        "border",
    )
    for name in names:
        assert getattr(loaded, name) == getattr(segmenter, name), name
    assert loaded.backbone.num_classes == 3
    assert loaded.card == {}


def test_half_is_close_and_half_the_size(segmenter, path):
    save_model(segmenter, path, classes=CLASSES)
    whole = path.stat().st_size
    save_model(segmenter, path, classes=CLASSES, half=True)
    assert path.stat().st_size < 0.55 * whole
    loaded = load_model(path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    expected = run(segmenter)
    assert (run(loaded) - expected).norm() < 0.003 * expected.norm()
    for name, stored in load_file(path).items():
        exact = segmenter.state_dict()[name]
        if exact.ndim > 1:
            assert stored.dtype == torch.float16, name
        else:
            assert torch.equal(stored, exact), name


def test_configuration_is_in_the_header(segmenter, path):
    save_model(segmenter, path, classes=CLASSES, card=CARD, single_frame="erfnet-x")
    assert read_config(path) == {
        "format": 1,
        "backbone": {"name": "erfnet", "num_classes": 3},
        "classes": {"names": list(CLASSES.names), "palette": [list(c) for c in CLASSES.palette]},
        "card": CARD,
        "video": {
            "values": "features",
            "key_channels": 4,
            "value_channels": 64,
            "memory_size": 3,
            "window": 5,
            "fusion": "concat",
            "convolutions": "fast",
            "border": "zero",
        },
        "single_frame": "erfnet-x",
    }


def test_saving_again_replaces_the_file(backbone, path):
    save_model(backbone, path, classes=CLASSES, card={"n": 1})
    with torch.no_grad():
        backbone.decoder.output_conv.bias += 1
    save_model(backbone, path, classes=CLASSES, card={"n": 2})
    loaded = load_model(path)
    assert loaded.card == {"n": 2}
    assert torch.equal(run(loaded), run(backbone))


def test_network_that_could_not_be_built_again_is_not_saved(path):
    with pytest.raises(
        WeightsError, match=r"a TinyBackbone cannot be saved.*register_backbone\(NAME, TinyBackbone\)"
    ):
        save_model(TinyBackbone(), path, classes=CLASSES)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["backbone", "segmenter"])
def test_optimised_copy_is_not_saved(request, path, kind):
    with pytest.raises(
        WeightsError, match=r"copy for inference.*save the model that optimize\(\) was called on"
    ):
        save_model(request.getfixturevalue(kind).optimize(), path, classes=CLASSES)
    assert not path.exists()


def test_files_of_before_there_were_fast_convolutions_have_the_papers(backbone, path):
    model = lively(LMANet(backbone, key_channels=4, value_channels=8)).eval()
    save_model(model, path, classes=CLASSES)
    config = read_config(path)
    assert config["video"].pop("convolutions") == "paper"
    save_file(load_file(path), path, {"lmanet": json.dumps(config)})
    loaded = load_model(path)
    assert loaded.convolutions == "paper"
    assert torch.equal(run(loaded), run(model))


def test_label_memories_of_before_there_was_a_persistence_hold_on_as_they_did(backbone, path):
    model = lively(LabelMemory(backbone, persistence=1.0)).eval()
    save_model(model, path, classes=CLASSES)
    config = read_config(path)
    assert config["video"].pop("persistence") == 1.0
    save_file(load_file(path), path, {"lmanet": json.dumps(config)})
    assert load_model(path).persistence == 1.0


def test_missing_file(path):
    with pytest.raises(WeightsError, match=rf"{re.escape(str(path))} is not a file"):
        load_model(path)
    with pytest.raises(WeightsError, match="is not a file"):
        load_model(path.parent)


@pytest.mark.parametrize("share", [0, 1e-6, 1e-4, 0.5, 0.9999])
def test_truncated_file(backbone, path, share):
    save_model(backbone, path, classes=CLASSES)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match="is not a whole safetensors file"):
        load_model(path)


def test_text_file(path):
    path.write_text("<html>404: not found</html>")
    with pytest.raises(WeightsError, match="is not a whole safetensors file"):
        load_model(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_weights_of_others(path, metadata):
    save_file({"weight": torch.ones(2)}, path, metadata=metadata)
    with pytest.raises(WeightsError, match="no lmanet configuration in its header"):
        load_model(path)


def altered(path: Path, **changes: object) -> None:
    """Change entries of the configuration in the header."""
    config = read_config(path) | changes
    save_file(load_file(path), path, metadata={"lmanet": json.dumps(config)})


def test_newer_format(backbone, path):
    save_model(backbone, path, classes=CLASSES)
    altered(path, format=2)
    with pytest.raises(WeightsError, match="has format 2, this lmanet reads format 1: upgrade"):
        load_model(path)


def test_unknown_backbone(backbone, path):
    save_model(backbone, path, classes=CLASSES)
    altered(path, backbone={"name": "fastscnn", "num_classes": 3})
    with pytest.raises(
        WeightsError,
        match=r"has backbone 'fastscnn', this program knows erfnet, .*register_backbone\('fastscnn', CLASS\)",
    ):
        load_model(path)


def test_weights_that_belie_the_configuration(segmenter, path):
    save_model(segmenter, path, classes=CLASSES)
    altered(path, backbone={"name": "erfnet", "num_classes": 4})
    message = (
        r"another architecture: 'backbone.decoder.output_conv.weight' is \(16, 3, 2, 2\).*\(16, 4, 2, 2\)"
    )
    with pytest.raises(WeightsError, match=message):
        load_model(path)


def test_another_architecture_names_the_first_key():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    before = {name: x.clone() for name, x in model.state_dict().items()}
    fitting = {name: torch.ones_like(x) for name, x in before.items()}
    path = Path("x.safetensors")
    for tensors, message in [
        ({k: v for k, v in fitting.items() if k[0] != "1"}, "lacks '1.weight', the first key of Sequential"),
        (fitting | {"0.bias": torch.ones(4)}, r"'0.bias' is \(4,\), Sequential has \(3,\)"),
        (fitting | {"2.weight": torch.ones(4)}, "holds '2.weight', which Sequential has not"),
    ]:
        with pytest.raises(WeightsError, match=f"x.safetensors belongs to another architecture.*{message}"):
            load_strictly(model, tensors, path)
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    load_strictly(model, fitting, path)
    assert all((x == 1).all() for x in model.state_dict().values())


def test_other_tools_can_read_the_file(segmenter, path):
    save_model(segmenter, path, classes=CLASSES)
    with safe_open(path, "np") as file:
        assert set(file.keys()) == set(segmenter.state_dict())


def test_a_full_disk_leaves_what_was_there(backbone, path):
    save_model(backbone, path, classes=CLASSES, card={"n": 1})
    with pytest.raises(OutputError, match="free some space"), files_no_larger_than(10_000):
        save_model(backbone, path, classes=CLASSES, card={"n": 2})
    assert load_model(path).card == {"n": 1}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


class WithTable(TinyBackbone):
    """Has a table of whole numbers, and weights that two of its modules share."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.register_buffer("table", torch.arange(5000)[None])
        self.tied = torch.nn.Conv2d(3, 3, 1)
        self.again = torch.nn.Conv2d(3, 3, 1)
        self.again.weight = self.tied.weight


def test_tables_and_tied_weights_come_back(path):
    register_backbone("with-table", WithTable)
    try:
        model = WithTable().eval()
        save_model(model, path, classes=CLASSES, half=True)
        loaded = load_model(path)
    finally:
        del BACKBONES["with-table"]
    assert torch.equal(loaded.table, model.table)
    torch.testing.assert_close(loaded.again.weight, model.tied.weight, rtol=1e-3, atol=1e-3)
