"""What came of the check, on one screen; the exit code says whether all parts ran and all tests passed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FAILURES_SHOWN = 8


def main(out: Path, parts: list[str]) -> int:
    """Print the summary of the parts' files; 0 all ran, 1 tests failed, 2 a part did not end."""
    incomplete, failed = False, False
    for name in parts:
        path = out / f"{name}.json"
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        ended = bool(content.get("complete"))
        incomplete |= not ended
        # pytest's 5: there was no such test. None: stopped by its time limit.
        failed |= any(group["exit_code"] not in (0, 5) for group in content.get("groups", ()))
        state = "" if ended else f" DID NOT END: {content.get('error', 'killed, or never begun')}"
        print(f"== {name}, {content.get('seconds', 0)} s{state}")
        try:
            for line in LINES[name](content):
                print(f"  {line}"[:150])
        except (KeyError, TypeError) as error:  # what it had not come to
            print(f"  (cut short: no {error})")
    return 2 if incomplete else int(failed)


def _environment(content: dict[str, Any]) -> Iterator[str]:
    gpu = content["gpu"]
    card = f"{gpu['name']}, driver {gpu['driver']}" if gpu else "no GPU"
    packages = content["packages"]
    yield f"{card}; torch {packages['torch']}, CUDA {content['cuda']}, Python {content['python']}"
    if ceilings := content["ceilings"]:
        yield (
            f"copy {ceilings['copy_bytes_per_s'] / 1e12:.2f} TB/s; products fp32 "
            f"{ceilings['fp32_product_flops_per_s'] / 1e12:.0f}, bf16 "
            f"{ceilings['bf16_product_flops_per_s'] / 1e12:.0f} TFLOP/s"
        )


def _op(content: dict[str, Any]) -> Iterator[str]:
    """A line for each case: fp32/bf16 milliseconds of each backend."""
    table: dict[str, dict[str, list[str]]] = {}
    for row in content["rows"]:
        case = row["case"] + (", backward" if row["backward"] else "")
        shown = f"{row['median_ms']:.3g}" if "median_ms" in row else "-"
        table.setdefault(case, {}).setdefault(row["backend"].replace("global attention ", ""), []).append(
            shown
        )
    for case, backends in table.items():
        yield f"{case}: " + "; ".join(f"{name} {'/'.join(ms)}" for name, ms in backends.items()) + " ms"


def _model(content: dict[str, Any]) -> Iterator[str]:
    """A line for each network and method: frame, its ratio to the bare network, session, graph, memory."""
    rows = content["rows"]
    for network, why in content["left_out"].items():
        yield f"{network} left out: {why}"
    bare = {
        (r["network"], r["precision"]): r["frame"]["median_ms"]
        for r in reversed(rows)
        if "frame" in r and r["method"].startswith("single-frame")
    }
    for network, method in dict.fromkeys((r["network"], r["method"]) for r in rows):
        shown = []
        for row in rows:
            if (row["network"], row["method"]) != (network, method):
                continue
            if "frame" not in row:
                shown.append(f"{row['precision']} - ({row.get('left_out', '')[:60]})")
                continue
            frame = row["frame"]["median_ms"]
            graph = row.get("graph", {}).get("median_ms")
            memory = f", {row['peak_bytes'] / 2**20:.0f} MiB" if row["peak_bytes"] else ""
            shown.append(
                f"{row['precision']} {frame:.2f} ms ×{frame / bare[network, row['precision']]:.2f}"
                f" (session {row['session_ms']:.1f}{f', graph {graph:.2f}' if graph else ''}{memory})"
            )
        yield f"{network} {method}: " + "; ".join(shown)


def _segment(content: dict[str, Any]) -> Iterator[str]:
    for ran in content["cli"]:
        yield f"{ran['command']}: exit {ran['exit_code']}, {ran['seconds']:.1f} s"
    for row in content["rows"]:
        name = f"{row['clip']} {row['model']} {row['precision']}"
        if "left_out" in row:
            yield f"{name}: {row['left_out']}"
            continue
        alone = ", ".join(f"{stage} {ms:.1f}" for stage, ms in row["alone_ms"].items())
        same = row.get("labels_as_on_cpu_in_fp32")
        agree = f"; as on the CPU {100 * same['mean']:.2f} %" if same else ""
        yield f"{name}: {row['frames_per_s']:.0f} frames/s; alone {alone} ms{agree}"


def _evaluate(content: dict[str, Any]) -> Iterator[str]:
    for precision, report in content["reports"].items():
        for name, scores in report.get("scores", {}).items():
            yield f"{precision} {name}: mIoU {100 * scores['miou']:.2f} %, {scores['median_ms']:.1f} ms"
        if "left_out" in report:
            yield f"{precision}: {report['left_out']}"


def _tests(content: dict[str, Any]) -> Iterator[str]:
    failures = []
    for group in content["groups"]:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(group["counts"].items()))
        stopped = ", STOPPED by its time limit" if group["stopped"] else ""
        yield f"{group['name']}: {counts or 'none'} in {group['seconds']:.0f} s{stopped}"
        failures += group["failures"]
    for one in failures[:FAILURES_SHOWN]:
        yield f"{one['test'].split('/', 1)[-1]}: {' '.join(one['reason'].split())}"
    if len(failures) > FAILURES_SHOWN:
        yield f"and {len(failures) - FAILURES_SHOWN} more failures: see tests.json"


LINES: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "environment": _environment,
    "op": _op,
    "model": _model,
    "segment": _segment,
    "evaluate": _evaluate,
    "tests": _tests,
}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
