"""Networks of the user's own on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from lmanet.cli.main import main
from lmanet.errors import InputError
from lmanet.methods import METHODS
from lmanet.third_party import load_third_party, third_party_backbone
from lmanet.zoo.architectures import BACKBONES

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.more = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU())
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        return {"out": nn.functional.interpolate(self.head(self.more(self.body(x))), x.shape[-2:])}

def build():
    torch.manual_seed(0)
    return Net()

def broken():
    raise RuntimeError("no weights here")

def other():
    return 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the user's module and a video lie, as the current one; every test gets a module of its own name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"net_{tmp_path.name}.py").write_text(NETWORK)
    (tmp_path / "clip").mkdir()
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (50, 64, 3), np.uint8)
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"clip/{i}.png"), np.roll(frame, 2 * i, 1))
    before = dict(BACKBONES)
    yield tmp_path
    BACKBONES.clear()
    BACKBONES.update(before)


@pytest.fixture
def model(folder: Path) -> str:
    return f"net_{folder.name}:build"


def test_a_newcomers_network_labels_a_video_at_once(folder, model, capsys):
    assert main(["segment", "clip", "-o", "labels", "--model", model, "--method", "training-free"]) == 0
    assert len(list((folder / "labels").glob("*.png"))) == 3
    err = capsys.readouterr().err
    assert f"3 frames by {model}, method training-free, on " in err and "class 0" in err


def test_without_a_memory_it_labels_as_the_network_does(folder, model):
    assert main(["segment", "clip", "-o", "labels", "--model", model, "--method", "single-frame"]) == 0
    frame = cv2.cvtColor(cv2.imread("clip/1.png"), cv2.COLOR_BGR2RGB)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((torch.from_numpy(frame) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = load_third_party(model)(images)["out"].argmax(1)[0].numpy()
    labels = np.array(Image.open("labels/1.png"))
    assert (labels == expected).mean() > 0.999


def test_it_is_told_that_a_memory_has_to_be_trained(folder, model, capsys):
    assert main(["segment", "clip", "-o", "labels", "--model", model]) == 2
    assert "choose one of single-frame, " in (err := capsys.readouterr().err) and "training-free, or" in err
    assert not (folder / "labels").exists()


def test_where_it_is_cut_can_be_said(folder, model, capsys):
    assert third_party_backbone(model, at="body").config == {"at": "body"}
    options = ["--model", model, "--at", "neck", "--method", "training-free"]
    assert main(["segment", "clip", "-o", "labels", *options]) == 2
    assert "at='neck'" in capsys.readouterr().err
    assert main(["segment", "clip", "-o", "labels", "--at", "body"]) == 2
    assert "give --model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_net", "expected MODULE:FUNCTION"),
        ("{}.py:build", "expected a module, not its file: net_.*:build, run where it lies"),
        ("no_such_package.net:build", r"no module 'no_such_package\.net' in"),
        ("no_such_module:build", r"no module 'no_such_module' in .* run it where no_such_module\.py lies"),
        ("{}:nothing", "has no function 'nothing'"),
        ("{}:broken", r"broken\(\) failed: RuntimeError: no weights here"),
        ("{}:other", r"other\(\) returned a int: expected a torch\.nn\.Module"),
    ],
)
def test_what_cannot_be_loaded_is_told(folder, name, message):
    with pytest.raises(InputError, match=message):
        load_third_party(name.format(f"net_{folder.name}"))


def test_a_module_with_a_mistake(folder):
    (folder / "mistaken.py").write_text("import no_such_library\n")
    with pytest.raises(InputError, match="mistaken needs 'no_such_library', which is not installed"):
        load_third_party("mistaken:build")
    (folder / "wrong.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match="wrong cannot be imported: ZeroDivisionError"):
        load_third_party("wrong:build")


@pytest.fixture
def labelled(folder: Path) -> str:
    """A data set of two short sequences in the `folder:` layout."""
    root = folder / "data"
    rng = np.random.default_rng(1)
    for sequence in ("a", "b"):
        for kind, shape in (("images", (48, 64, 3)), ("labels", (48, 64))):
            (root / kind / sequence).mkdir(parents=True)
            for i in range(3):
                array = rng.integers(0, 255 if kind == "images" else 3, shape, np.uint8)
                cv2.imwrite(str(root / kind / sequence / f"{i}.png"), array)
    (root / "classes.json").write_text('{"names": ["road", "car", "sky"], "fps": 10}')
    (root / "train.txt").write_text("a\n")
    (root / "val.txt").write_text("b\n")
    return f"folder:{root}"


@pytest.mark.parametrize(
    ("preset", "own"),
    [("label-memory", ["--hidden", "8"]), ("lmanet", ["--key-channels", "8", "--value-channels", "8"])],
)
def test_a_memory_is_trained_on_it_and_used(folder, model, labelled, capsys, preset, own):
    sizes = [*own, "--window", "3", "--memory-size", "2"]
    stages = [f"--{stage}.{name}" for stage in ("module", "joint") for name in ("epochs", "batch-size")]
    stages = [word for flag in stages for word in (flag, "1")]
    views = ["--draws", "1", "--pseudo", "1", "--workers", "0"]
    train = ["train", preset, "--model", model, "--data", labelled, "-o", "runs", *sizes, *stages, *views]
    assert main(train) == 0
    weights = f"runs/{preset}.safetensors"
    assert main(["segment", "clip", "-o", "labels", "--weights", weights, "--model", model]) == 0
    assert len(list((folder / "labels").glob("*.png"))) == 3
    command = [
        "evaluate",
        "--data",
        labelled,
        "--weights",
        weights,
        "--method",
        "all",
        "--json",
        "report.json",
    ]
    assert main([*command, "--model", model]) == 0
    scores = json.loads((folder / "report.json").read_text())["scores"]
    assert list(scores) == [*(name for name, kind in METHODS.items() if not kind.trainable), preset]
    BACKBONES.pop(model)
    assert main(command) == 2
    assert "give --model" in capsys.readouterr().err


def test_it_is_scored_without_a_memory(model, labelled, capsys):
    methods = ["--method", "single-frame", "--method", "training-free"]
    assert main(["evaluate", "--data", labelled, "--model", model, *methods]) == 0
    assert "training-free" in capsys.readouterr().out
    assert main(["evaluate", "--data", labelled, "--model", model]) == 0
    assert "single-frame" in capsys.readouterr().out
    assert main(["evaluate", "--data", "camvid:nowhere"]) == 2
    assert "give --weights, or --model MODULE:FUNCTION" in capsys.readouterr().err
    assert main(["train", "erfnet", "--model", model, "--data", labelled, "-o", "runs"]) == 2
    assert "--model goes with label-memory" in capsys.readouterr().err
