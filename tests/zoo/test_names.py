from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from contracts.networks import lively, seeded
from lmanet import ERFNet, LMANet, SingleFrame, TrainingFreeMemory, load
from lmanet.classes import Classes
from lmanet.errors import WeightsError
from lmanet.methods.base import TrainableVideoModel
from lmanet.zoo import bundled, save_model
from lmanet.zoo.files import load_model
from lmanet.zoo.names import RENAMED, locate, single_frame_of

CLASSES = Classes(("road", "sky"), ((128, 64, 128), (0, 0, 255)))
BUNDLED_LIMIT_BYTES = 15_000_000


@pytest.fixture
def models(tmp_path) -> Iterator[Path]:
    """A folder with a single-frame network, a memory made from it, and one made from a bundled network."""
    with seeded():
        backbone = lively(ERFNet(2))
        save_model(SingleFrame(backbone), tmp_path / "erf.safetensors", classes=CLASSES)
        segmenter = LMANet(backbone, memory_size=2, window=3)
        for name, base in {"video": "erf.safetensors", "orphan": "gone.safetensors", "alone": None}.items():
            save_model(segmenter, tmp_path / f"{name}.safetensors", classes=CLASSES, single_frame=base)
        yield tmp_path


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """As with HF_HUB_OFFLINE=1, which the library reads when it is imported, and an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_file_is_loaded(models):
    model = load(str(models / "erf.safetensors"))
    assert isinstance(model, SingleFrame) and isinstance(model.backbone, ERFNet)
    assert isinstance(load(str(models / "video.safetensors")), LMANet)


def test_a_file_may_have_any_name_and_be_relative_or_at_home(models, monkeypatch):
    shutil.copy(models / "erf.safetensors", models / "weights.bin")
    monkeypatch.chdir(models)
    monkeypatch.setenv("HOME", str(models))
    for name in ("weights.bin", "./weights.bin", "~/weights.bin", str(models / "weights.bin")):
        assert isinstance(load(name).backbone, ERFNet), name


@pytest.mark.parametrize("name", ["none.safetensors", "none.pth", "runs", "./none", "sub/none"])
def test_a_missing_file_is_said_to_be_missing(name, models, monkeypatch):
    """The Hub is not asked, and what lies there is listed."""
    (models / "sub").mkdir()
    shutil.copy(models / "erf.safetensors", models / "sub" / "in-sub.safetensors")
    monkeypatch.chdir(models)
    name = str(models / name) if name == "runs" else name
    with pytest.raises(WeightsError) as caught:
        load(name)
    message = str(caught.value)
    assert message.startswith(f"{name}: no such file (")
    assert (
        "in-sub.safetensors" in message if "sub" in name else "alone.safetensors, erf.safetensors" in message
    )


@pytest.mark.parametrize("name", ["label-memory-erfnet-nowhere", "", "a/b/c", "~/a/b"])
def test_unknown_name_lists_what_there_is(name):
    with pytest.raises(WeightsError) as caught:
        load(name)
    message = str(caught.value)
    wrong = f"{name}: no such file, and no folder " if "/" in name else f"no weights named {name!r}"
    assert message.startswith(wrong)
    assert all(known in message for known in (*bundled(), ".safetensors file", "Hub id USER/REPO"))


def test_a_folder_is_said_to_be_one(models):
    with pytest.raises(WeightsError, match=r"is a folder: give a weights file .*erf\.safetensors"):
        load(str(models))
    (models / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"empty holds no \.safetensors file"):
        load(str(models / "empty"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["erf.pth", "erf.safetensors", "erf.bin"])
def test_a_pytorch_checkpoint_is_said_to_be_one(name, zipped, tmp_path):
    torch.save(ERFNet(2).state_dict(), tmp_path / name, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"is a PyTorch checkpoint: .*lmanet\.zoo\.load_official_erfnet"):
        load(str(tmp_path / name))


def test_no_safetensors_file_is_taken_for_a_pytorch_checkpoint(tmp_path):
    """A header of 640 bytes begins as a pickle does."""
    content = b"{" + b" " * 638 + b"}"
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content)
    assert path.read_bytes().startswith(b"\x80\x02")
    assert locate(str(path)) == path


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["nobody/nothing", "not a/hub id", "user/.."])
def test_hub_out_of_reach(name):
    with pytest.raises(WeightsError) as caught:
        load(name)
    message = str(caught.value)
    assert message.startswith(f"{name!r} is none of the bundled weights (")
    assert "the Hub gave no model.safetensors for it: " in message
    assert all(known in message for known in bundled())


@pytest.mark.usefixtures("offline")
def test_hub_id_in_the_cache_is_loaded_offline(models):
    """A repository that was downloaded before, laid out as the Hub's client keeps it."""
    repository = models / "hub" / "models--someone--roads"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    shutil.copy(models / "video.safetensors", snapshot / "model.safetensors")
    model = load("someone/roads")
    assert isinstance(model, LMANet)
    assert model.classes == CLASSES


def test_single_frame_model_of_a_video_model(models):
    assert single_frame_of(str(models / "erf.safetensors")) == str(models / "erf.safetensors")
    assert single_frame_of(str(models / "video.safetensors")) == str(models / "erf.safetensors")


def test_single_frame_model_that_is_not_there(models):
    with pytest.raises(WeightsError) as caught:
        single_frame_of(str(models / "orphan.safetensors"))
    assert f"there is no file {models / 'gone.safetensors'}: put it there" in str(caught.value)
    with pytest.raises(WeightsError, match=r"alone\.safetensors does not say which single-frame network"):
        single_frame_of(str(models / "alone.safetensors"))


def test_bundled_weights_are_small():
    assert all(path.stat().st_size < BUNDLED_LIMIT_BYTES for path in bundled().values())


@pytest.mark.skipif(not bundled(), reason="no weights in the package yet")
@pytest.mark.parametrize("name", bundled())
def test_bundled_weights(name):
    assert locate(name) == bundled()[name]
    model = load(name)
    image = torch.rand(1, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if isinstance(model, TrainableVideoModel):
            logits, state = model.step(image)
            logits, state = model.step(image, state)
            assert state.size == model.memory_size
            assert single_frame_of(name) in bundled()
            assert name.startswith(model.method)
        else:
            logits = model(image[:, None])
            assert single_frame_of(name) == name
            assert model.method == "single-frame"
    assert logits.shape == (1, len(model.classes), 40, 60)
    assert logits.isfinite().all()
    assert {"data", "recipe", "command", "figures", "limits"} <= set(model.card)


@pytest.mark.parametrize("name", [name for name in bundled() if name.startswith("label-memory")])
@torch.no_grad()
def test_optimised_bundled_models_keep_to_their_stated_tolerance(name):
    model = load(name)
    with seeded():
        small = torch.rand(3, 3, 12, 16)
    clip = torch.nn.functional.interpolate(small, (93, 128), mode="bilinear", antialias=True)[None]
    expected = model(clip)
    span = expected.max() - expected.min()
    for dtype, tolerance in ((None, 1e-5), (torch.bfloat16, 0.02)):
        logits = model.optimize(dtype)(clip).float()
        error = (logits - expected).abs().max()
        assert error < tolerance * span
        best = expected.topk(2, 1).values
        clear = best[:, 0] - best[:, 1] > 2 * error
        assert clear.float().mean() > 0.5
        assert torch.equal(logits.argmax(1)[clear], expected.argmax(1)[clear])


@pytest.mark.parametrize("name", RENAMED)
def test_bundled_models_load_by_their_names_of_before_with_a_warning(name):
    assert RENAMED[name] in bundled() and name not in bundled()
    with pytest.warns(FutureWarning, match=f"{name} is called {RENAMED[name]} now: use that name"):
        model = load(name)
    assert model.method == "label-memory" and model.card == load(RENAMED[name]).card
    with pytest.warns(FutureWarning):
        assert single_frame_of(name) == single_frame_of(RENAMED[name])


def test_a_file_of_such_a_name_is_taken_without_a_warning(models, monkeypatch):
    name = next(iter(RENAMED))
    shutil.copy(models / "erf.safetensors", models / name)
    monkeypatch.chdir(models)
    assert load(name).method == "single-frame"


@pytest.mark.parametrize("name", bundled())
def test_bundled_files_are_of_the_methods_that_their_names_tell(name):
    """They were written before methods had names; what they hold tells."""
    model = load_model(bundled()[name])
    assert model.method == ("label-memory" if name.startswith("label-memory-") else "single-frame")
    assert model.backbone.classes is not None and len(model.classes) == model.backbone.num_classes
    assert model.backbone.card is model.card


def test_a_method_without_training_is_its_own_single_frame_model(models):
    path = models / "steadied.safetensors"
    save_model(TrainingFreeMemory(load(str(models / "erf.safetensors")).backbone), path)
    assert single_frame_of(str(path)) == str(path)
    assert isinstance(load(str(path)), TrainingFreeMemory)
