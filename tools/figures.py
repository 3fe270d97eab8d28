"""Write the figures of `results/` into README and docs, between their `<!-- figures: NAME -->` marks.

python tools/figures.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmanet.research.benchmarks.model import Measured
from lmanet.research.benchmarks.model_report import model_tables
from lmanet.research.benchmarks.op import CaseResult
from lmanet.research.benchmarks.op_report import case_table, op_tables
from lmanet.research.benchmarks.tables import Table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGES = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            "gpu",
            "methods/index",
            "methods/label-memory",
            "methods/lmanet",
            "methods/training-free",
            "research/accuracy",
            "research/benchmarks",
            "training",
        )
    ),
]
NAMES = {
    "single-frame": "single frame",
    "flow-average": "flow average",
    "label-memory": "label memory",
    "lmanet": "LMANet",
}
"""What tables call the methods that reports have under their registered names."""


def accuracy(content: dict[str, Any]) -> str:
    """One row per model of an evaluation report, and what TC and the time depend on."""
    lines = [
        "| | mIoU ↑ | flicker ↓ | VC8 ↑ | VC16 ↑ | TC ↑ | ms a frame ↓ |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, scores in content["scores"].items():
        share = [scores["miou"], scores["flicker"], scores["vc"]["8"], scores["vc"]["16"], scores["tc"]]
        digits = [1, 2, 1, 1, 1]
        cells = [f"{100 * value:.{n}f} %" for value, n in zip(share, digits, strict=True)]
        lines.append(f"| {NAMES.get(title, title)} | {' | '.join(cells)} | {scores['median_ms']:.0f} |")
    flow = content["conventions"]["flow"]
    lines += ["", f"TC by {flow}. {_run_on(content)}"]
    return "\n".join(lines)


def _run_on(content: dict[str, Any]) -> str:
    """Machine and settings of an evaluation; that of `--resize` is a height and a width."""
    environment, given = content["environment"], content["settings"].values()
    settings = [value if isinstance(value, str) else f"seen at {value[1]}×{value[0]}" for value in given]
    return f"{environment['machine']}, threads: {environment['threads']}, {', '.join(settings)}."


def networks(contents: dict[str, dict[str, Any]]) -> str:
    """Every network on CamVid val by its method, of the evaluation reports by file name."""
    lines = [
        "| network | method | mIoU ↑ | flicker ↓ | TC ↑ | ms a frame ↓ |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for network, content in contents.items():
        for title, scores in content["scores"].items():
            cells = [f"{100 * scores['miou']:.1f} %", f"{100 * scores['flicker']:.2f} %"]
            cells += [f"{100 * scores['tc']:.1f} %", f"{scores['median_ms']:.0f}"]
            lines.append(f"| {network} | {NAMES.get(title, title)} | {' | '.join(cells)} |")
    lines += ["", _run_on(next(iter(contents.values())))]
    return "\n".join(lines)


def reproduced(content: dict[str, Any]) -> str:
    """The rows of an experiment of `lmanet reproduce`: mean ± sample standard deviation over n seeds."""
    lines = [
        "| | mIoU ↑ | flicker ↓ | VC8 ↑ | TC ↑ | seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in content["rows"]:
        shown = (("miou", 1), ("flicker", 2), ("vc8", 1), ("tc", 1))
        cells = [_spread(row[key], digits) for key, digits in shown]
        place = row["scored_on"]
        title = row["name"] if place in ("val", "test") else f"{row['name']}, {place}"
        lines.append(f"| {title} | {' | '.join(cells)} | {row['miou']['n']} |")
    machines = dict.fromkeys(environment["machine"] for environment in content["environments"])
    lines += ["", f"{'; '.join(machines)}, fp32."]
    return "\n".join(lines)


def compared(contents: dict[str, dict[str, Any]]) -> str:
    """What keeps the network, a line for each network and place; of the flow average the weight of the best mIoU."""
    shown = (("miou", 1), ("flicker", 2), ("tc", 1))
    lines: list[str] = []
    for content in contents.values():
        network = content["settings"]["weights"]
        places: dict[str, list[dict[str, Any]]] = {}
        for row in content["rows"]:
            places.setdefault(row["scored_on"], []).append(row)
        for place, (single, *rows) in places.items():
            flows = [row for row in rows if row["name"].startswith("flow")]
            memories = [row for row in rows if row not in flows]
            if not lines:
                names = [
                    "single",
                    "flow",
                    *(row["name"].replace("memory without", "without") for row in memories),
                ]
                kinds = "".join(
                    f" {title}: {' | '.join(names)} |" for title in ("mIoU ↑", "flicker ↓", "TC ↑")
                )
                lost = "".join(f" class that loses most, {name} |" for name in names[2:])
                lines += [
                    f"| network | frames |{kinds}{lost}",
                    f"| --- | --- | {'---: | ' * (len(names) * len(shown))}{'--- | ' * len(memories)}".rstrip(),
                ]
            flow = max(flows, key=lambda row: row["miou"]["mean"])
            cells = [_spread(row[key], digits) for key, digits in shown for row in (single, flow, *memories)]
            cells += [_worst(content["class_names"], single, row) for row in memories]
            shown_network = "one for each fold" if "fold" in place else network
            lines.append(f"| {shown_network} | {place} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _worst(names: list[str], single: dict[str, Any], memory: dict[str, Any]) -> str:
    """The class that loses most IoU to the single-frame network, and how much."""
    iou = [[one["mean"] for one in row["per_class_iou"]] for row in (memory, single)]
    losses = {
        name: 100 * (own - alone)
        for name, own, alone in zip(names, *iou, strict=True)
        if own is not None and alone is not None
    }
    worst = min(losses, key=lambda name: losses[name])
    return f"{worst} {losses[worst]:+.1f}"


def objects(content: dict[str, Any]) -> str:
    """One moving thing in each clip: its IoU, and its flicker, by method."""
    clips = list(content["clips"])
    lines = [
        f"| | IoU ↑: mean | {' | '.join(clips)} | flicker ↓: mean | {' | '.join(clips)} |",
        f"| --- | {'---: | ' * (2 * len(clips) + 2)}".rstrip(),
    ]
    for method, scores in content["scores"].items():
        cells = []
        for key in ("iou", "flicker"):
            values = [scores[clip][key] for clip in clips]
            cells += [f"{100 * value:.1f} %" for value in (sum(values) / len(values), *values)]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(summary: dict[str, Any], digits: int) -> str:
    mean = f"{100 * summary['mean']:.{digits}f}"
    return f"{mean} %" if summary["std"] is None else f"{mean} ± {100 * summary['std']:.{digits}f} %"


def stream(content: dict[str, Any]) -> str:
    """Frames per second in memory and from file to file."""
    timings, frames = content["timings"], content["settings"]["frames"]
    lines = ["| | frames in memory | from file to file | share |", "| --- | --- | --- | --- |"]
    for title in dict.fromkeys(name.split(", ")[0] for name in timings):
        memory = timings[f"{title}, in memory"]["median_s"]
        file = timings[f"{title}, file to file"]["median_s"]
        lines.append(
            f"| {NAMES.get(title, title)} | {frames / memory:.1f} frames/s "
            f"| {frames / file:.1f} frames/s | {100 * memory / file:.0f} % |"
        )
    return "\n".join(lines)


def training(content: dict[str, Any]) -> str:
    """Steps 1 and 2 with and without the feature cache, and with `tiled` attention."""
    timings = content["timings"]
    lines = [
        "| | without cache | with cache | times faster | with cache, tiled attention | times faster than tiled |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for step in (1, 2):
        without, cached, tiled = (
            timings[f"step {step}, {kind}"]["median_s"]
            for kind in ("without cache", "with cache", "with cache, tiled attention")
        )
        lines.append(
            f"| step {step} | {without:.2f} s | {cached:.2f} s | {without / cached:.1f} "
            f"| {tiled:.2f} s | {tiled / cached:.1f} |"
        )
    return "\n".join(lines)


def op(content: dict[str, Any]) -> str:
    """Local attention: kernels and peers on the main case."""
    return "\n\n".join([case_table(CaseResult.from_json(content["cases"][0])).markdown(), machine(content)])


def op_all(content: dict[str, Any]) -> str:
    """Local attention: every case."""
    tables = op_tables([CaseResult.from_json(case) for case in content["cases"]])
    return "\n\n".join([*(table.markdown() for table in tables), machine(content)])


def model(content: dict[str, Any]) -> str:
    """A frame through a network with a memory against the bare network, in float32."""
    return "\n\n".join([_model_tables(content)[0].markdown(), machine(content)])


def model_all(content: dict[str, Any]) -> str:
    """A frame through a network with a memory against the bare network, in every precision."""
    return "\n\n".join([*(table.markdown() for table in _model_tables(content)), machine(content)])


def _model_tables(content: dict[str, Any]) -> list[Table]:
    networks = [Measured.from_json(network) for network in content["networks"]]
    return model_tables(networks, content["settings"]["size"])


def machine(content: dict[str, Any]) -> str:
    """Where a benchmark ran."""
    environment = content["environment"]
    return (
        f"{environment['machine']}, threads: {environment['threads']}, PyTorch {environment['torch']}, "
        f"{content['kernel']}."
    )


def gpu_model(content: dict[str, Any]) -> str:
    """Milliseconds of a frame of 1024×512 on a GPU, by network and method, against the bare network."""
    rows = {(r["network"], r["method"], r["precision"]): r for r in content["rows"] if "frame" in r}
    names = dict.fromkeys((network, method) for network, method, _ in rows if "again" not in method)
    lines = [
        "| network | method | fp32, ms ↓ | ÷ bare | bf16, ms ↓ | ÷ bare | peak, fp32, MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for network, method in names:
        cells = []
        for precision in ("fp32", "bf16"):
            ms, bare = (
                rows[network, name, precision]["frame"]["median_ms"] for name in (method, "single-frame")
            )
            cells += [f"{ms:.1f}", f"{ms / bare:.2f}"]
        peak = rows[network, method, "fp32"]["peak_bytes"] / 2**20
        lines.append(f"| {network} | {NAMES.get(method, method)} | {' | '.join(cells)} | {peak:.0f} |")
    return "\n".join(lines)


def gpu_op(contents: dict[str, dict[str, Any]]) -> str:
    """Local attention on a GPU in float32: tile after tile as it was, all tiles in one go, and whole frames."""
    shown = {"tile after tile, ms": "h200-tile-after-tile", "in one go, ms": "h200"}
    found = {
        (run, row["case"], row["backend"]): row["median_ms"]
        for run, content in contents.items()
        for row in content["rows"]
        if row["dtype"] == "float32" and not row["backward"] and "median_ms" in row
    }
    lines = [
        f"| attention | {' | '.join(shown)} | whole frames (SDPA), ms |",
        "| --- | ---: | ---: | ---: |",
    ]
    for case in contents["h200"]["cases"]:
        tiled = [found.get((run, case, "tiled")) for run in shown.values()]
        whole = next(
            (ms for (run, c, name), ms in found.items() if (run, c) == ("h200", case) and "SDPA" in name),
            None,
        )
        cells = ["n/a" if ms is None else f"{ms:.2f}" for ms in (*tiled, whole)]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gpu_segment(content: dict[str, Any]) -> str:
    """`lmanet segment` on a GPU: each stage alone, and frames a second from file to file."""
    lines = [
        "| model | precision | decoding, ms | network, ms | drawing, encoding, ms | frames/s ↑ | labels as on a CPU |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in content["rows"]:
        if "alone_ms" not in row or "frames_per_s" not in row:
            continue
        alone = [f"{row['alone_ms'][stage]:.1f}" for stage in ("decoding", "network", "encoding")]
        same = 100 * row["labels_as_on_cpu_in_fp32"]["mean"]
        cells = [row["precision"], *alone, f"{row['frames_per_s']:.0f}", f"{same:.2f} %"]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "camvid": ("camvid-val.json", accuracy),
    "control": ("reproduce/*/control.json", compared),
    "presets": ("reproduce/camvid-lmanet/presets.json", reproduced),
    "synthetic": ("synthetic-val.json", accuracy),
    "synthetic-presets": ("reproduce/synthetic/presets.json", reproduced),
    "camvid-window": ("reproduce/camvid/window.json", reproduced),
    "synthetic-window": ("reproduce/synthetic/window.json", reproduced),
    "stream": ("stream.json", stream),
    "training": ("training.json", training),
    "op": ("op.json", op),
    "op-all": ("op.json", op_all),
    "model": ("model.json", model),
    "model-all": ("model.json", model_all),
    "pspnet": ("pspnet.json", model_all),
    "networks": ("networks/*.json", networks),
    "untrained": ("reproduce/*/training-free.json", compared),
    "espnetv2": ("espnetv2-cityscapes.json", accuracy),
    "objects": ("objects.json", objects),
    "gpu-model": ("gpu/h200/model.json", gpu_model),
    "gpu-op": ("gpu/*/op.json", gpu_op),
    "gpu-segment": ("gpu/h200/segment.json", gpu_segment),
}
"""By the name in the mark: the file in `results/`, and what makes a table of its content; of a pattern, the contents by
the name of file or folder that the star stands for."""


def _name(path: Path, pattern: str) -> str:
    return path.stem if "*" in Path(pattern).name else path.parent.name


def filled(text: str, results: Path = RESULTS) -> str:
    """The text with every marked table written anew.

    Args:
        text: Markdown with `<!-- figures: NAME -->` … `<!-- end -->`, each mark on a line of its own.
        results: the folder of the results files.

    Raises:
        ValueError: a mark has no end of its own, or an unknown name.
    """

    def table(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise ValueError(f"{match[1]}: expected one of {', '.join(TABLES)}")
        file, make = TABLES[match[2]]
        content = (
            {_name(p, file): json.loads(p.read_text()) for p in sorted(results.glob(file))}
            if "*" in file
            else None
        )
        return f"{match[1]}\n{make(content or json.loads((results / file).read_text()))}\n<!-- end -->"

    # Up to the mark's own end: the text between two tables must not pass for a table.
    block = r"^(<!-- figures: ([\w-]+) -->)\n(?:(?!<!-- ).*\n)*?<!-- end -->$"
    result, count = re.subn(block, table, text, flags=re.MULTILINE)
    for kind in ("<!-- figures:", "<!-- end -->"):
        if text.count(kind) != count:
            raise ValueError(
                f"{text.count(kind)} marks {kind!r}, {count} whole tables: each begins and ends on a line"
            )
    return result


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
