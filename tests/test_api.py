"""What the command line does, as functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import lmanet
from contracts.networks import lively, seeded
from contracts.tiny import CLASSES, TinyData, tiny_backbone, tiny_data
from lmanet import ERFNet, LMANet, Session, SingleFrame, TrainingFreeMemory, VideoModel
from lmanet.api import CONTROL, DEFAULT_WEIGHTS, evaluate, find_model, find_models, label_video, set_threads
from lmanet.classes import Classes
from lmanet.errors import InputError, VideoError, WeightsError
from lmanet.evaluation.metrics import ConfusionMatrix, per_class_iou
from lmanet.methods import METHODS
from lmanet.zoo import bundled, save_model

UNTRAINED = [name for name, kind in METHODS.items() if not kind.trainable]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, methods on it, and one whose network is not there; in a folder of their own."""
    path = tmp_path_factory.mktemp("weights")
    with seeded():
        backbone = lively(ERFNet(len(CLASSES))).eval()
        trained = lively(LMANet(backbone, key_channels=4, value_channels=8, memory_size=2, window=3)).eval()
        backbone.decoder.output_conv.weight.data *= 8  # sure of something
    card = {"data": "none"}
    save_model(SingleFrame(backbone), path / "single.safetensors", classes=CLASSES, card=card)
    save_model(TrainingFreeMemory(backbone, window=3), path / "steady.safetensors", classes=CLASSES)
    for name, base in (("video", "single.safetensors"), ("orphan", "gone.safetensors")):
        save_model(trained, path / f"{name}.safetensors", classes=CLASSES, single_frame=base)
    return path


@pytest.fixture
def weights(folder: Path) -> dict[str, str]:
    return {path.stem: str(path) for path in folder.iterdir()}


class Network(nn.Module):
    """A network of somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, 64, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(64, len(CLASSES), 1)

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(self.head(self.body(images)), images.shape[-2:], mode="bilinear")


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Finding a model


def test_the_default_is_bundled() -> None:
    assert DEFAULT_WEIGHTS in bundled()
    model = find_model()
    assert isinstance(model, TrainingFreeMemory) and not model.training
    assert same_weights(model.backbone, lmanet.load(DEFAULT_WEIGHTS).backbone)


def test_weights_have_their_own_method_or_that_which_is_asked_for(weights: dict[str, str]) -> None:
    own = find_model(weights["video"])
    assert isinstance(own, LMANet) and same_weights(own, find_model(weights["video"], method="lmanet"))
    single = lmanet.load(weights["single"])
    steadied = find_model(weights["single"])
    assert isinstance(steadied, TrainingFreeMemory) and same_weights(steadied.backbone, single.backbone)
    for name, kind in (("single-frame", SingleFrame), ("training-free", TrainingFreeMemory)):
        for given in ("video", "single"):
            found = find_model(weights[given], method=name)
            # Not the trained model's own network, whose decoder was trained for the memory.
            assert type(found) is kind and same_weights(found.backbone, single.backbone)
            assert found.card == {"data": "none"} and found.classes == CLASSES and not found.training


def test_arguments_of_a_method_in_a_file_are_kept(weights: dict[str, str]) -> None:
    for method in (None, "training-free"):
        found = find_model(weights["steady"], method=method)
        assert isinstance(found, TrainingFreeMemory) and found.window == 3
    assert isinstance(find_model(weights["steady"], method="single-frame"), SingleFrame)


def test_a_method_that_is_trained_wants_its_weights(weights: dict[str, str]) -> None:
    for given in ({"weights": weights["video"]}, {"model": Network()}):
        with pytest.raises(
            InputError, match=r"label-memory is trained: give the weights .*train label-memory\)"
        ):
            find_model(**given, method="label-memory")
    with pytest.raises(WeightsError, match=r"gone\.safetensors: put it there"):
        find_model(weights["orphan"], method="training-free")


def test_a_network_of_ones_own_is_put_under_a_method() -> None:
    network = Network()
    found = find_model(model=network, method="training-free", at="body")
    assert isinstance(found, TrainingFreeMemory) and found.backbone.channels == 64
    assert not found.training and found.classes.names == ("class 0", "class 1", "class 2")
    backbone = tiny_backbone()
    assert find_model(model=backbone, method="single-frame").backbone is backbone
    assert isinstance(find_model(model=network), TrainingFreeMemory)
    with pytest.raises(InputError, match="at: said of a network of your own: give it as model="):
        find_model(at="body")


def test_several_methods_share_one_network(weights: dict[str, str]) -> None:
    found = find_models(weights["video"])
    assert list(found) == ["single-frame", "lmanet"]
    every = find_models(weights["video"], methods=["all"])
    assert list(every) == [*UNTRAINED, "lmanet"]
    assert {name: type(model) for name, model in every.items()} == {name: METHODS[name] for name in every}
    assert len({id(every[name].backbone) for name in UNTRAINED}) == 1
    assert every["lmanet"].backbone is not every["single-frame"].backbone
    assert list(find_models(weights["video"], methods=["lmanet", "training-free", "all"])) == list(every)
    assert list(find_models(weights["video"], methods=["training-free"])) == ["training-free"]


def test_what_needs_no_training_is_its_own_single_frame_network(weights: dict[str, str]) -> None:
    assert list(find_models(weights["single"])) == ["single-frame", "training-free"]
    assert list(find_models(weights["single"], methods=["all"])) == UNTRAINED
    found = find_models(weights["steady"])
    assert list(found) == ["single-frame", "training-free"]
    steady = find_models(weights["steady"], methods=["all"])["training-free"]
    assert isinstance(steady, TrainingFreeMemory) and steady.window == 3


def test_a_network_that_is_not_there_is_told_of_or_an_error(weights: dict[str, str]) -> None:
    told: list[str] = []
    assert list(find_models(weights["orphan"], warn=told.append)) == ["lmanet"]
    assert len(told) == 1 and told[0].startswith("no column for the single-frame network: ")
    for methods in (["all"], ["single-frame"]):
        with pytest.raises(WeightsError, match="put it there"):
            find_models(weights["orphan"], methods=methods, warn=told.append)
    assert len(told) == 1


def test_models_that_cannot_be_compared(weights: dict[str, str]) -> None:
    with pytest.raises(InputError, match="nothing to evaluate: give --weights, or --model"):
        find_models()
    with pytest.raises(InputError, match="are weights of the network erfnet, not of a Network"):
        find_models(weights["single"], model=Network())
    with pytest.raises(InputError, match="no method named 'best'"):
        find_models(weights["video"], methods=["all", "best"])
    with pytest.raises(InputError, match="label-memory is trained"):
        find_models(model=Network(), methods=["label-memory"])
    assert list(find_models(model=Network())) == ["single-frame", "training-free"]


# Labelling a video


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Four images of 50×62 in a folder."""
    path = tmp_path / "clip"
    path.mkdir()
    frame = np.random.default_rng(0).integers(0, 255, (50, 80, 3), np.uint8)
    for i in range(4):
        cv2.imwrite(str(path / f"{i}.png"), frame[:, 3 * i : 3 * i + 62])
    return path


def labels_of(session: Session, clip: Path) -> list[np.ndarray]:
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(clip.glob("*.png"))]
    return [session.step(image).labels for image in images]


def written(folder: Path) -> list[np.ndarray]:
    return [np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def test_a_video_is_labelled_and_told_of(clip: Path, weights: dict[str, str], tmp_path: Path) -> None:
    model = lmanet.load(weights["video"]).train()
    done, opened = [], []
    labelled = label_video(
        clip,
        [tmp_path / "labels", str(tmp_path / "view.mp4")],
        model,
        device="cpu",
        on_open=opened.append,
        progress=done.append,
    )
    assert labelled.outputs == (tmp_path / "labels", tmp_path / "view.mp4")
    assert (labelled.frames, labelled.method, labelled.device, labelled.warnings) == (4, "lmanet", "cpu", ())
    assert done == [1, 2, 3, 4] and labelled.seconds > 0
    assert len(opened) == 1 and opened[0].info.frame_count == 4
    expected = labels_of(Session(model), clip)
    np.testing.assert_array_equal(written(tmp_path / "labels"), expected)
    counts = np.bincount(np.ravel(expected), minlength=len(CLASSES)) / np.size(expected)
    assert labelled.shares == pytest.approx(dict(zip(CLASSES.names, counts, strict=True)))
    assert (tmp_path / "view.mp4").stat().st_size > 0
    assert model.training and not model.optimized, "the caller's model stays as it is"


def test_memory_size_and_window_are_of_this_video_alone(
    clip: Path, weights: dict[str, str], tmp_path: Path
) -> None:
    model = lmanet.load(weights["video"])
    label_video(clip, tmp_path / "labels", model, memory_size=1, window=5, resize=(24, 32))
    assert model.arguments["memory_size"] == 2 and model.arguments["window"] == 3
    expected = labels_of(Session(model, memory_size=1, window=5, resize=(24, 32)), clip)
    np.testing.assert_array_equal(written(tmp_path / "labels"), expected)


def test_a_name_and_no_output_are_enough(
    clip: Path, weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labelled = label_video(str(clip), model=weights["steady"])
    assert labelled.outputs == (Path("clip-labelled.mp4"),) and Path("clip-labelled.mp4").stat().st_size > 0
    assert labelled.method == "training-free"


def test_a_network_without_names_has_numbers(clip: Path, tmp_path: Path) -> None:
    labelled = label_video(clip, tmp_path / "labels", lmanet.wrap(Network(), "single-frame", at="body"))
    assert list(labelled.shares) == ["class 0", "class 1", "class 2"]


def test_videos_that_cannot_be_labelled(clip: Path, weights: dict[str, str], tmp_path: Path) -> None:
    model = lmanet.load(weights["video"])
    for change, error, message in (
        ({"model": model.backbone}, InputError, r"got a ERFNet: expected an lmanet\.VideoModel"),
        ({"device": "cuda:99"}, InputError, "'cuda:99' is not there"),
        ({"window": 4}, InputError, "window 4"),
        ({"source": tmp_path / "none.mp4"}, VideoError, "no such file"),
        ({"model": "nowhere"}, WeightsError, "no weights named 'nowhere'"),
    ):
        given = {"source": clip, "outputs": tmp_path / "labels", "model": model} | change
        with pytest.raises(error, match=message):
            label_video(**given)  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "labels").exists()


# Scoring


@pytest.fixture(scope="module")
def data() -> TinyData:
    return tiny_data(sequences=2, frames=3)


def test_models_are_scored_side_by_side(data: TinyData, weights: dict[str, str]) -> None:
    models = find_models(weights["video"], methods=["single-frame", "training-free", "lmanet"])
    steps: list[tuple[int, int]] = []
    report = evaluate(
        data, models, device="cpu", precision="bf16", progress=lambda done, total: steps.append((done, total))
    )
    assert list(report.scores) == list(models) and report.data == data.name
    assert report.class_names == CLASSES.names
    assert report.settings == {"device": "cpu", "precision": "bf16"}
    assert steps == [(n, 6) for n in range(1, 7)]
    assert all(scores.frames == 6 and 0 <= scores.miou <= 1 for scores in report.scores.values())


def test_one_model_has_the_name_of_its_method_and_a_control_forgets(
    data: TinyData, weights: dict[str, str]
) -> None:
    steady, single = lmanet.load(weights["steady"]), lmanet.load(weights["single"])
    report = evaluate(data, steady, control=steady)
    assert list(report.scores) == ["training-free", CONTROL]
    alone = evaluate(data, {"by itself": single})
    assert list(alone.scores) == ["by itself"]
    # Of a stream that begins at every frame, this method says what the network says.
    assert report.scores[CONTROL].miou == alone.scores["by itself"].miou
    assert report.scores[CONTROL].flicker == alone.scores["by itself"].flicker
    assert report.scores["training-free"].flicker != alone.scores["by itself"].flicker


def test_memory_size_and_window_are_set_where_there_is_a_memory(
    data: TinyData, weights: dict[str, str]
) -> None:
    models = find_models(weights["video"], methods=["single-frame", "lmanet"])
    report = evaluate(data, models, memory_size=1, window=5)
    before = evaluate(data, {"x": models["lmanet"].adjusted(memory_size=1, window=5)})
    assert report.scores["lmanet"].per_class_iou == before.scores["x"].per_class_iou
    assert models["lmanet"].arguments["memory_size"] == 2
    with pytest.raises(InputError, match="single-frame has no window to be changed"):
        evaluate(data, models["single-frame"], window=5)
    with pytest.raises(InputError, match="window 4"):
        evaluate(data, models, window=4)


def test_networks_see_another_size_than_is_scored(data: TinyData, weights: dict[str, str]) -> None:
    model = lmanet.load(weights["steady"])
    report = evaluate(data, model, resize=(32, 48), device="cpu")
    assert report.settings["resize"] == [32, 48]
    session, confusion = Session(model, resize=(32, 48)), ConfusionMatrix(len(CLASSES))
    for sequence in data.sequences:
        session.reset()
        for index in range(len(sequence.frame_names)):
            label = sequence.label(index)
            assert label is not None and label.shape != (32, 48)
            confusion.update(label, session.step(sequence.image(index)).labels)
    expected = tuple(per_class_iou(confusion.compute()).tolist())
    assert report.scores["training-free"].per_class_iou == pytest.approx(expected, nan_ok=True)
    assert expected != pytest.approx(evaluate(data, model).scores["training-free"].per_class_iou, nan_ok=True)
    with pytest.raises(InputError, match="resize"):
        evaluate(data, model, resize=(0, 48))


def test_classes_must_be_the_datas(data: TinyData) -> None:
    def model(names: tuple[str, ...] | None, count: int = 3) -> VideoModel:
        with seeded():
            backbone = ERFNet(count).eval()
        backbone.classes = None if names is None else Classes(names, CLASSES.palette[:1] * len(names))
        return SingleFrame(backbone)

    assert evaluate(data, model(None)).scores.keys() == {"single-frame"}, "unknown names are taken on trust"
    for wrong, message in (
        (model(("sky", "road", "bus")), "class 2 is 'bus' in the model, 'car' in tiny/train"),
        (model(("sky", "road"), 2), "the model has 2 classes, tiny/train 3"),
        (model(None, 4), "the model has 4 classes, tiny/train 3"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(data, wrong)


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_threads(threads: int) -> None:
    set_threads(None)
    assert torch.get_num_threads() == threads
    set_threads(1)
    assert torch.get_num_threads() == 1
    with pytest.raises(InputError, match="threads 0: expected at least 1"):
        set_threads(0)
