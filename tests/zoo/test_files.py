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
from lmanet import ERFNet, LabelMemory, LMANet, SingleFrame, TrainingFreeMemory, VideoModel
from lmanet.classes import Classes
from lmanet.errors import OutputError, WeightsError
from lmanet.methods import METHODS, register
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
def single(backbone) -> SingleFrame:
    return SingleFrame(backbone).eval()


@pytest.fixture
def steadied(backbone) -> TrainingFreeMemory:
    return TrainingFreeMemory(backbone, window=5).eval()


@pytest.fixture
def labels(backbone) -> LabelMemory:
    return lively(LabelMemory(backbone, memory_size=1, window=3, hidden=7, temperature=0.1)).eval()


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
    """Logits of the last frame of a fixed clip."""
    return model(torch.rand(1, 4, 3, 24, 32, generator=torch.Generator().manual_seed(1)))


KINDS = ["single", "steadied", "labels", "segmenter"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_comes_back_as_it_was(request, path, kind):
    model = request.getfixturevalue(kind)
    save_model(model, path, classes=CLASSES, card=CARD)
    loaded = load_model(path)
    assert type(loaded) is type(model) and loaded.arguments == model.arguments
    assert type(loaded.backbone) is ERFNet
    assert not loaded.training
    assert torch.equal(run(loaded), run(model))
    assert loaded.classes == loaded.backbone.classes == CLASSES
    assert loaded.card == loaded.backbone.card == CARD
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_options_come_back(segmenter, path):
    segmenter = segmenter.adjusted(memory_size=7, window=9)
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
        "format": 2,
        "backbone": {"name": "erfnet", "num_classes": 3},
        "classes": {"names": list(CLASSES.names), "palette": [list(c) for c in CLASSES.palette]},
        "card": CARD,
        "method": {
            "name": "lmanet",
            "arguments": {
                "key_channels": 4,
                "value_channels": 64,
                "memory_size": 3,
                "window": 5,
                "fusion": "concat",
                "convolutions": "fast",
                "border": "zero",
            },
        },
        "single_frame": "erfnet-x",
    }


def test_classes_and_card_are_the_model_s_own_if_not_given(single, path):
    single.backbone.classes, single.card = CLASSES, CARD
    save_model(single, path)
    assert load_model(path).classes == CLASSES and load_model(path).card == CARD
    single.backbone.classes = single.card = None
    save_model(single, path)
    loaded = load_model(path)
    assert loaded.classes == single.classes and loaded.classes.names == ("class 0", "class 1", "class 2")
    assert loaded.card == {}


def test_saving_again_replaces_the_file(single, path):
    save_model(single, path, classes=CLASSES, card={"n": 1})
    with torch.no_grad():
        single.backbone.decoder.output_conv.bias += 1
    save_model(single, path, classes=CLASSES, card={"n": 2})
    loaded = load_model(path)
    assert loaded.card == {"n": 2}
    assert torch.equal(run(loaded), run(single))


def test_network_that_could_not_be_built_again_is_not_saved(path):
    with pytest.raises(
        WeightsError, match=r"a TinyBackbone cannot be saved.*register_backbone\(NAME, TinyBackbone\)"
    ):
        save_model(SingleFrame(TinyBackbone()), path, classes=CLASSES)
    assert not path.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_optimised_copy_is_not_saved(request, path, kind):
    with pytest.raises(
        WeightsError, match=r"copy for inference.*save the model that optimize\(\) was called on"
    ):
        save_model(request.getfixturevalue(kind).optimize(), path, classes=CLASSES)
    assert not path.exists()


def of_format_1(model: VideoModel, path: Path, *, left_out: tuple[str, ...] = ()) -> None:
    """Write what lmanet wrote before methods had names: what the memory holds told them, or that there was none."""
    save_model(model, path, classes=CLASSES, card=CARD)
    config, tensors = read_config(path), load_file(path)
    del config["method"]
    if isinstance(model, SingleFrame):
        tensors = {name.removeprefix("backbone."): value for name, value in tensors.items()}
    else:
        values = (
            {}
            if "values" in left_out
            else {"values": {LMANet: "features", LabelMemory: "labels"}[type(model)]}
        )
        config["video"] = values | {k: v for k, v in model.arguments.items() if k not in left_out}
    save_file(tensors, path, {"lmanet": json.dumps(config | {"format": 1})})


@pytest.mark.parametrize("kind", ["single", "labels", "segmenter"])
def test_files_of_format_1_are_read(request, path, kind):
    model = request.getfixturevalue(kind)
    of_format_1(model, path)
    loaded = load_model(path)
    assert type(loaded) is type(model) and loaded.arguments == model.arguments
    assert loaded.classes == CLASSES and loaded.card == CARD
    assert torch.equal(run(loaded), run(model))
    # Saved again, it is of the format of now.
    save_model(loaded, path)
    assert type(load_model(path)) is type(model) and read_config(path)["method"]["name"] == model.method
    assert torch.equal(run(load_model(path)), run(model))


def test_files_of_before_there_were_fast_convolutions_have_the_papers(backbone, path):
    model = lively(LMANet(backbone, key_channels=4, value_channels=8)).eval()
    of_format_1(model, path, left_out=("values", "convolutions"))
    loaded = load_model(path)
    assert isinstance(loaded, LMANet) and loaded.convolutions == "paper"
    assert torch.equal(run(loaded), run(model))


def test_label_memories_of_before_there_was_a_persistence_hold_on_as_they_did(backbone, path):
    model = lively(LabelMemory(backbone, persistence=1.0)).eval()
    of_format_1(model, path, left_out=("persistence",))
    loaded = load_model(path)
    assert isinstance(loaded, LabelMemory) and loaded.persistence == 1.0


def test_missing_file(path):
    with pytest.raises(WeightsError, match=rf"{re.escape(str(path))} is not a file"):
        load_model(path)
    with pytest.raises(WeightsError, match="is not a file"):
        load_model(path.parent)


@pytest.mark.parametrize("share", [0, 1e-6, 1e-4, 0.5, 0.9999])
def test_truncated_file(single, path, share):
    save_model(single, path, classes=CLASSES)
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


def test_newer_format(single, path):
    save_model(single, path, classes=CLASSES)
    altered(path, format=3)
    with pytest.raises(WeightsError, match="has format 3, this lmanet reads formats 1 and 2: upgrade"):
        load_model(path)


def test_unknown_backbone(single, path):
    save_model(single, path, classes=CLASSES)
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


def test_a_full_disk_leaves_what_was_there(single, path):
    save_model(single, path, classes=CLASSES, card={"n": 1})
    with pytest.raises(OutputError, match="free some space"), files_no_larger_than(10_000):
        save_model(single, path, classes=CLASSES, card={"n": 2})
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
        save_model(SingleFrame(model), path, classes=CLASSES, half=True)
        loaded = load_model(path).backbone
        assert isinstance(loaded, WithTable)
    finally:
        del BACKBONES["with-table"]
    assert torch.equal(loaded.table, model.table)
    torch.testing.assert_close(loaded.again.weight, model.tied.weight, rtol=1e-3, atol=1e-3)


class Own(SingleFrame):
    """A method of the user's own, with an argument."""

    method = "test-own"

    def __init__(self, backbone, *, sharpness: float = 1.0) -> None:
        super().__init__(backbone)
        self.sharpness = sharpness

    @property
    def arguments(self) -> dict[str, object]:
        return {"sharpness": self.sharpness}


@pytest.fixture
def own() -> Iterator[type[Own]]:
    register(Own)
    yield Own
    METHODS.pop(Own.method, None)


def test_a_method_of_the_user_s_own_comes_back_by_its_name(own, backbone, path):
    model = own(backbone, sharpness=2.5)
    save_model(model, path, classes=CLASSES)
    assert read_config(path)["method"] == {"name": "test-own", "arguments": {"sharpness": 2.5}}
    loaded = load_model(path)
    assert type(loaded) is Own and loaded.sharpness == 2.5


def test_a_method_that_is_not_registered_says_how_it_is(own, backbone, path):
    save_model(own(backbone), path, classes=CLASSES)
    del METHODS[own.method]
    with pytest.raises(
        WeightsError,
        match=rf"{re.escape(str(path))} is of the method 'test-own', this program knows single-frame, .*"
        r"lmanet\.methods\.register\(CLASS\) first, or give --method MODULE:CLASS",
    ):
        load_model(path)
    other = path.with_name("other.safetensors")
    with pytest.raises(WeightsError, match=r"a Own cannot be saved.*lmanet\.methods\.register\(Own\) first"):
        save_model(own(backbone), other, classes=CLASSES)
    assert not other.exists()


def test_a_class_that_does_not_take_the_saved_arguments(own, backbone, path):
    save_model(own(backbone), path, classes=CLASSES)
    METHODS[own.method] = SingleFrame
    with pytest.raises(
        WeightsError,
        match=r"wants 'test-own' built as SingleFrame\(backbone, \*\*\{'sharpness': 1\.0\}\), which fails.*: "
        r"register the class that it was saved from",
    ):
        load_model(path)


def test_a_subclass_of_a_known_method_is_not_saved_as_that(backbone, path):
    """It used to come back as another class, without a word."""

    class Changed(LMANet):
        """Not registered."""

    with pytest.raises(WeightsError, match=r"a Changed cannot be saved.*register\(Changed\) first"):
        save_model(Changed(backbone), path, classes=CLASSES)
    assert not path.exists()
