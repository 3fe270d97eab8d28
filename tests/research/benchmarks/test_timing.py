from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lmanet.errors import OutputError
from lmanet.evaluation.results import Environment
from lmanet.ops.native import describe
from lmanet.research.benchmarks.timing import Timing, time_in_turn, write_results


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which stands still unless a test moves it."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_things_run_in_turn_and_the_first_run_does_not_count(clock: list[float]) -> None:
    order = []
    durations_s = {"a": [100.0, 3.0, 1.0, 2.0, 10.0], "b": [50.0, 4.0, 4.0, 4.0, 8.0]}

    def thing(name: str):
        def run() -> None:
            order.append(name)
            clock[0] += durations_s[name][order.count(name) - 1]

        return run

    timings = time_in_turn({name: thing(name) for name in durations_s}, repeats=4)

    assert order == ["a", "b"] * 5
    assert timings == {
        "a": Timing(median_s=2.5, lowest_s=1.0, highest_s=10.0, runs=4),
        "b": Timing(median_s=4.0, lowest_s=4.0, highest_s=8.0, runs=4),
    }


def test_short_things_are_called_until_a_run_is_long_enough(clock: list[float]) -> None:
    called = []

    def short() -> None:
        called.append(0)
        clock[0] += 0.25

    assert time_in_turn({"short": short}, repeats=2, least_s=1.0) == {"short": Timing(0.25, 0.25, 0.25, 2)}
    assert len(called) == 1 + 2 * 4


def test_slow_things_have_fewer_runs(clock: list[float]) -> None:
    order = []

    def thing(name: str, seconds: float):
        def run() -> None:
            order.append(name)
            clock[0] += seconds

        return run

    things = {"fast": thing("fast", 1), "slow": thing("slow", 4), "slower": thing("slower", 99)}
    timings = time_in_turn(things, repeats=5, budget_s=10)
    assert {name: timing.runs for name, timing in timings.items()} == {"fast": 5, "slow": 2, "slower": 1}
    assert order[3:] == ["fast", "slow", "slower", "fast", "slow", "fast", "fast", "fast"]


def test_results_name_command_settings_and_machine(tmp_path: Path) -> None:
    path = tmp_path / "results" / "x.json"
    path.parent.mkdir()
    path.write_text("old")
    timing = Timing(median_s=2.5, lowest_s=1.0, highest_s=10.0, runs=4)
    write_results(path, "lmanet bench x", {"frames": 3}, {"timings": {"a": asdict(timing)}, "x": "ä"})

    assert json.loads(path.read_text()) == {
        "schema_version": 1,
        "command": "lmanet bench x",
        "settings": {"frames": 3},
        "environment": asdict(Environment.here()),
        "kernel": describe(),
        "timings": {"a": {"median_s": 2.5, "lowest_s": 1.0, "highest_s": 10.0, "runs": 4}},
        "x": "ä",
    }
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]


def test_results_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken: cannot be written"):
        write_results(tmp_path / "taken", "lmanet bench x", {}, {})
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]
