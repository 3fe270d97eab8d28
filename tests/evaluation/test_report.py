import io
import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from rich.console import Console

from lmanet.errors import DataError, InputError, OutputError
from lmanet.evaluation.report import per_class_table, plot_per_class, print_table, write_json
from lmanet.evaluation.results import Conventions, Environment, EvaluationReport, Scores

SINGLE = Scores(
    miou=0.6285,
    per_class_iou=(0.9, math.nan, 0.357),
    pixel_accuracy=0.91,
    flicker=0.03,
    vc={8: 0.938, 16: math.nan},
    tc=0.71,
    median_ms=40.0,
    fps=25.0,
    frames=101,
    labelled_frames=100,
)
MEMORY = replace(
    SINGLE, miou=0.6436, per_class_iou=(0.92, math.nan, 0.3672), flicker=0.021, median_ms=50.0, fps=20.0
)
REPORT = EvaluationReport(
    data="camvid/val",
    class_names=("sky", "road [wet]", "pedestrian"),
    scores={"single-frame": SINGLE, "with [memory]": MEMORY},
    conventions=Conventions(mode="default", flow="DIS, preset medium, OpenCV 5.0.0"),
    settings={"device": "cpu", "precision": "bf16"},
    environment=Environment(lmanet="0.1.0", torch="2.9.0", python="3.12.1", machine="Linux, CPU", threads=2),
)


def printed(show, *, width=120):
    console = Console(file=io.StringIO(), width=width)
    show(console)
    return console.file.getvalue()


def row_of(text, name):
    """The cells of the row that begins with `name`."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(name)]
    return line.strip().removeprefix(name).split()


class TestTables:
    def test_scores_in_percent_with_the_difference_of_two(self):
        text = printed(lambda console: print_table(REPORT, console))

        assert row_of(text, "mIoU ↑ (%)") == ["62.85", "64.36", "+1.51"]
        assert row_of(text, "pixel accuracy ↑ (%)") == ["91.00", "91.00", "+0.00"]
        assert row_of(text, "flicker ↓ (%)") == ["3.00", "2.10", "-0.90"]
        assert row_of(text, "VC8 ↑ (%)") == ["93.80", "93.80", "+0.00"]
        assert row_of(text, "VC16 ↑ (%)") == ["n/a", "n/a", "n/a"]
        assert row_of(text, "TC ↑ (%)") == ["71.00", "71.00", "+0.00"]
        assert row_of(text, "time per frame ↓ (ms)") == ["40.0", "50.0", "+10.0"]
        assert row_of(text, "frames per second ↑") == ["25.0", "20.0", "-5.0"]

    def test_heading_and_conventions_are_stated_and_brackets_survive(self):
        text = printed(lambda console: print_table(REPORT, console), width=250)

        assert "camvid/val: 101 frames, 100 labelled" in text
        assert "with [memory]" in text and "Difference" in text
        assert "default mode, TC by DIS, preset medium, OpenCV 5.0.0" in text
        assert "device: cpu, precision: bf16, " in text
        assert "PyTorch 2.9.0, threads: 2, Linux, CPU" in text

    def test_better_is_green_and_worse_is_red_whichever_way_is_better(self):
        console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard")
        print_table(REPORT, console)
        text = console.file.getvalue()

        green, red = "\x1b[32m", "\x1b[31m"
        for number, colour in (("+1.51", green), ("-0.90", green), ("+10.0", red), ("-5.0", red)):
            assert f"{colour}{number}" in text.replace(f"{colour} ", colour).replace(" ", "")

    @pytest.mark.parametrize("count", [1, 3])
    def test_only_two_predictors_have_a_difference(self, count):
        scores = {f"predictor{i}": SINGLE for i in range(count)}
        text = printed(lambda console: print_table(replace(REPORT, scores=scores), console))

        assert row_of(text, "mIoU ↑ (%)") == ["62.85"] * count
        assert "Difference" not in text

    def test_tc_has_no_row_if_it_was_not_measured(self):
        report = replace(REPORT, conventions=Conventions(mode="default", flow=None))
        text = printed(lambda console: print_table(report, console))

        assert "TC ↑" not in text and "TC not measured" in text

    def test_per_class_table(self):
        text = printed(lambda console: console.print(per_class_table(REPORT)))

        assert row_of(text, "sky") == ["90.00", "92.00", "+2.00"]
        assert row_of(text, "road [wet]") == ["n/a", "n/a", "n/a"]
        assert row_of(text, "pedestrian") == ["35.70", "36.72", "+1.02"]
        assert row_of(text, "mean") == ["62.85", "64.36", "+1.51"]


class TestJson:
    def test_a_report_read_back_is_the_same(self):
        read = EvaluationReport.from_json(REPORT.to_json())

        # NaN is not equal to itself: compare those apart.
        assert repr(read) == repr(REPORT)
        assert read.scores["with [memory]"].miou == MEMORY.miou
        assert math.isnan(read.scores["single-frame"].per_class_iou[1])
        assert math.isnan(read.scores["single-frame"].vc[16])

    def test_shares_stay_shares_and_nan_is_null(self):
        content = json.loads(REPORT.to_json(), parse_constant=pytest.fail)

        assert content["schema_version"] == 1
        assert content["scores"]["single-frame"]["miou"] == 0.6285
        assert content["scores"]["single-frame"]["per_class_iou"] == [0.9, None, 0.357]
        assert content["scores"]["single-frame"]["vc"] == {"8": 0.938, "16": None}

    def test_other_schema_versions_are_refused(self):
        text = REPORT.to_json().replace('"schema_version": 1', '"schema_version": 2')
        with pytest.raises(DataError, match="schema_version is 2, expected 1"):
            EvaluationReport.from_json(text)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not JSON"),
            ("[]", "schema_version is None"),
            ('{"schema_version": 1}', "does not have the fields"),
            (REPORT.to_json().replace('"miou"', '"mIoU"'), "does not have the fields"),
            (REPORT.to_json().replace('"data"', '"extra": 1, "data"'), "does not have the fields"),
            (REPORT.to_json().replace('"16": null', '"long": null'), "does not have the fields"),
        ],
    )
    def test_what_is_no_report_is_refused(self, text, message):
        with pytest.raises(DataError, match=message):
            EvaluationReport.from_json(text)

    def test_the_environment_here_survives_json(self):
        report = replace(REPORT, environment=Environment.here())
        assert EvaluationReport.from_json(report.to_json()).environment == Environment.here()


class TestFiles:
    def test_json_file(self, tmp_path):
        path = tmp_path / "report.json"
        path.write_text("old")
        write_json(REPORT, path)

        assert path.read_text() == REPORT.to_json()
        assert [file.name for file in tmp_path.iterdir()] == ["report.json"]

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_plot_is_a_png_with_a_bar_colour_per_predictor(self, tmp_path, count):
        scores = dict(list({**REPORT.scores, "c": SINGLE, "d": MEMORY, "e": SINGLE}.items())[:count])
        path = tmp_path / "plot.png"
        plot_per_class(replace(REPORT, scores=scores), path)

        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        image = cv2.imread(str(path))
        assert image is not None and image.shape[1] == 1400
        colours = [
            (0x9A, 0x9A, 0x9A),
            (0x00, 0x72, 0xB2),
            (0xD5, 0x5E, 0x00),
            (0x00, 0x9E, 0x73),
            (0xCC, 0x79, 0xA7),
        ]
        shown = [bool((image == np.array(colour[::-1])).all(-1).sum() > 1000) for colour in colours]
        assert shown == [True] * count + [False] * (5 - count)

    @pytest.mark.parametrize(
        ("suffix", "magic"), [(".pdf", b"%PDF"), (".svg", b"<?xml"), (".PNG", b"\x89PNG")]
    )
    def test_other_file_types(self, tmp_path, suffix, magic):
        path = tmp_path / f"plot{suffix}"
        plot_per_class(REPORT, str(path))
        assert path.read_bytes().startswith(magic)

    def test_an_unknown_file_type_is_refused_and_not_written(self, tmp_path):
        with pytest.raises(InputError, match=r"plot\.bmp: give a name ending in \.png, \.pdf, \.svg"):
            plot_per_class(REPORT, tmp_path / "plot.bmp")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("write", [write_json, plot_per_class])
    def test_what_cannot_be_written_leaves_nothing(self, tmp_path, write):
        # The name is taken by a folder: the write succeeds, the renaming does not.
        (tmp_path / "taken.png").mkdir()
        with pytest.raises(OutputError, match=r"taken\.png: cannot be written"):
            write(REPORT, tmp_path / "taken.png")
        assert [file.name for file in tmp_path.iterdir()] == ["taken.png"]

        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=r"file.*cannot be written.*check that the folder"):
            write(REPORT, tmp_path / "file" / "report.png")

    def test_the_folder_is_made(self, tmp_path):
        write_json(REPORT, tmp_path / "results" / "report.json")
        assert (tmp_path / "results" / "report.json").read_text() == REPORT.to_json()
