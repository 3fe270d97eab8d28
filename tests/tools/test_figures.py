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
        "LMANet": {
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
        "LMANet, in memory": {"median_s": 12.0},
        "LMANet, file to file": {"median_s": 12.0},
    },
}
TRAINING = {
    "timings": {
        "step 1, without cache": {"median_s": 6.0},
        "step 1, with cache": {"median_s": 1.5},
        "step 2, without cache": {"median_s": 7.0},
        "step 2, with cache": {"median_s": 2.0},
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
| single-frame | 66.2 % | 3.00 % | 93.8 % | 90.0 % | 71.1 % | 42 |
| LMANet | 67.1 % | 2.00 % | 95.0 % | 92.5 % | 75.0 % | 200 |

TC by DIS, preset medium. Linux, a CPU, threads: 2, cpu, fp32.
<!-- end -->
between
<!-- figures: stream -->
| | frames in memory | from file to file | share |
| --- | --- | --- | --- |
| single-frame | 30.0 frames/s | 24.0 frames/s | 80 % |
| LMANet | 5.0 frames/s | 5.0 frames/s | 100 % |
<!-- end -->
<!-- figures: training -->
| | without cache | with cache | times faster |
| --- | --- | --- | --- |
| step 1 | 6.00 s | 1.50 s | 4.0 |
| step 2 | 7.00 s | 2.00 s | 3.5 |
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
    with pytest.raises(ValueError, match=r"figures: speed -->: expected one of camvid, synthetic"):
        figures.filled("<!-- figures: speed -->\n<!-- end -->\n", results)


def test_missing_results_are_named(figures, results):
    with pytest.raises(FileNotFoundError, match=r"synthetic-val\.json"):
        figures.filled("<!-- figures: synthetic -->\n<!-- end -->\n", results)
