"""Scores on the device of what was published from a CPU: `lmanet evaluate` on data that the caller has."""

from __future__ import annotations

import json
import sys
from typing import Any

import lmanet
from gpu_check.common import Part, run_part


def main(part: Part) -> None:
    """Every method that needs no training and the memory of labels on ERFNet, in both precisions."""
    reports: dict[str, Any] = {}
    part.content |= {"data": part.data, "reports": reports}
    assert part.data is not None, "the shell gives it"
    kinds = ["single-frame"] if part.dry else ["all"]
    for precision in ("fp32",) if part.dry else ("fp32", "bf16"):
        if part.left_s < 0:
            reports[precision] = {"left_out": "no time was left"}
            continue
        report = lmanet.evaluate(
            part.data,
            lmanet.find_models("label-memory-erfnet-camvid", methods=kinds),
            precision=precision,
            device=part.device.type,
        )
        reports[precision] = json.loads(report.to_json())
        part.save()


if __name__ == "__main__":
    sys.exit(run_part("evaluate", main))
