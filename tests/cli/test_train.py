from __future__ import annotations

from pathlib import Path

import pytest

from lmanet.cli.main import main


def test_train_says_at_once_that_it_cannot_write(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for preset in (["erfnet"], ["lmanet", "--weights", str(weights.with_name("single.safetensors"))]):
        out = tmp_path / "file" / "out"
        assert main(["train", *preset, "--data", "synthetic:", "--tensorboard", "-o", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"lmanet: {out}: cannot be written") and len(error.splitlines()) == 1


def test_train_refuses_a_crop_for_a_memory(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "lmanet", "--data", "synthetic:", "-o", tmp_path / "x"]
    command += ["--weights", weights.with_name("single.safetensors"), "--augmentation.crop", "48", "64"]
    assert main([str(a) for a in command]) == 2
    assert "augmentation.crop (48, 64)" in capsys.readouterr().err
