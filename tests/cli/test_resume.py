"""`--resume`: what is there and whole is not made again, and the rest is as if there had been no interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from torch import Tensor

import lmanet
from lmanet.cli.main import main
from lmanet.errors import NetworkError
from lmanet.video import VideoSink

FRAMES = 24
METHODS = ["single-frame", "lmanet"]


def run(*arguments: object) -> int:
    return main(["segment", *map(str, arguments), "--device", "cpu"])


def read(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            found[path.stem] = np.array(image)
    return found


def times(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in folder.glob("*.png")}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(params=["images", "clip.mkv"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A square that moves over noise, as images or as a video."""
    rng = np.random.default_rng(0)
    frames = []
    for index in range(FRAMES):
        frame = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        frame[10:30, index : index + 20] = (200, 30, 90)
        frames.append(frame)
    path = tmp_path / request.param
    if path.suffix:
        with VideoSink(path, width=64, height=48, fps=25) as sink:
            for index, frame in enumerate(frames):
                sink.write(frame, index / 25)
    else:
        path.mkdir()
        for index, frame in enumerate(frames):
            cv2.imwrite(str(path / f"f{index}.png"), frame)
    return path


def model(weights: Path, method: str) -> list[object]:
    return ["--weights", weights if method == "lmanet" else weights.with_name("single.safetensors")]


@pytest.mark.parametrize("method", METHODS)
def test_gaps_are_filled_with_what_an_uninterrupted_run_makes(
    method: str, source: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Both methods depend on no frames but the last ones: the labels are the same to the bit.
    whole, folder = tmp_path / "whole", tmp_path / "labels"
    assert run(source, "-o", whole, *model(weights, method)) == 0
    assert run(source, "-o", folder, *model(weights, method), "--resume") == 0
    names = sorted(read(folder), key=lambda name: int(name.strip("f")))
    (folder / f"{names[3]}.png").unlink()
    (folder / f"{names[4]}.png").write_bytes((folder / f"{names[4]}.png").read_bytes()[:-30])
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(folder / f"{names[12]}.png")  # of somebody else
    for name in names[18:]:
        (folder / f"{name}.png").unlink()
    before = times(folder)
    capsys.readouterr()
    assert run(source, "-o", folder, *model(weights, method), "--resume") == 0
    said = capsys.readouterr().err
    assert f"9 frames by {model(weights, method)[1]}" in said
    assert same(read(folder), read(whole))
    made = {names[3], names[4], names[12], *names[18:]}
    after = times(folder)
    assert {name for name in names if before.get(name) != after[name]} == made
    assert {path.name for path in folder.iterdir()} == {*(f"{name}.png" for name in names), "lmanet.json"}


def test_what_is_whole_is_not_read_again(weights: Path, tmp_path: Path) -> None:
    images, folder = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    for index in range(8):
        cv2.imwrite(str(images / f"{index}.png"), np.full((48, 64, 3), 20 * index, np.uint8))
    assert run(images, "-o", folder, *model(weights, "single-frame")) == 0
    (images / "5.png").write_bytes(b"damaged")
    (folder / "7.png").unlink()
    assert run(images, "-o", folder, *model(weights, "single-frame"), "--resume") == 0
    assert len(read(folder)) == 8


def test_an_interrupted_run_is_gone_on_with(source: Path, weights: Path, tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "labels"
    assert run(source, "-o", whole, *model(weights, "lmanet")) == 0
    stops: list[Callable[[], None]] = []
    done = lmanet.label_video(
        source,
        folder,
        str(weights),
        device="cpu",
        on_open=lambda run: stops.append(run.stop),
        progress=lambda done: stops[0]() if done == 9 else None,
    )
    assert done.stopped and done.frames == 9 == len(read(folder))
    done = lmanet.label_video(source, folder, str(weights), device="cpu", resume=True)
    assert (done.frames, done.found, done.stopped) == (FRAMES - 9, 9, False)
    assert same(read(folder), read(whole))
    done = lmanet.label_video(source, folder, str(weights), device="cpu", resume=True)
    assert (done.frames, done.found, done.outputs) == (0, FRAMES, ())


def test_more_frames_than_before(weights: Path, tmp_path: Path) -> None:
    images, folder = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    for count in (5, 9):
        for index in range(count):
            cv2.imwrite(str(images / f"{index}.png"), np.full((48, 64, 3), 20 * index, np.uint8))
        done = lmanet.label_video(images, folder, str(weights), device="cpu", resume=True)
        assert (done.frames, done.found) == ((5, 0) if count == 5 else (4, 5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--window", "3"], "model arguments was"),
        (["--resize", "24", "32"], "settings resize was null, is [24, 32]"),
        (["--precision", "bf16"], "settings precision was fp32, is bf16"),
        (["--method", "flow-average"], "model method was lmanet, is flow-average"),
    ],
)
def test_maps_of_other_settings_are_refused(
    options: list[str],
    words: str,
    source: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "labels"
    assert run(source, "-o", folder, *model(weights, "lmanet")) == 0
    before = times(folder)
    assert run(source, "-o", folder, *model(weights, "lmanet"), *options, "--resume") == 2
    said = capsys.readouterr().err
    assert "holds label maps of another run" in said and words in said
    assert times(folder) == before


def test_maps_of_another_source_are_refused_and_a_moved_one_is_the_same(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labels"
    for name, colour in (("a/images", 20), ("b/images", 20), ("c/images", 21), ("d/other", 20)):
        (tmp_path / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name / "0.png"), np.full((48, 64, 3), colour, np.uint8))
    assert run(tmp_path / "a/images", "-o", folder, *model(weights, "lmanet")) == 0
    assert run(tmp_path / "b/images", "-o", folder, *model(weights, "lmanet"), "--resume") == 0
    assert run(tmp_path / "c/images", "-o", folder, *model(weights, "lmanet"), "--resume") == 2
    assert "source first frame was" in capsys.readouterr().err
    assert run(tmp_path / "d/other", "-o", folder, *model(weights, "lmanet"), "--resume") == 2
    assert "source name was images, is other" in capsys.readouterr().err


def test_maps_that_nobody_knows_of_are_refused(
    source: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labels"
    assert run(source, "-o", folder, *model(weights, "lmanet")) == 0
    for content in (b"", b"{", b"[]", b"{}", b"\xff"):
        (folder / "lmanet.json").write_bytes(content)
        assert run(source, "-o", folder, *model(weights, "lmanet"), "--resume") == 2
        assert "no lmanet.json that says how they were made" in capsys.readouterr().err
    (folder / "lmanet.json").unlink()
    assert run(source, "-o", folder, *model(weights, "lmanet"), "--resume") == 2


@pytest.mark.filterwarnings("always::UserWarning")
def test_a_record_of_another_format_can_be_replaced(
    source: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labels"
    assert run(source, "-o", folder, *model(weights, "single-frame")) == 0
    record = json.loads((folder / "lmanet.json").read_text())
    (folder / "lmanet.json").write_text(json.dumps({**record, "format": 2}))
    assert run(source, "-o", folder, *model(weights, "single-frame"), "--resume") == 2
    assert "has format 2, this lmanet reads format 1: go on with" in capsys.readouterr().err
    assert run(source, "-o", folder, *model(weights, "single-frame")) == 0
    assert f"warning: {folder} holds {FRAMES} PNG files of another run: those" in capsys.readouterr().err
    assert json.loads((folder / "lmanet.json").read_text()) == record


@pytest.mark.filterwarnings("always::UserWarning")
def test_maps_into_the_folder_of_the_images_are_refused_without_a_warning(
    source: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(source, "-o", source, *model(weights, "single-frame")) == 2
    said = capsys.readouterr().err
    assert "would overwrite the input" in said and "warning" not in said


@pytest.mark.filterwarnings("always::UserWarning")
def test_without_resume_maps_of_another_run_are_told(
    source: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labels"
    assert run(source, "-o", folder, *model(weights, "single-frame")) == 0
    assert run(source, "-o", folder, *model(weights, "single-frame")) == 0
    assert "warning" not in capsys.readouterr().err
    assert run(source, "-o", folder, *model(weights, "lmanet")) == 0
    assert f"warning: {folder} holds {FRAMES} PNG files of another run of {source}" in capsys.readouterr().err


@pytest.mark.filterwarnings("always::UserWarning")
def test_a_mixed_folder_gives_no_map_of_another_run(source: Path, weights: Path, tmp_path: Path) -> None:
    # Another run had replaced the record and a few maps only, before it was stopped.
    whole, folder = tmp_path / "whole", tmp_path / "labels"
    assert run(source, "-o", whole, *model(weights, "lmanet")) == 0
    assert run(source, "-o", folder, *model(weights, "single-frame")) == 0

    def stop(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        lmanet.label_video(source, folder, str(weights), device="cpu", progress=stop)
    assert caught.value.__notes__ == [f"Kept: {folder} (5 frames)"]
    assert run(source, "-o", folder, *model(weights, "lmanet"), "--resume") == 0
    assert same(read(folder), read(whole))


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([], "a video cannot be gone on with"),
        (["-o", "x.mp4"], "not with x.mp4"),
        (["-o", "x.mp4", "-o", "labels"], "not with x.mp4"),
        (["-o", "a", "-o", "b"], "not with several"),
    ],
)
def test_only_a_folder_of_maps_can_be_gone_on_with(
    outputs: list[str],
    words: str,
    source: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run(source, *outputs, *model(weights, "lmanet"), "--resume") == 2
    assert words in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_the_record_is_small_json(source: Path, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    assert run(source, "-o", folder, *model(weights, "lmanet")) == 0
    record = json.loads((folder / "lmanet.json").read_text())
    assert list(record) == ["format", "lmanet", "run", "source", "model", "settings"]
    assert record["source"]["path"] == str(source)
    assert (record["source"]["width"], record["source"]["height"]) == (64, 48)
    assert record["model"]["method"] == "lmanet" and record["model"]["arguments"]["memory_size"] == 2
    assert record["settings"] == {"resize": None, "precision": "fp32"}
    assert (folder / "lmanet.json").stat().st_size < 4000


def test_a_network_that_fails_keeps_its_maps_and_is_gone_on_with(
    source: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "labels"
    step = lmanet.LMANet.step
    count = 0

    def fails(model: lmanet.LMANet, images: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        nonlocal count
        count += 1
        if count == 8:
            raise RuntimeError("out of memory")
        return step(model, images, state)

    with (
        monkeypatch.context() as patched,
        pytest.raises(
            NetworkError, match=r"^frame .*7: .* failed on a frame of 48×64: RuntimeError: out of"
        ) as e,
    ):
        patched.setattr(lmanet.LMANet, "step", fails)
        lmanet.label_video(source, folder, str(weights), device="cpu")
    assert e.value.__notes__ == [f"Kept: {folder} (7 frames)"]
    assert lmanet.label_video(source, folder, str(weights), device="cpu", resume=True).frames == FRAMES - 7
