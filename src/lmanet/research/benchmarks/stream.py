"""How much of the network's speed is left when frames come from a video file and go to another."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from lmanet.classes import Classes
from lmanet.data.synthetic import StreetConfig, StreetSequence
from lmanet.methods.base import VideoModel
from lmanet.methods.single_frame import SingleFrame
from lmanet.research.benchmarks.timing import Timing, time_in_turn
from lmanet.session import Precision, Session
from lmanet.video import VideoSink, open_sinks, open_source, run_pipeline
from lmanet.video.view import overlay


def bench_stream(
    model: VideoModel, folder: Path, *, frames: int, precision: Precision, repeats: int
) -> dict[str, Timing]:
    """Time a model and the single-frame network inside it: on frames in memory, and file to file.

    Args:
        model: as `lmanet.load` gives it, with `classes`; on the device to measure.
        folder: for the video files.
        frames: length of the clip, 480×360.
        precision: of the networks.
        repeats: counted runs of each.

    Returns:
        Timings of the whole clip: `single-frame, in memory`, `single-frame, file to file`, and the same of the
        model's method.
    """
    street = StreetSequence(StreetConfig(frames=frames))
    images = [street.image(i) for i in range(frames)]
    clip = folder / "clip.mp4"
    height, width = images[0].shape[:2]
    with VideoSink(clip, width=width, height=height, fps=Fraction(15), time_base=Fraction(1, 15)) as sink:
        for i, image in enumerate(images):
            sink.write(image, i / 15)

    things: dict[str, Callable[[], object]] = {}
    for title, network in (("single-frame", SingleFrame(model.backbone)), (model.method, model)):
        session = Session(network, precision=precision)
        things[f"{title}, in memory"] = partial(_in_memory, session, images)
        things[f"{title}, file to file"] = partial(
            _file_to_file, session, clip, folder / "out.mp4", model.classes
        )
    return time_in_turn(things, repeats=repeats)


def _in_memory(session: Session, images: list[np.ndarray]) -> None:
    session.reset()
    for image in images:
        session.step(image)


def _file_to_file(session: Session, clip: Path, out: Path, classes: Classes) -> None:
    session.reset()
    palette = classes.colours()
    with (
        open_source(clip) as source,
        open_sinks(
            [out], source.info, draw=lambda image, label: overlay(image, label, palette), palette=palette
        ) as outputs,
    ):
        run_pipeline(source, lambda frame: session.step(frame.image).labels, [outputs.write])
