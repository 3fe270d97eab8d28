from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

CAMVID = {
    "scores": {
        "single-frame": {
            "miou": 0.66151,
            "flicker": 0.03004,
            "vc": {"8": 0.938, "16": 0.9},
            "tc": 0.7106,
            "median_ms": 41.6,
        },
        "label-memory": {
            "miou": 0.6712,
            "flicker": 0.02,
            "vc": {"8": 0.95, "16": 0.925},
            "tc": 0.75,
            "median_ms": 200.0,
        },
    },
    "conventions": {"mode": "default", "flow": "DIS, preset medium"},
    "settings": {"device": "cpu", "precision": "fp32"},
    "environment": {"machine": "Linux, a CPU", "threads": 2},
}
STREAM = {
    "settings": {"frames": 60},
    "timings": {
        "single-frame, in memory": {"median_s": 2.0},
        "single-frame, file to file": {"median_s": 2.5},
        "label-memory, in memory": {"median_s": 12.0},
        "label-memory, file to file": {"median_s": 12.0},
    },
}
TRAINING = {
    "timings": {
        "step 1, without cache": {"median_s": 6.0},
        "step 1, with cache": {"median_s": 1.5},
        "step 1, with cache, tiled attention": {"median_s": 3.0},
        "step 2, without cache": {"median_s": 7.0},
        "step 2, with cache": {"median_s": 2.0},
        "step 2, with cache, tiled attention": {"median_s": 2.5},
    },
}
TEXT = """# Title
<!-- figures: camvid -->
old
<!-- end -->
between
<!-- figures: stream -->
<!-- end -->
<!-- figures: training -->
| old | table |

of two parts
<!-- end -->
after
"""
EXPECTED = """# Title
<!-- figures: camvid -->
| | mIoU ↑ | flicker ↓ | VC8 ↑ | VC16 ↑ | TC ↑ | ms a frame ↓ |
| --- | --- | --- | --- | --- | --- | --- |
| single frame | 66.2 % | 3.00 % | 93.8 % | 90.0 % | 71.1 % | 42 |
| label memory | 67.1 % | 2.00 % | 95.0 % | 92.5 % | 75.0 % | 200 |

TC by DIS, preset medium. Linux, a CPU, threads: 2, cpu, fp32.
<!-- end -->
between
<!-- figures: stream -->
| | frames in memory | from file to file | share |
| --- | --- | --- | --- |
| single frame | 30.0 frames/s | 24.0 frames/s | 80 % |
| label memory | 5.0 frames/s | 5.0 frames/s | 100 % |
<!-- end -->
<!-- figures: training -->
| | without cache | with cache | times faster | with cache, tiled attention | times faster than tiled |
| --- | --- | --- | --- | --- | --- |
| step 1 | 6.00 s | 1.50 s | 4.0 | 3.00 s | 2.0 |
| step 2 | 7.00 s | 2.00 s | 3.5 | 2.50 s | 1.2 |
<!-- end -->
after
"""


@pytest.fixture
def figures(tool) -> ModuleType:
    return tool("figures")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, content in (("camvid-val", CAMVID), ("stream", STREAM), ("training", TRAINING)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_every_marked_table_is_filled_and_nothing_else_touched(figures, results):
    assert figures.filled(TEXT, results) == EXPECTED


def test_filling_again_changes_nothing(figures, results):
    assert figures.filled(EXPECTED, results) == EXPECTED


def test_new_results_replace_the_old(figures, results):
    (results / "stream.json").write_text(json.dumps({**STREAM, "settings": {"frames": 120}}))
    again = figures.filled(EXPECTED, results)
    assert again == EXPECTED.replace("30.0", "60.0").replace("24.0", "48.0").replace("5.0 f", "10.0 f")


def test_a_text_without_marks_stays(figures, results):
    assert figures.filled("# Title\n", results) == "# Title\n"


@pytest.mark.parametrize(
    "text",
    [
        # Without an end of its own, the first mark would swallow the text up to the next table's.
        "<!-- figures: stream -->\nkeep me\n<!-- figures: training -->\nold\n<!-- end -->\n",
        "<!-- figures: stream -->\nkeep me\n",
        "old\n<!-- end -->\n",
        "- <!-- figures: stream -->\nold\n<!-- end -->\n",
    ],
)
def test_marks_without_their_partner_are_refused(figures, results, text):
    with pytest.raises(ValueError, match="each begins and ends on a line"):
        figures.filled(text, results)


def test_an_unknown_table_is_refused(figures, results):
    with pytest.raises(
        ValueError,
        match=r"figures: speed -->: expected one of camvid, control, presets, synthetic",
    ):
        figures.filled("<!-- figures: speed -->\n<!-- end -->\n", results)


def test_missing_results_are_named(figures, results):
    with pytest.raises(FileNotFoundError, match=r"synthetic-val\.json"):
        figures.filled("<!-- figures: synthetic -->\n<!-- end -->\n", results)


def test_networks_are_compared_file_by_file(figures, results):
    def report(miou: float, *titles: str) -> str:
        scores = {"miou": miou, "flicker": 0.0123, "tc": 0.9, "median_ms": 80.4}
        environment = {"machine": "Linux, a CPU", "threads": 2}
        return json.dumps(
            {
                "scores": dict.fromkeys(titles, scores),
                "environment": environment,
                "settings": {"precision": "fp32"},
            }
        )

    (results / "networks").mkdir()
    (results / "networks/b.json").write_text(report(0.7, "single-frame", "flow-average", "label-memory"))
    (results / "networks/a.json").write_text(report(0.6, "training-free"))
    text = figures.filled("<!-- figures: networks -->\n<!-- end -->\n", results)
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| a | training-free | 60.0 % | 1.23 % | 90.0 % | 80 |",
        "| b | single frame | 70.0 % | 1.23 % | 90.0 % | 80 |",
        "| b | flow average | 70.0 % | 1.23 % | 90.0 % | 80 |",
        "| b | label memory | 70.0 % | 1.23 % | 90.0 % | 80 |",
    ]


ENVIRONMENT = {"machine": "Linux, a CPU", "threads": 2, "torch": "2.9"}


def timing(seconds: float) -> dict[str, float]:
    # Lowest and highest are far off: no figure may come from them.
    return {"median_s": seconds, "lowest_s": seconds / 100, "highest_s": seconds * 100, "runs": 3}


def test_model_tables(figures, results):
    def network(milliseconds: float, mib: int, **variant: object) -> dict[str, object]:
        peak = {"peak_bytes": mib * 2**20, "imports_bytes": 400 * 2**20}
        return {"variant": variant, "timing": timing(milliseconds / 1000), **peak}

    content = {
        "settings": {"size": [512, 1024]},
        "environment": ENVIRONMENT,
        "kernel": "native: avx512",
        "networks": [
            network(110, 600, optimized=False),
            network(100, 500),
            network(113, 525, memory="paper", window=21),
        ],
    }
    (results / "model.json").write_text(json.dumps(content))
    lines = figures.filled("<!-- figures: model -->\n<!-- end -->\n", results).splitlines()
    assert lines[1] == "ERFNet at 1024×512, fp32:"
    assert lines[-2] == "Linux, a CPU, threads: 2, PyTorch 2.9, native: avx512."
    assert "| bare network | 100 | +0.0 % | 500 | +0.0 % | 100 | +0.0 % |" in lines
    assert "| paper, R=21, S=4 | 113 | +13.0 % | 525 | +5.0 % | 125 | +25.0 % |" in lines


def test_op_tables(figures, results):
    def case(kernel_ms: float, **fields: object) -> dict[str, object]:
        def measured(milliseconds: float, flops: float) -> dict[str, object]:
            return {"timing": timing(milliseconds / 1000), "useful_flops": flops, "memory_bytes": 3 * 2**20}

        # The convolution: 250 Gflop/s.
        return {
            "case": fields,
            "measured": {"native": measured(kernel_ms, 2.5e9), "tiled": measured(240, 2.5e9)},
            "left_out": {"unfold": "no room"},
            "convolutions": {"c": measured(100, 25e9)},
        }

    content = {
        "environment": ENVIRONMENT,
        "kernel": "native: avx512",
        "cases": [case(20), case(60, backward=True), case(5, window=11), case(40, memory_size=8)],
    }
    (results / "op.json").write_text(json.dumps(content))
    lines = figures.filled("<!-- figures: op-all -->\n<!-- end -->\n", results).splitlines()
    title = "Forward, float32, map of 64×128, Ck=16, Cv=64, S=4, R=21:"
    assert lines.index(title) < lines.index(title.replace("Forward", "Forward + backward"))
    assert "| native | 20.0 | 0.20 to 2000, 3 | 1.0× | 50.0 % | 3.0 |" in lines
    assert "| native | 60.0 | 0.60 to 6000, 3 | 1.0× | 16.7 % | 3.0 |" in lines
    assert "| tiled | 240 | 2.40 to 24000, 3 | 12.0× | 4.2 % | 3.0 |" in lines
    assert "Left out: unfold (no room)." in lines
    main = figures.filled("<!-- figures: op -->\n<!-- end -->\n", results).splitlines()
    assert [line for line in main if line.endswith(":")] == [title]
    assert "|  | R=11 | R=21 |" in lines and "| tiled | 240 (48.0×) | 240 (12.0×) |" in lines
    assert "|  | S=4 | S=8 |" in lines and "| native | 20.0 | 40.0 |" in lines
    # Work of the definition: twice as many frames, twice the work, so the same time for each part of it.
    growth = [line.split(" | ") for line in lines if line.startswith(("| S=4 ", "| S=8 "))][-2:]
    assert float(growth[1][1]) == pytest.approx(2 * float(growth[0][1]), abs=0.002)
    assert growth[0][3] == growth[1][3]


def test_a_reproduced_table_shows_spread_and_seeds(figures, results):
    def summary(mean, std, n):
        return {"mean": mean, "std": std, "n": n, "per_seed": [mean] * n}

    one = {key: summary(0.5, None, 1) for key in ("miou", "flicker", "vc8", "tc")}
    three = {key: summary(0.6604, 0.0021, 3) for key in ("miou", "flicker", "vc8", "tc")}
    content = {
        "rows": [
            {"name": "single-frame", "scored_on": "val", **one},
            {"name": "label memory", "scored_on": "0006R0", **three},
        ],
        "environments": [{"machine": "Linux, a CPU", "threads": n} for n in (1, 2)],
    }
    (results / "reproduce/camvid-lmanet").mkdir(parents=True)
    (results / "reproduce/camvid-lmanet/presets.json").write_text(json.dumps(content))
    table = figures.filled("<!-- figures: presets -->\n<!-- end -->\n", results)
    assert "| single-frame | 50.0 % | 50.00 % | 50.0 % | 50.0 % | 1 |" in table
    assert (
        "| label memory, 0006R0 | 66.0 ± 0.2 % | 66.04 ± 0.21 % | 66.0 ± 0.2 % | 66.0 ± 0.2 % | 3 |" in table
    )


def test_what_keeps_the_network_is_compared_with_the_best_flow(figures, results):
    def row(name: str, place: str, miou: float, classes: tuple[float, float]):
        summaries = {key: {"mean": miou, "std": None} for key in ("miou", "flicker", "tc")}
        per_class = [{"mean": iou, "std": None} for iou in classes]
        return {"name": name, "scored_on": place, **summaries, "per_class_iou": per_class}

    rows = [
        row(name, place, miou + shift, classes)
        for place, shift in (("every frame", 0.0), ("every 2. frame", 0.1))
        for name, miou, classes in (
            ("single-frame", 0.5, (0.5, 0.5)),
            ("flow average, 0.5", 0.53, (0.5, 0.5)),
            ("flow average, 0.9", 0.52, (0.5, 0.5)),
            ("memory without training", 0.54, (0.6, 0.49)),
            ("label memory", 0.55, (0.48, 0.6)),
        )
    ]
    content = {"rows": rows, "class_names": ["road", "car"], "settings": {"weights": "some"}}
    (results / "reproduce/camvid").mkdir(parents=True)
    (results / "reproduce/camvid/control.json").write_text(json.dumps(content))
    lines = figures.filled("<!-- figures: control -->\n<!-- end -->\n", results).splitlines()[1:-1]
    assert lines[0].startswith(
        "| network | frames | mIoU ↑: single | flow | without training | label memory |"
    )
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| some | every frame | 50.0 % | 53.0 % | 54.0 % | 55.0 % |")
    assert lines[2].endswith("| car -1.0 | road -2.0 |")
    assert lines[3].startswith("| some | every 2. frame | 60.0 % | 63.0 % | 64.0 % | 65.0 % |")
