from pathlib import Path

from lmanet.data.labels import StrayLabels
from lmanet.data.summary import sum_up


def test_problems_of_one_kind_are_a_few_lines():
    problems = [f"/data/my set/f {i}.png is missing: the frame of /data/my set/l {i}.png" for i in range(9)]
    problems += [f"/data/b{i}.png: height and width are {i}×9, expected 5×9" for i in range(2)]
    assert sum_up(problems, {}, 20) == [
        *problems[:3],
        "… and 6 more like these",
        *problems[9:],
    ]


def test_values_are_told_with_their_files_commonest_first():
    errors = [
        StrayLabels(Path(f"l{i}.png"), {7: 10, **({9 + i: 1} if i < 4 else {})}, {0}, "0 to 2", advice)
        for i in range(5)
    ]
    lines = sum_up(["other", *map(str, errors)], {str(error): error for error in errors}, 1200)
    assert lines == [
        "5 of 1200 labels hold 7, in 50 pixels: l0.png, l1.png, l2.png, and 2 more",
        "1 of 1200 labels hold 9, in 1 pixels: l0.png",
        "1 of 1200 labels hold 10, in 1 pixels: l1.png",
        "and 2 other values: 11, 12",
        "expected 0 to 2: [7, 9, 10, 11, 12] beside [0]",
        "other",
    ]


def advice(stray, seen):
    return f": {sorted(stray)} beside {sorted(seen)}"
