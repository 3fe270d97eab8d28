from __future__ import annotations

import re
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from contracts.networks import DEVICES
from lmanet.cli.main import main
from lmanet.session import Session
from lmanet.video import VideoSink, open_source
from lmanet.zoo import load


def run(*arguments: object) -> int:
    return main(["segment", *map(str, arguments)])


def read(path: Path) -> np.ndarray:
    """The class ids of a palette PNG."""
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


def test_video_and_label_maps(
    clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, folder = tmp_path / "out.mp4", tmp_path / "labels"
    assert run(clip, "-o", video, "-o", folder, "--weights", weights) == 0
    with open_source(video) as out:
        times = [frame.time_s for frame in out]
    np.testing.assert_allclose(times, np.arange(5) / 10, atol=1e-4)

    session = Session(load(str(weights)))
    maps = sorted(folder.glob("*.png"))
    with open_source(clip) as source:
        for frame, path in zip(source, maps, strict=True):
            np.testing.assert_array_equal(read(path), session.step(frame.image).labels)
    summary = capsys.readouterr().err
    assert "5 frames" in summary and "frames/s" in summary and "%" in summary


def test_without_a_name_the_output_is_named_after_the_input(
    clip: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    cv2.imwrite("still.png", np.zeros((48, 64, 3), np.uint8))
    assert run(clip, "--weights", weights) == run("still.png", "--weights", weights) == 0
    assert run(".", "--weights", weights) == 0
    names = {path.name for path in Path().iterdir()}
    assert names == {f"{clip.stem}-labelled.mp4", "still.png", "still-labelled.png", "here-labelled.mp4"}


def test_the_summary_s_time_covers_closing_the_video(
    clip: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    close, wait_s = VideoSink.close, 3.0

    def close_slowly(sink: VideoSink) -> None:
        time.sleep(wait_s)
        close(sink)

    monkeypatch.setattr(VideoSink, "close", close_slowly)
    assert run(clip, "-o", tmp_path / "out.mp4", "--weights", weights) == 0
    said = re.search(r"in ([0-9.]+) s: ([0-9.]+) frames/s", capsys.readouterr().err)
    assert said is not None
    assert float(said[1]) >= wait_s and float(said[2]) <= 5 / wait_s + 0.1


@pytest.mark.parametrize("option", [["--method", "single-frame"], ["--no-memory"]])
def test_without_memory_every_frame_is_by_itself(
    option: list[str], clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labels"
    assert run(clip, "-o", folder, "--weights", weights, *option) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    old = option == ["--no-memory"]
    assert warnings == ["warning: --no-memory is --method single-frame now: use that"] * old
    single = load(str(weights.with_name("single.safetensors")))
    with open_source(clip) as source:
        for frame, path in zip(source, sorted(folder.glob("*.png")), strict=True):
            alone = Session(single).step(frame.image).labels
            np.testing.assert_array_equal(read(path), alone)


def test_image_folder_keeps_names(weights: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("b_2", "a_1"):
        cv2.imwrite(str(images / f"{name}.jpg"), np.full((40, 33, 3), 90, np.uint8))
    assert run(images, "-o", tmp_path / "labels", "--weights", weights) == 0
    assert {path.name for path in (tmp_path / "labels").glob("*.png")} == {"a_1.png", "b_2.png"}


@pytest.mark.parametrize(("option", "fps"), [([], 30), (["--fps", "12.5"], 12.5)])
def test_image_folder_s_frame_rate(option: list[str], fps: float, weights: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in "abc":
        cv2.imwrite(str(images / f"{name}.png"), np.full((40, 56, 3), 90, np.uint8))
    assert run(images, "-o", tmp_path / "out.mp4", "--weights", weights, *option) == 0
    with open_source(tmp_path / "out.mp4") as out:
        np.testing.assert_allclose([frame.time_s for frame in out], np.arange(3) / fps, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_device_is_the_one_asked_for(
    device: str, clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(clip, "-o", tmp_path / "labels", "--weights", weights, "--device", device) == 0
    assert f" on {device} in " in capsys.readouterr().err


@pytest.mark.parametrize("view", ["overlay", "labels", "side-by-side"])
def test_single_image_to_view(view: str, weights: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.full((40, 56, 3), 90, np.uint8))
    out = tmp_path / "out.png"
    assert run(tmp_path / "in.png", "-o", out, "--weights", weights, "--view", view, "--opacity", 1) == 0
    height, width = cv2.imread(str(out)).shape[:2]
    assert (height, width) == (40, 56) if view != "side-by-side" else width > 2 * 56


def test_resize_keeps_the_outputs_size(clip: Path, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    assert (
        run(clip, "-o", folder, "--weights", weights, "--resize", 24, 32, "--memory-size", 1, "--window", 3)
        == 0
    )
    assert [read(path).shape for path in folder.glob("*.png")] == 5 * [(50, 62)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.mp4", "-o", "out.mp4"], ["missing.mp4", "no such file"]),
        (["camera:99"], ["camera"]),
        (["CLIP", "-o", "out.xyz"], [".xyz", ".mp4"]),
        (["CLIP", "-o", "out.mp4", "--weights", "nonsense"], ["nonsense", ".safetensors"]),
        (["CLIP", "-o", "out.mp4", "--window", "4"], ["window 4", "odd"]),
        (["CLIP", "-o", "out.mp4", "--threads", "0"], ["threads 0"]),
        (
            ["CLIP", "-o", "out.mp4", "--fps", "24"],
            ["clip.mp4", "24.0 frames per second", "folders of images"],
        ),
        (["CLIP", "-o", "out", "--opacity", "2"], ["opacity 2.0", "0 ", "1 "]),
        (["CLIP", "-o", "out.mp4", "--device", "cuda:99"], ["'cuda:99' is not there", "cpu"]),
        (["CLIP", "-o", "out.mp4", "--method", "best"], ["no method named 'best'", "training-free"]),
        (["CLIP", "-o", "out.mp4", "--method", "label-memory"], ["label-memory is trained", "lmanet train"]),
        (
            ["CLIP", "-o", "out.mp4", "--method", "single-frame", "--window", "5"],
            ["single-frame has no window"],
        ),
    ],
)
def test_errors_are_one_line_and_status_2(
    arguments: list[str],
    words: list[str],
    clip: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(clip) if a == "CLIP" else a for a in arguments]
    if "--weights" not in arguments:
        arguments += ["--weights", str(weights)]
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and all(word in error[0] for word in words), error
    assert not list(tmp_path.glob("*out*"))


def test_no_memory_without_the_single_frame_weights(
    clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights.with_name("single.safetensors").unlink()
    assert run(clip, "-o", tmp_path / "labels", "--weights", weights, "--method", "single-frame") == 2
    assert f"there is no file {weights.with_name('single.safetensors')}" in capsys.readouterr().err


def test_truncated_video_yields_what_it_has(
    clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Matroska has no index at its end that a cut would take away.
    whole = tmp_path / "whole.mkv"
    rng = np.random.default_rng(0)
    with VideoSink(whole, width=64, height=48, fps=Fraction(10)) as sink:
        for i in range(20):
            sink.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), i / 10)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    folder = tmp_path / "labels"
    assert run(cut, "-o", folder, "--weights", weights) == 0
    assert 0 < len(list(folder.glob("*.png"))) < 20
    assert "warning" in capsys.readouterr().err


@pytest.mark.filterwarnings("always::FutureWarning")
def test_weights_are_found_by_their_name_of_before(
    clip: Path, bundled_demo: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(clip, "-o", tmp_path / "labels", "--weights", "lmanet-erfnet-synthetic") == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "warning: lmanet-erfnet-synthetic is called label-memory-erfnet-synthetic now: use that name"
    )
    assert not any(line.startswith("warning") for line in said[1:])
