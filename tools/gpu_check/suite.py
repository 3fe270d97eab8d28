"""The project's tests on the GPU, in groups that each have their own time."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_check.common import Part, run_part

ROOT = Path(__file__).parents[2]
PROCESSES = 8
"""Of pytest-xdist, each with its own context on the GPU."""

IGNORED = (
    "ignore:TensorFloat32 tensor cores:UserWarning",
    "ignore:`isinstance(treespec, LeafSpec)` is deprecated:FutureWarning",
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
)
"""Warnings that are no errors here: what PyTorch advises on such cards, and what 2.11 says of itself."""


@dataclass(frozen=True)
class Group:
    """Tests that run together.

    Attributes:
        name: of the group.
        paths: files and folders; those that are not there are left out.
        keyword: pytest's `-k`.
        share: of the time that the groups have together.
        without: files of `paths` that are left out.
    """

    name: str
    paths: tuple[str, ...]
    keyword: str
    share: float
    without: tuple[str, ...] = ()


THIRD_PARTY = "tests/backbones/test_third_party.py"

GROUPS = (
    Group(
        "on the GPU: ops, methods, networks, session, metrics, losses",
        (
            *("tests/ops", "tests/methods", "tests/backbones", "tests/nn", "tests/test_session.py"),
            *("tests/evaluation", "tests/training", "tests/cli", "tests/zoo"),
        ),
        # What names its device in its id; tests/contracts/networks.py gives it.
        "cuda and not cuda:",
        0.40,
        ("tests/ops/test_flex.py", THIRD_PARTY),
    ),
    Group(
        "what takes a GPU by itself: training, segment, evaluate",
        (
            *("tests/training", "tests/test_api.py", "tests/cli/test_segment.py"),
            *("tests/cli/test_verbs.py", "tests/cli/test_train.py", "tests/cli/test_train_unlabelled.py"),
        ),
        "not cpu and not cuda",
        0.25,
        # It starts processes that talk to each other by Gloo, on the CPU: CI has it.
        ("tests/training/test_distributed.py",),
    ),
    Group("FlexAttention, compiled", ("tests/ops/test_flex.py",), "cuda and not cuda:", 0.20),
    # Hundreds of networks of other libraries: as many as there is time for.
    Group("networks of other libraries", (THIRD_PARTY,), "cuda and not cuda:", 0.15),
)

DRY = (
    Group("a handful", ("tests/ops/test_tiled.py",), "cpu and (window_of_one_cell or order_of_frames)", 0.5),
    Group("on a GPU, which is not here", ("tests/test_session.py",), "cuda and not cuda:", 0.5),
)


def main(part: Part) -> None:
    """Group after group; failures are written down and stop nothing."""
    found: list[dict[str, Any]] = []
    part.content |= {"processes": _processes(part), "groups": found, "totals": {}}
    groups = DRY if part.dry else GROUPS
    total, shares = part.left_s, sum(group.share for group in groups)
    for number, group in enumerate(groups):
        # What a group leaves of its time goes to those after it.
        rest = sum(later.share for later in groups[number:])
        limit_s = min(part.left_s, max(total * group.share / shares, part.left_s * group.share / rest)) - 8
        reports = part.work / f"tests-{number}.jsonl"
        reports.touch()
        seconds, code = _run(group, part, reports, limit_s) if limit_s > 5 else (0.0, None)
        found.append(_summary(group, reports, seconds, code))
        part.content["totals"] = dict(sum((Counter(one["counts"]) for one in found), Counter()))
        part.save()


def _processes(part: Part) -> int:
    with_xdist = importlib.util.find_spec("xdist") is not None and not part.dry
    return min(PROCESSES, os.cpu_count() or 1) if with_xdist else 1


def _run(group: Group, part: Part, reports: Path, limit_s: float) -> tuple[float, int | None]:
    """Run pytest for so long; its exit code, None if it was stopped."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=line",
        "-p",
        "gpu_check.reports",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",  # it warns of xdist, and a warning is an error here
    ]
    command += ["--continue-on-collection-errors", "-k", group.keyword, f"--basetemp={part.work / 'pytest'}"]
    command += [f"--ignore={path}" for path in group.without]
    command += [option for warning in IGNORED for option in ("-W", warning)]
    if importlib.util.find_spec("pytest_timeout") is not None:
        command += ["--timeout=60"]
    processes = _processes(part)
    if processes > 1:
        command += ["-n", str(processes), "--maxprocesses", str(processes)]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {
        **os.environ,
        "GPU_CHECK_REPORTS": str(reports),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "TORCHINDUCTOR_COMPILE_THREADS": "2",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(part.work / "hypothesis"),
    }
    command += [path for path in group.paths if (ROOT / path).exists()]
    print(f"$ {' '.join(command)}", flush=True)
    began_s = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        _end(process)
    return time.monotonic() - began_s, code


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt, then kill, all of a process group: the workers do not always follow their master."""
    for how in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process.poll() is None:
                os.killpg(process.pid, how)
                process.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _summary(group: Group, reports: Path, seconds: float, code: int | None) -> dict[str, Any]:
    ended = [json.loads(line) for line in reports.read_text(encoding="utf-8").splitlines()]
    bad = [one for one in ended if one["outcome"] in ("failed", "error")]
    slowest = sorted(ended, key=lambda one: -one["seconds"])[:8]
    return {
        "name": group.name,
        "paths": list(group.paths),
        "keyword": group.keyword,
        "seconds": round(seconds, 1),
        "exit_code": code,
        "stopped": code is None,
        "counts": dict(Counter(one["outcome"] for one in ended)),
        "failures": bad,
        "skipped": dict(Counter(one["reason"] for one in ended if one["outcome"] == "skipped")),
        "slowest": [{"test": one["test"], "seconds": one["seconds"]} for one in slowest],
    }


if __name__ == "__main__":
    sys.exit(run_part("tests", main))
