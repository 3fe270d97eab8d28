"""Every committed results file of a benchmark is whole, and what the benchmarks write today is read."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from lmanet.evaluation.results import Environment
from lmanet.research.benchmarks.model import Measured
from lmanet.research.benchmarks.op import CaseResult
from lmanet.research.benchmarks.timing import Timing

CONTENTS = {
    path.name: content
    for path in sorted((Path(__file__).parents[3] / "results").glob("*.json"))
    if str((content := json.loads(path.read_text())).get("command", "")).startswith("lmanet bench ")
}


def test_there_are_some() -> None:
    assert {"stream.json", "training.json"} <= set(CONTENTS)


@pytest.mark.parametrize("name", CONTENTS)
def test_results_follow_the_schema(name: str) -> None:
    content = dict(CONTENTS[name])
    assert content.pop("schema_version") == 1
    what, *options = content.pop("command").removeprefix("lmanet bench ").split()
    assert name == ("pspnet.json" if options else f"{what}.json")
    assert options in ([], ["--network", "pspnet101"])
    assert isinstance(content.pop("settings"), dict)
    environment = Environment(**content.pop("environment"))
    assert all(isinstance(getattr(environment, field.name), str | int) for field in fields(environment))
    assert environment.threads >= 1
    assert isinstance(content.pop("kernel"), str)
    if what == "op":
        results = [CaseResult.from_json(case) for case in content.pop("cases")]
        timings = [one.timing for r in results for one in (*r.measured.values(), *r.convolutions.values())]
        assert all(one.useful_flops > 0 for r in results for one in r.measured.values())
    elif what == "model":
        timings = [Measured.from_json(one).timing for one in content.pop("networks")]
    else:
        timings = [Timing(**timing) for timing in content.pop("timings").values()]
    assert timings and not content
    for timing in timings:
        assert 0 < timing.lowest_s <= timing.median_s <= timing.highest_s and timing.runs >= 1
