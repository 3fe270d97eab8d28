"""Write the figures of `results/` into the README, between its `<!-- figures: NAME -->` marks.

python tools/figures.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


def accuracy(name: str) -> str:
    """One row per model of an evaluation report."""
    report = json.loads((RESULTS / f"{name}.json").read_text())
    lines = [
        "| | mIoU ↑ | flicker ↓ | VC8 ↑ | VC16 ↑ | TC ↑ | ms a frame ↓ |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, scores in report["scores"].items():
        share = [scores["miou"], scores["flicker"], scores["vc"]["8"], scores["vc"]["16"], scores["tc"]]
        digits = [1, 2, 1, 1, 1]
        cells = [f"{100 * value:.{n}f} %" for value, n in zip(share, digits, strict=True)]
        lines.append(f"| {title} | {' | '.join(cells)} | {scores['median_ms']:.0f} |")
    return "\n".join(lines)


def stream() -> str:
    """Frames per second in memory and from file to file."""
    timings, frames = _timings("stream")
    lines = ["| | frames in memory | from file to file | share |", "| --- | --- | --- | --- |"]
    for title in dict.fromkeys(name.split(", ")[0] for name in timings):
        memory = timings[f"{title}, in memory"]["median_s"]
        file = timings[f"{title}, file to file"]["median_s"]
        lines.append(
            f"| {title} | {frames / memory:.1f} frames/s | {frames / file:.1f} frames/s | {100 * memory / file:.0f} % |"
        )
    return "\n".join(lines)


def training() -> str:
    """Steps 1 and 2 with and without the feature cache."""
    timings, _ = _timings("training")
    lines = ["| | without cache | with cache | times faster |", "| --- | --- | --- | --- |"]
    for step in (1, 2):
        without, cached = (timings[f"step {step}, {kind} cache"]["median_s"] for kind in ("without", "with"))
        lines.append(f"| step {step} | {without:.2f} s | {cached:.2f} s | {without / cached:.1f} |")
    return "\n".join(lines)


def _timings(name: str) -> tuple[dict, int]:
    content = json.loads((RESULTS / f"{name}.json").read_text())
    return content["timings"], content["settings"].get("frames", 0)


TABLES = {
    "camvid": lambda: accuracy("camvid-val"),
    "synthetic": lambda: accuracy("synthetic-val"),
    "stream": stream,
    "training": training,
}


def filled(text: str) -> str:
    """The text with every marked table written anew."""
    return re.sub(
        r"(<!-- figures: (\w+) -->\n).*?(\n<!-- end -->)",
        lambda match: match[1] + TABLES[match[2]]() + match[3],
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
