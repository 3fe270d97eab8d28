"""The installation: with its compiled kernel, and without."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lmanet.cli.main import main
from lmanet.ops import native

PROJECT = Path(__file__).parent.parent

# The extension as good as absent: the import system asks this finder before all others.
WITHOUT_KERNEL = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "lmanet.ops._native":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())

import torch
from lmanet.cli.main import main
from lmanet.errors import InputError
from lmanet.ops import local_attention
tensors = [torch.ones(shape) for shape in [(1, 8, 9, 9), (1, 2, 8, 9, 9), (1, 2, 8, 9, 9)]]
assert torch.equal(local_attention(*tensors, window=5), local_attention(*tensors, window=5, backend="tiled"))
try:
    local_attention(*tensors, window=5, backend="native")
except InputError as error:
    assert "not built" in str(error), error
else:
    raise AssertionError("native ran without its extension")
assert main(["info"]) == 0
"""

OPENMP_RUNTIMES = """
import torch
def runtimes():
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "/" in line}
    return {path for path in paths if any(name in path for name in ("libgomp", "libomp", "libiomp"))}
torch.ones(1 << 20).exp()
before = runtimes()
from lmanet.ops import local_attention
local_attention(*map(torch.ones, [(1, 8, 9, 9), (1, 2, 8, 9, 9), (1, 2, 8, 9, 9)]), window=5, backend="native")
assert before and runtimes() == before, (before, runtimes())
"""

needs_kernel = pytest.mark.skipif(
    not native.variants(), reason=native.why_not_built or "the kernel was not built"
)


def run_python(code: str) -> str:
    """What a fresh interpreter prints that runs `code`; a failure of it fails the test."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_kernel
def test_info_names_the_instruction_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    fastest, *_ = variants = native.variants()
    assert f"native: {fastest} (of {', '.join(variants)})\n" in capsys.readouterr().out


def test_without_the_kernel_attention_works_and_info_says_what_to_do() -> None:
    shown = run_python(WITHOUT_KERNEL)
    line = next(line for line in shown.splitlines() if line.startswith("native: "))
    assert "not available" in line and "not built" in line and "g++" in line


@needs_kernel
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_kernel_shares_the_openmp_runtime_of_torch() -> None:
    run_python(OPENMP_RUNTIMES)


def build_wheel(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel as pip does on a machine where CXX is no compiler."""
    pytest.importorskip("scikit_build_core", reason="the build requirements are not installed (see Makefile)")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
    ]
    command += [f"--config-settings=build-dir={folder / 'build'}", str(PROJECT)]
    environment = {**os.environ, "CXX": str(folder / "no-compiler"), **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_without_a_compiler_the_wheel_is_pure_python(tmp_path: Path) -> None:
    done = build_wheel(tmp_path, LMANET_REQUIRE_NATIVE="0")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.whl")
    assert path.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    assert "lmanet/ops/native.py" in names and "lmanet/zoo/weights/erfnet-camvid.safetensors" in names
    assert not [name for name in names if "csrc" in name or name.endswith((".so", ".cpp"))]


def test_where_the_kernel_is_required_a_missing_compiler_is_an_error(tmp_path: Path) -> None:
    done = build_wheel(tmp_path, LMANET_REQUIRE_NATIVE="1")
    assert done.returncode != 0 and "no-compiler" in done.stdout + done.stderr
    assert not list(tmp_path.glob("*.whl"))
