"""What a training says where there is no terminal, and what labelling says at its end."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lmanet.api import LabelledVideo
from lmanet.cli.labelling import print_summary
from lmanet.cli.progress import TrainingProgress
from lmanet.training.loop import Progress


def test_a_line_for_each_epoch_and_one_for_going_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with TrainingProgress(tmp_path) as progress:
        progress.report("frames", (2, 2))
        for epoch in (1, 2):
            for step in (1, 2):
                progress.report("step 0", Progress(epoch, 3, step, 2, 0.5, math.nan if epoch == 1 else 0.25))
    assert capsys.readouterr().err.splitlines() == [
        "frames: 2/2",
        "step 0: goes on after epoch 1/3",
        "step 0: epoch 2/3 loss 0.500",
        "step 0: epoch 3/3 loss 0.500 mIoU 25.0",
    ]


def test_the_summary_leaves_out_classes_that_were_not_seen(capsys: pytest.CaptureFixture[str]) -> None:
    labelled = LabelledVideo(
        outputs=(Path("out.mp4"), Path("labels")),
        frames=3,
        seconds=1.5,
        shares={"sky": 0.25, "road": 0.75, "car": 0.0},
        method="training-free",
        device="cpu",
        normalisation="none (as given)",
        notes=("returns one logit",),
        warnings=("a frame could not be decoded",),
    )
    print_summary(Console(), labelled, "net")
    said = capsys.readouterr().out.splitlines()
    assert said[:4] == [
        "warning: a frame could not be decoded",
        "3 frames by net, method training-free, on cpu in 1.5 s: 2.0 frames/s; wrote out.mp4, labels",
        "normalisation: none (as given)",
        "returns one logit",
    ]
    assert [line.split()[0] for line in said[5:]] == ["road", "sky"]
    many = replace(labelled, shares={f"class_{n}": 0.05 for n in range(20)})
    print_summary(Console(), many, "net")
    assert capsys.readouterr().out.splitlines()[-1] == "and 8 more classes"
