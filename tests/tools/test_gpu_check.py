"""`tools/gpu_check.sh` on the CPU: all parts with tiny sizes take a minute of two free cores, so that they are slow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "gpu_check.sh"
PARTS = ["environment", "op", "model", "segment", "evaluate", "tests"]

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or sys.platform != "linux", reason="the script is for bash on Linux"
)


def check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """Exit code, what was printed, and the files, of a dry run with data."""
    folder = tmp_path_factory.mktemp("gpu check")
    data = folder / "video"
    make_data(data)
    ran = check(str(folder / "out"), "--dry", "--data", f"folder:{data}")
    files = {path.stem: json.loads(path.read_text()) for path in (folder / "out").glob("*.json")}
    return ran.returncode, ran.stdout + ran.stderr, files


def make_data(folder: Path) -> None:
    from PIL import Image

    from lmanet.data.camvid import CAMVID_CLASSES
    from lmanet.data.synthetic import StreetConfig, StreetSequence

    street = StreetSequence(StreetConfig(frames=2, size=(32, 48)))
    for kind in ("images", "labels"):
        (folder / kind / "one").mkdir(parents=True)
    for i in range(2):
        Image.fromarray(street.image(i)).save(folder / "images" / "one" / f"{i}.png")
        Image.fromarray(street.label(i)).save(folder / "labels" / "one" / f"{i}.png")
    (folder / "classes.json").write_text(json.dumps({"names": CAMVID_CLASSES.names, "fps": 15}))
    (folder / "val.txt").write_text("one\n")


@pytest.mark.slow
def test_a_dry_run_goes_through(dry) -> None:
    code, said, files = dry
    assert code == 0, said
    assert sorted(files) == sorted(PARTS)
    for name, content in files.items():
        assert content["complete"] and content["dry"] and content["part"] == name, said
    assert [line.split(",")[0] for line in said.splitlines() if line.startswith("==")] == [
        f"== {p}" for p in PARTS
    ]


@pytest.mark.slow
def test_what_could_not_run_says_why_and_nothing_else_is_missing(dry) -> None:
    files = dry[2]
    why = {row["left_out"] for row in files["op"]["rows"] if "left_out" in row}
    assert why == {"dry runs have FlexAttention once, uncompiled, as it is on a CPU"}
    assert all("frame" in row for row in files["model"]["rows"]), files["model"]["rows"]
    assert set(files["model"]["left_out"]) <= {"unet-camvid"}  # its library is not needed
    assert all("alone_ms" in row for row in files["segment"]["rows"]), files["segment"]["rows"]
    assert [ran["exit_code"] for ran in files["segment"]["cli"]] == [0]


@pytest.mark.slow
def test_every_backend_is_right(dry) -> None:
    for row in dry[2]["op"]["rows"]:
        if "error" in row:
            assert row["error"] < (1e-4 if row["dtype"] == "float32" else 2e-2), row


@pytest.mark.slow
def test_every_method_is_measured(dry) -> None:
    from lmanet.methods import METHODS

    methods = {row["method"].split(",")[0] for row in dry[2]["model"]["rows"]}
    assert methods == {name for name in METHODS if METHODS[name].__module__.startswith("lmanet.")}


@pytest.mark.slow
def test_labels_on_the_device_are_those_of_the_cpu(dry) -> None:
    rows = [row for row in dry[2]["segment"]["rows"] if row["clip"] == "480x360"]
    assert {row["labels_as_on_cpu_in_fp32"]["least"] for row in rows if row["precision"] == "fp32"} == {1.0}


def test_one_part_alone(tmp_path: Path) -> None:
    ran = check(str(tmp_path / "out"), "--dry", "--only", "environment")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["environment.json", "log.txt"]
    content = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert content["complete"] and content["packages"]["torch"] and "single-frame" in content["methods"]


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    ran = check(str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert ran.returncode == 2 and "sees no GPU here: --dry" in ran.stdout


@pytest.mark.parametrize("arguments", [[], ["out", "--wheels"], ["out", "more"], ["out", "--wet"]])
def test_usage(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = check(*arguments)
    assert ran.returncode == 64 and ran.stderr.startswith("usage: tools/gpu_check.sh OUT"), ran.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"tests": {"complete": True, "groups": [{"exit_code": 0}]}}, 0, ""),
        ({"tests": {"complete": True, "groups": [{"exit_code": 1}]}}, 1, ""),
        ({"tests": {"complete": True, "groups": [{"exit_code": None}]}}, 1, ""),
        ({"tests": {"complete": False, "groups": []}}, 2, "DID NOT END: killed, or never begun"),
        ({}, 2, "DID NOT END"),
    ],
)
def test_exit_codes(files: dict[str, Any], code: int, said: str, tmp_path: Path) -> None:
    whole = {"name": "a", "counts": {"passed": 1}, "seconds": 1.0, "stopped": False, "failures": []}
    for name, content in files.items():
        content["groups"] = [{**whole, **group} for group in content["groups"]]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    ran = subprocess.run(
        [sys.executable, "-m", "gpu_check.summary", str(tmp_path), "tests"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code and said in ran.stdout, ran.stdout + ran.stderr
