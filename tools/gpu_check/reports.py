"""A pytest plugin that writes one line of JSON for each test as it ends, so that a run that is killed leaves them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    """A test's setup, call or teardown has ended."""
    if report.when == "call" or report.outcome != "passed":
        outcome = report.outcome if report.when == "call" or report.skipped else "error"
        if hasattr(report, "wasxfail"):
            outcome = "xfailed"
        _write(report.nodeid, outcome, report.duration, "" if report.passed else _reason(report))


def pytest_collectreport(report: Any) -> None:
    """A file has been collected, or could not be."""
    if report.failed:
        _write(report.nodeid, "error", 0.0, _reason(report))


def _reason(report: Any) -> str:
    """The last lines of what pytest would print: the error and its place."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return f"{Path(crash.path).name}:{crash.lineno}: {crash.message}"[:1500]
    if isinstance(report.longrepr, tuple):  # of a skipped test: file, line, reason
        return str(report.longrepr[2])[:300]
    return "\n".join(str(report.longrepr).splitlines()[-6:])[-1500:]


def _write(test: str, outcome: str, seconds: float, reason: str) -> None:
    # Workers of pytest-xdist hand their reports on: only the process that started them writes.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        line = json.dumps({"test": test, "outcome": outcome, "seconds": round(seconds, 3), "reason": reason})
        with Path(os.environ["GPU_CHECK_REPORTS"]).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
