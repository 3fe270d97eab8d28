"""Score methods side by side on labelled video of your own.

python evaluate_folder.py [PATH]

PATH/classes.json            {"names": ["road", "car"], "fps": 30}; label values are 0, 1, …, and 255 for void
PATH/val.txt                 names of sequences, one a line
PATH/images/SEQUENCE/*.png   or .jpg, the frames in order of their names
PATH/labels/SEQUENCE/*.png   named as their frames
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import lmanet
from lmanet.data.synthetic import SyntheticDrive
from lmanet.video import ImageSink, LabelSink


def main(path: Path) -> None:
    models = lmanet.find_models("label-memory-erfnet-synthetic", methods=["all"])
    report = lmanet.evaluate(f"folder:{path}", models)
    print(f"{report.data}, {len(report.class_names)} classes")
    for name, scores in report.scores.items():
        print(
            f"{name}: mIoU {100 * scores.miou:.1f} %, flicker {100 * scores.flicker:.1f} %, "
            f"TC {100 * scores.tc:.1f} %, {scores.median_ms:.0f} ms a frame"
        )
    (path / "report.json").write_text(report.to_json())
    print(f"wrote {path / 'report.json'}")


def rendered(path: Path) -> Path:
    """A folder of your own, as it is to be laid out: ten frames of a rendered street."""
    street = SyntheticDrive(split="val", sequences=1, frames=10, size=(120, 160))
    classes, sequence = street.classes, street.sequences[0]
    for folder in ("images", "labels"):
        (path / folder / sequence.name).mkdir(parents=True)
    (path / "classes.json").write_text(
        json.dumps({"names": classes.names, "colours": classes.palette, "fps": 15})
    )
    (path / "val.txt").write_text(f"{sequence.name}\n")
    labels = LabelSink(path / "labels" / sequence.name, classes.colours())
    for i, name in enumerate(sequence.frame_names):
        ImageSink(path / "images" / sequence.name / f"{name}.png").write(sequence.image(i))
        labels.write(sequence.label(i), name)
    return path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]) if sys.argv[1:] else rendered(Path(temporary) / "mine"))
