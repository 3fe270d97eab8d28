from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from contracts.networks import lively, seeded
from contracts.tiny import CLASSES
from lmanet import ERFNet, LMANet, SingleFrame
from lmanet.errors import InputError, WeightsError
from lmanet.zoo import load_model, save_model
from lmanet.zoo.files import read_config

TRAINED = {"recipe": {"memories": "pseudo", "stage": {"epochs": 3}}, "data": "tiny/train", "seed": 0}
REPORT = {
    "schema_version": 1,
    "data": "tiny/val",
    "class_names": list(CLASSES.names),
    "scores": {"single-frame": {"miou": 0.61, "tc": None}, "LMANet": {"miou": 0.65, "tc": 0.7}},
    "conventions": {"mode": "default", "flow": "DIS"},
    "environment": {"machine": "a machine", "threads": 2},
}
SAID = {"command": "lmanet train lmanet --data tiny:", "limits": "random weights"}


@pytest.fixture
def bundle(tool) -> Callable[..., None]:
    return tool("bundle").bundle


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder such as `lmanet train` leaves: a single-frame network and a video model."""
    folder = tmp_path / "run"
    folder.mkdir()
    with seeded():
        backbone = lively(ERFNet(len(CLASSES))).eval()
        segmenter = lively(LMANet(backbone, memory_size=2, window=5)).eval()
    save_model(SingleFrame(backbone), folder / "single.safetensors", classes=CLASSES, card=TRAINED)
    save_model(
        segmenter,
        folder / "video.safetensors",
        classes=CLASSES,
        card=TRAINED,
        single_frame="single.safetensors",
    )
    return folder


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(REPORT))
    return path


def test_a_pair_of_models_is_bundled_in_half_precision(bundle, trained, report, tmp_path, capsys):
    folder = tmp_path / "package" / "weights"
    bundle(trained / "single.safetensors", "tiny", folder=folder, **SAID)
    said = {**SAID, "report": report, "column": "LMANet", "single_frame": "tiny", "folder": folder}
    bundle(trained / "video.safetensors", "lmanet-tiny", **said)

    assert sorted(path.name for path in folder.iterdir()) == ["lmanet-tiny.safetensors", "tiny.safetensors"]
    for source, name in (("single", "tiny"), ("video", "lmanet-tiny")):
        whole, half = trained / f"{source}.safetensors", folder / f"{name}.safetensors"
        assert half.stat().st_size < 0.55 * whole.stat().st_size
        tensors = load_file(half)
        assert {x.dtype for x in tensors.values() if x.ndim > 1} == {torch.float16}
        exact = load_model(whole).state_dict()
        for key, loaded in load_model(half).state_dict().items():
            assert loaded.dtype == exact[key].dtype
            torch.testing.assert_close(loaded, exact[key], rtol=1e-3, atol=1e-6)
    assert read_config(folder / "lmanet-tiny.safetensors")["single_frame"] == "tiny"

    differences = re.findall(r"logits differ by at most (\S+) on noise", capsys.readouterr().out)
    assert len(differences) == 2 and all(0 < float(x) < 0.1 for x in differences)


def test_the_card_holds_what_a_user_should_know(bundle, trained, report, tmp_path):
    for column in ("single-frame", None):
        chosen = {} if column is None else {"report": report, "column": column}
        bundle(trained / "single.safetensors", "tiny", folder=tmp_path, **SAID, **chosen)
        card = load_model(tmp_path / "tiny.safetensors").card
        figures = card.pop("figures")
        assert card == {**TRAINED, **SAID}
        if column is None:
            assert figures == {}
        else:
            assert figures == {
                "data": "tiny/val",
                "conventions": {"mode": "default", "flow": "DIS"},
                "environment": {"machine": "a machine", "threads": 2},
                "miou": 0.61,
                "tc": None,
            }


@pytest.mark.parametrize("single_frame", [None, "erfnet-unknown"])
def test_a_video_model_names_its_single_frame_network(bundle, trained, tmp_path, single_frame):
    folder = tmp_path / "weights"
    bundle(trained / "single.safetensors", "tiny", folder=folder, **SAID)
    with pytest.raises(InputError, match=rf"is {single_frame}, expected one of the bundled \(tiny\)"):
        bundle(trained / "video.safetensors", "lmanet-tiny", folder=folder, single_frame=single_frame, **SAID)
    assert [path.name for path in folder.iterdir()] == ["tiny.safetensors"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"single_frame": "tiny"},
            "--single-frame tiny for a model of single-frame: only a method that is trained has one",
        ),
        ({"column": "LMANet"}, "--column LMANet without --report"),
        ({"report": True}, "--column is None, expected one of .*: single-frame, LMANet"),
        ({"report": True, "column": "control"}, "--column is control, expected one of"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_written(bundle, trained, report, tmp_path, chosen, message):
    chosen = {**chosen, "report": report} if "report" in chosen else chosen
    folder = tmp_path / "weights"
    with pytest.raises(InputError, match=message):
        bundle(trained / "single.safetensors", "tiny", folder=folder, **SAID, **chosen)
    assert not folder.exists()


def test_a_missing_source_is_refused(bundle, tmp_path):
    with pytest.raises(WeightsError, match="is not a file"):
        bundle(tmp_path / "none.safetensors", "tiny", folder=tmp_path / "weights", **SAID)
