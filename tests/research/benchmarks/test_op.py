from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from lmanet.ops.dispatch import KERNELS
from lmanet.research.benchmarks import op
from lmanet.research.benchmarks.op import MAIN, Case, CaseResult, Measured, bench_op
from lmanet.research.benchmarks.peers import Peer
from lmanet.research.benchmarks.timing import Timing

TINY = Case(window=3, memory_size=2, height=4, width=6, key_channels=2, value_channels=3)


@pytest.mark.parametrize(("window", "height", "width"), [(1, 4, 6), (3, 4, 6), (5, 1, 9), (21, 4, 6)])
def test_useful_work_counts_places_on_the_map_and_in_the_window(window: int, height: int, width: int) -> None:
    cells = [(y, x) for y in range(height) for x in range(width)]
    radius = window // 2
    pairs = sum(abs(y - v) <= radius and abs(x - u) <= radius for y, x in cells for v, u in cells)
    case = replace(TINY, window=window, height=height, width=width)
    assert case.useful_flops() == 2 * (2 + 3) * 2 * pairs
    assert replace(case, backward=True).useful_flops() == 3 * case.useful_flops()
    assert case.useful_flops(everything=True) == 2 * (2 + 3) * 2 * len(cells) ** 2


def test_every_kernel_and_peer_is_measured_or_said_why_not() -> None:
    small = replace(TINY, peers=False)
    done: list[tuple[int, int]] = []
    results = bench_op([small, replace(small, backward=True)], repeats=2, on_case=lambda *d: done.append(d))
    assert done == [(0, 2), (1, 2), (2, 2)]
    for result in results:
        assert set(result.measured) | set(result.left_out) == set(KERNELS)
        assert "tiled" in result.measured and result.base == next(iter(result.measured))
        for one in [*result.measured.values(), *result.convolutions.values()]:
            assert 0 < one.timing.lowest_s <= one.timing.median_s <= one.timing.highest_s
            assert one.timing.runs == 2 and one.useful_flops > 0


def test_peers_without_gradients_bfloat16_or_room_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    query, keys, values = (torch.zeros(1, *n, 4, 6) for n in ((2,), (2, 2), (2, 3)))
    _, left_out = op._implementations(replace(TINY, backward=True), query, keys, values)
    assert left_out["compiled FlexAttention"] == "FlexAttention has no gradients on a CPU"

    monkeypatch.setattr(op, "MOST_SCRATCH_BYTES", 2**10)
    monkeypatch.setitem(op.PEERS, "compiled FlexAttention", op.PEERS["global attention (SDPA)"])
    attends, left_out = op._implementations(TINY, query, keys, values)
    # 9 places, 24 cells, 2·3 + 2·2 channels at once: 2160 numbers of four bytes.
    assert left_out["unfold"] == "it would hold 0.0 GiB at once, more than 0"
    assert "global attention (SDPA)" in attends


def test_a_peer_that_cannot_be_built_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object):
        raise RuntimeError("C++ compile error\n\nPython.h: no such file")

    monkeypatch.setattr(op, "PEERS", {"compiled": Peer(build, lambda *_: 0)})
    query, keys, values = (torch.zeros(1, *n, 4, 6) for n in ((2,), (2, 2), (2, 3)))
    attends, left_out = op._implementations(TINY, query, keys, values)
    assert "compiled" not in attends
    assert left_out["compiled"] == "it cannot be built here: C++ compile error"


def result(seconds: dict[str, float]) -> CaseResult:
    measured = {name: Measured(Timing(s, s / 100, s * 100, 3), 600, 2**20) for name, s in seconds.items()}
    # 1000 and 2000 operations a second.
    peak = {"a": Measured(Timing(1, 0, 9, 3), 1000, None), "b": Measured(Timing(2, 0, 9, 3), 4000, None)}
    return CaseResult(MAIN, measured, {"unfold": "no room"}, peak)


def test_ratios_and_shares() -> None:
    one = result({"native": 0.5, "tiled": 6.0})
    assert (one.base, one.ratio("native"), one.ratio("tiled")) == ("native", 1, 12)
    assert one.peak_flops_per_s == 2000
    assert one.share_of_peak("native") == 600 / 0.5 / 2000


def test_results_survive_json() -> None:
    one = result({"native": 0.5, "tiled": 6.0})
    content = json.loads(json.dumps(asdict(one)))
    assert CaseResult.from_json(content) == one
    del content["case"]["window"], content["measured"]["native"]["useful_flops"]
    with pytest.raises(TypeError, match="useful_flops"):
        CaseResult.from_json(content)
