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

import lmanet
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

def made(kind):
    torch.manual_seed(0)
    network = kind()
    # Sure of no class.
    network.head.weight.data -= network.head.weight.data.mean(1, keepdim=True)
    network.head.bias.data.zero_()
    return network

def build():
    return made(Net)

class Own(Net):
    def forward(self, x):
        return super().forward(2 * x - 1)

def own():
    return made(Own)

def scripted():
    import warnings
    class Plain(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.body, self.more, self.head = net.body, net.more, net.head
        def forward(self, x):
            return self.head(self.more(self.body(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(Plain(build().eval()))

def squares():
    class Squares(Net):
        def forward(self, x):
            assert x.shape[-2:] == (80, 80), "80 by 80"
            return super().forward(x)
    return made(Squares)

class Two(Net):
    def forward(self, x):
        made = super().forward(x)["out"]
        return {"coarse": made.flip(1), "fine": made}

def two():
    return made(Two)

def broken():
    raise RuntimeError("no weights here")

def other():
    return 3

def leaving():
    raise SystemExit(2)

network = build().eval()
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


def test_a_network_may_lie_in_the_module_itself(folder, model):
    for name in ("build", "network"):
        command = ["segment", "clip", "-o", name, "--method", "single-frame"]
        assert main([*command, "--model", model.replace(":build", f":{name}")]) == 0
    np.testing.assert_array_equal(labels(folder, "network"), labels(folder, "build"))


def test_it_is_told_that_a_memory_has_to_be_trained(folder, model, capsys):
    command = ["segment", "clip", "-o", "labels", "--model", model]
    assert main([*command, "--method", "label-memory"]) == 2
    assert "label-memory is trained: give the weights of its training" in capsys.readouterr().err
    assert not (folder / "labels").exists()
    assert main(command) == 0
    assert ", method training-free, on " in capsys.readouterr().err


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
        ("{}:leaving", r"leaving\(\) failed: it called sys\.exit\(2\), as a script does"),
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
    ("preset", "steps", "own"),
    [
        ("label-memory", ["module"], ["--hidden", "8"]),
        ("lmanet", ["module", "joint"], ["--key-channels", "8", "--value-channels", "8"]),
    ],
)
def test_a_memory_is_trained_on_it_and_used(folder, model, labelled, capsys, preset, steps, own):
    sizes = [*own, "--window", "3", "--memory-size", "2"]
    stages = [f"--{stage}.{name}" for stage in steps for name in ("epochs", "batch-size")]
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


def labels(folder: Path, name: str) -> np.ndarray:
    return np.stack([np.array(Image.open(path)) for path in sorted((folder / name).glob("*.png"))])


def test_its_normalisation_is_found_told_and_can_be_said(folder, model, capsys):
    own = model.replace(":build", ":own")
    segment = ["segment", "clip", "--method", "single-frame"]
    assert main([*segment, "-o", "own", "--model", own]) == 0
    err = capsys.readouterr().err
    assert "normalisation: none (its own forward normalises: mean 0.5 0.5 0.5, std 0.5 0.5 0.5)" in err
    half = 3 * ["0.5"]
    for n, said in enumerate((["--normalise", ",".join(half + half)], ["--mean", *half, "--std", *half])):
        assert main([*segment, "-o", f"said{n}", "--model", model, *said]) == 0
        assert "normalisation: mean 0.5 0.5 0.5, std 0.5 0.5 0.5 (as given)" in capsys.readouterr().err
        np.testing.assert_array_equal(labels(folder, "own"), labels(folder, f"said{n}"))
    assert main([*segment, "-o", "no", "--model", model, "--normalise", "none"]) == 0
    assert (labels(folder, "no") != labels(folder, "own")).mean() > 0.01
    assert main([*segment, "-o", "x", "--model", model, "--normalise", "none", "--mean", "0", "0", "0"]) == 2
    assert "beside mean or std: give one of the two" in capsys.readouterr().err
    assert main([*segment, "-o", "x", "--normalise", "none"]) == 2
    assert "--normalise: said of a network of your own: give --model" in capsys.readouterr().err
    assert not (folder / "x").exists()


def test_what_cannot_be_cut_labels_by_methods_that_need_no_cut(folder, model, labelled, capsys):
    scripted = model.replace(":build", ":scripted")
    for method in ("single-frame", "flow-average", "training-free"):
        assert main(["segment", "clip", "-o", method, "--model", scripted, "--method", method]) == 0
    capsys.readouterr()
    assert main(["segment", "clip", "-o", "x", "--model", scripted, "--at", "body"]) == 2
    err = capsys.readouterr().err
    assert "a TorchScript module cannot be cut in two: give the Python module" in err and err.count("\n") == 1
    evaluate = ["evaluate", "--data", labelled, "--model", scripted]
    assert main([*evaluate, "--method", "all", "--json", "report.json"]) == 0
    assert list(json.loads((folder / "report.json").read_text())["scores"]) == [
        "single-frame",
        "flow-average",
        "training-free",
    ]


def test_a_network_of_one_size_is_probed_with_the_size_that_it_gets(folder, model, labelled, capsys):
    squares = model.replace(":build", ":squares")
    segment = ["segment", "clip", "-o", "labels", "--model", squares, "--method", "training-free"]
    assert main(segment) == 2
    assert "--resize H W" in capsys.readouterr().err
    assert main([*segment, "--resize", "80", "80"]) == 0
    assert labels(folder, "labels").shape == (3, 50, 64)
    evaluate = ["evaluate", "--model", squares, "--method", "all", "--data"]
    assert main([*evaluate, f"{labelled},size=80x80"]) == 0
    assert main([*evaluate, labelled, "--probe", "80", "80"]) == 2
    assert "80×80 alone" in capsys.readouterr().err


def test_its_output_can_be_said(folder, model, capsys):
    two = model.replace(":build", ":two")
    segment = ["segment", "clip", "--method", "single-frame"]
    assert main([*segment, "-o", "one", "--model", model]) == 0
    assert main([*segment, "-o", "fine", "--model", two, "--model-output", "fine"]) == 0
    assert main([*segment, "-o", "coarse", "--model", two, "--model-output", "coarse"]) == 0
    np.testing.assert_array_equal(labels(folder, "one"), labels(folder, "fine"))
    np.testing.assert_array_equal(labels(folder, "one"), 2 - labels(folder, "coarse"))
    with pytest.raises(InputError):
        third_party_backbone(two, output="none")


def test_weights_are_loaded_with_what_was_found_and_said(folder, model, tmp_path):
    own, two = (model.replace(":build", f":{name}") for name in ("own", "two"))
    images = torch.rand(1, 3, 32, 48)
    for name, options, config in (
        (model, {}, {}),
        (own, {}, {"normalise": "none"}),
        (own, {"normalise": "imagenet"}, {}),
        (model, {"mean": (0.5,) * 3, "std": (0.25,) * 3}, {"normalise": "0.5,0.5,0.5,0.25,0.25,0.25"}),
        (model, {"normalise": "none,bgr"}, {"normalise": "none,bgr"}),
        (two, {"output": "fine", "probe": (64, 64)}, {"output": "fine", "probe": [64, 64]}),
    ):
        for cut in (True, False):
            backbone = third_party_backbone(name, cut=cut, **options)
            assert backbone.config == ({"at": "more"} if cut else {"cut": False}) | config
            method = lmanet.SingleFrame(backbone)
            if cut:
                method = lmanet.wrap(backbone, "lmanet")
            lmanet.save_model(method, tmp_path / "saved.safetensors")
            loaded = lmanet.load(str(tmp_path / "saved.safetensors"))
            assert torch.equal(loaded.backbone(images), backbone(images))
            assert loaded.backbone.setting == backbone.setting
            assert loaded.backbone.normalisation.endswith("(as its weights were trained)")
            found = lmanet.find_model(str(tmp_path / "saved.safetensors"), model=name, method="flow-average")
            assert torch.equal(found.backbone(images), backbone(images))
    with pytest.raises(InputError, match=r"hold how the network .* is taken: leave out normalise"):
        lmanet.find_model(str(tmp_path / "saved.safetensors"), model=two, normalise="none")


def test_weights_of_before_say_nothing_of_the_normalisation(folder, model):
    """They were trained under ImageNet's, also where the network normalises by itself."""
    from lmanet.zoo.architectures import build_backbone

    own = model.replace(":build", ":own")
    third_party_backbone(own)
    backbone = build_backbone({"name": own, "num_classes": 3, "config": {"at": "more"}})
    assert backbone.setting["mean"] == pytest.approx([0.485, 0.456, 0.406])
