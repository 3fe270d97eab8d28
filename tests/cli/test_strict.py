"""`lmanet segment` on damaged input, with --strict and without."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmanet.cli.main import main
from lmanet.video import VideoSink


def run(*arguments: object) -> int:
    return main(["segment", *map(str, arguments)])


def test_a_bad_image_is_skipped_unless_strict(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(5):
        image = np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(image).save(folder / f"f{index}.png")
    whole = (folder / "f4.png").read_bytes()
    (folder / "f4.png").write_bytes(whole[: len(whole) // 2])
    assert run(folder, "-o", tmp_path / "labels", "-o", tmp_path / "out.mp4", "--weights", weights) == 0
    assert "1 image skipped: f4.png" in capsys.readouterr().err
    assert len(list((tmp_path / "labels").glob("*.png"))) == 4
    assert run(folder, "-o", tmp_path / "strict", "--weights", weights, "--strict") == 2
    assert "f4.png cannot be read" in capsys.readouterr().err


def test_images_of_two_sizes_are_told_before_any_work(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, width in enumerate([64, 64, 64, 60]):
        Image.new("RGB", (width, 48)).save(folder / f"f{index}.png")
    assert run(folder, "-o", tmp_path / "labels", "-o", tmp_path / "out.mp4", "--weights", weights) == 2
    assert "f3.png (60×48)" in capsys.readouterr().err
    assert (
        sorted(path.name for path in tmp_path.iterdir() if "out" in path.name or path.name == "labels") == []
    )


def test_a_video_that_is_cut_off_is_an_error_if_strict(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    rng = np.random.default_rng(0)
    with VideoSink(whole, width=64, height=48, fps=Fraction(10)) as sink:
        for index in range(20):
            sink.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), index / 10)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert run(whole, "-o", tmp_path / "a", "--weights", weights, "--strict") == 0
    assert run(cut, "-o", tmp_path / "b", "--weights", weights, "--strict") == 2
    assert "cut off or damaged" in capsys.readouterr().err
