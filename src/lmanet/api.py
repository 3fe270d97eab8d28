"""What the command line does, as functions: find a model (`find.py`), label a video, score models on labelled video."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lmanet.classes import check_class_count, check_same_classes
from lmanet.devices import find_device
from lmanet.errors import InputError
from lmanet.find import DEFAULT_WEIGHTS, find_model, find_models
from lmanet.labelling.result import LabelledVideo
from lmanet.methods.base import VideoModel, as_video_model
from lmanet.nn.place import place_of
from lmanet.session import Precision, Session
from lmanet.zoo.names import load

if TYPE_CHECKING:
    from lmanet.data.protocols import VideoData
    from lmanet.evaluation.results import EvaluationReport
    from lmanet.evaluation.temporal import Mode
    from lmanet.labelling.live import Labelling
    from lmanet.video.view import View

__all__ = [
    "DEFAULT_WEIGHTS",
    "LabelledVideo",
    "check_classes",
    "evaluate",
    "find_model",
    "find_models",
    "label_video",
    "set_threads",
]

CONTROL = "control"
"""The column of a report whose model begins a new stream at every frame."""


def label_video(
    source: str | Path,
    outputs: str | Path | Sequence[str | Path] | None = None,
    model: VideoModel | str | None = None,
    *,
    view: View = "overlay",
    opacity: float = 0.5,
    resize: tuple[int, int] | None = None,
    images_fps: float | None = None,
    strict: bool = False,
    memory_size: int | None = None,
    window: int | None = None,
    precision: Precision = "fp32",
    device: str | None = None,
    resume: bool = False,
    on_open: Callable[[Labelling], None] = lambda run: None,
    progress: Callable[[int], None] = lambda done: None,
) -> LabelledVideo:
    """Label a video, a folder of images or an image; decoding, the network and encoding overlap.

    However it ends, what was labelled is kept: the outputs are finished with the frames that they have, under their
    names, before an error or a KeyboardInterrupt is raised, whose notes then say what was kept. Before the first frame
    nothing is written, and what was there stays.

    ```python
    lmanet.label_video("street.mp4", "labelled.mp4")
    lmanet.label_video("street.mp4", ["view.mp4", "labels/"], lmanet.find_model("unet-camvid", method="flow-average"))
    ```

    Args:
        source: a video file, a folder of images, an image, or `camera:0`.
        outputs: a video (H.264) or an image of the view, or a folder for label maps (PNG of class ids); one or several;
            `NAME-labelled.mp4` in the current folder, if none is given.
        model: what labels; or a name of weights; `erfnet-camvid` if not given.
        view: what a video shows: the frame under its labels, the labels alone, or both side by side.
        opacity: of the labels in the overlay, 0 to 1.
        resize: height and width in pixels that the network sees; the output keeps the input's size.
        images_fps: frames per second of a folder of images, 30 if not given; videos and cameras have their own.
        strict: an image that cannot be read, or a video that is damaged or cut off, is an error; otherwise it is left
            out, and `LabelledVideo.warnings` tells of it.
        memory_size: S, frames remembered, if not the model's own.
        window: R, side of the search window in cells, odd, if not the model's own.
        precision: of the network; `bf16` is faster on CPUs and GPUs that have it.
        device: `cpu`, `cuda`, `cuda:1` and so on; a GPU where PyTorch has one, if not given.
        resume: label maps of the same run that are in the folder, whole, are not made again; the memory is warmed up by
            the frames before those that are missing.
        on_open: told of the run when all is open: `run.info.frame_count`, and `run.stop()`, which any thread may call,
            to end it with what is labelled.
        progress: told after each frame how many are done.

    Raises:
        InputError: the model or a setting is not what it must be; or the folder holds maps that were made otherwise.
        NetworkError: the network fails at a frame.
        VideoError: the source cannot be read, or an output of this kind cannot be made.
        OutputError: an output cannot be written.
        WeightsError: see `lmanet.load`.
    """
    from lmanet.labelling.live import label
    from lmanet.video import open_source
    from lmanet.video.view import drawer

    chosen = find_device(device)
    labeller = as_video_model(find_model(model) if model is None or isinstance(model, str) else model)
    session = Session(
        _on(labeller, chosen),
        precision=precision,
        resize=resize,
        memory_size=memory_size,
        window=window,
    )
    given = [outputs] if isinstance(outputs, str | Path) else list(outputs or ())
    return label(
        lambda: open_source(str(source), images_fps=images_fps, strict=strict),
        [Path(output) for output in given],
        labeller,
        session,
        draw=drawer(view, labeller.classes, opacity),
        device=str(chosen),
        resume=resume,
        on_open=on_open,
        progress=progress,
    )


def _on(model: VideoModel, device: torch.device) -> VideoModel:
    """A copy for inference on a device; the caller's model stays where it is."""
    if place_of(model).device == device:
        return model.optimize()
    return copy.deepcopy(model.optimize()).to(device)


def evaluate(
    data: str | VideoData,
    models: VideoModel | str | Mapping[str, VideoModel],
    *,
    split: str = "val",
    control: VideoModel | None = None,
    resize: tuple[int, int] | None = None,
    memory_size: int | None = None,
    window: int | None = None,
    precision: Precision = "fp32",
    device: str | None = None,
    mode: Mode = "default",
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Score models side by side on labelled video; every sequence is streamed through once.

    ```python
    report = lmanet.evaluate("folder:my_video", lmanet.find_models("erfnet-camvid", methods=["all"]))
    print({name: scores.miou for name, scores in report.scores.items()})
    ```

    Args:
        data: a specification such as `camvid:PATH`, `folder:PATH` or `synthetic:` (`lmanet data check --help`), or data
            of your own that keep `lmanet.data.protocols.VideoData`.
        models: by the names that the report has; one alone, or the name of its weights, by its method's name.
        split: `train`, `val`, `test`, or another that the data set has; of no meaning for data of your own.
        control: a model trained with `--memories current`: a further column, which begins a stream at every frame.
        resize: height and width in pixels that the networks see; they are scored at the labels' size.
        memory_size: S, of the models that have a memory, if not their own.
        window: R in cells, odd, likewise.
        precision: of the networks.
        device: `cpu`, `cuda`, `cuda:1` and so on; a GPU where PyTorch has one, if not given.
        mode: of the temporal metrics; `reference` computes VC and TC as VSPW's scripts do.
        progress: told after every frame how many are done, and of how many.

    Returns:
        mIoU, IoU per class, pixel accuracy, flicker, VC8, VC16, TC and time of each model.

    Raises:
        InputError: the classes of a model and of the data differ, or no model has a memory size or window to be set.
        DataError: the data cannot be read.
    """
    from lmanet.data.spec import open_data
    from lmanet.evaluation.models import ModelPredictor
    from lmanet.evaluation.run import evaluate as run

    chosen = find_device(device)
    frames = open_data(data, split) if isinstance(data, str) else data
    columns = dict(models) if isinstance(models, Mapping) else {"": models}
    columns = {
        title: as_video_model(load(model) if isinstance(model, str) else model)
        for title, model in columns.items()
    }
    columns = {title or model.method: model for title, model in columns.items()}
    if control is not None:
        if CONTROL in columns:
            raise InputError(f"a model is called {CONTROL!r}, as the control is: give it another name")
        columns[CONTROL] = as_video_model(control)
    seen = {} if resize is None else {"resize": list(resize)}
    given = {"memory_size": memory_size, "window": window}
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in changes.items():
        having = [title for title, model in columns.items() if name in model.adjustable]
        # Where none has it, the first says so.
        for title in having or list(columns)[:1]:
            columns[title] = columns[title].adjusted(**{name: value})
    predictors = {}
    for title, model in columns.items():
        check_classes(model, frames)
        predictors[title] = ModelPredictor(
            _on(model, chosen), precision=precision, resize=resize, forget=title == CONTROL
        )
    return run(
        frames,
        predictors,
        mode=mode,
        settings={"device": str(chosen), "precision": precision, **seen, **changes},
        progress=progress,
    )


def check_classes(model: VideoModel, data: VideoData) -> None:
    """Raise InputError unless a model has the data's classes: in number and, where it knows them, in name."""
    check_class_count(model.backbone.num_classes)
    advice = "evaluate it on data with its own classes, or merge the network's (lmanet convert --classes)"
    if model.backbone.classes is None and model.backbone.num_classes == len(data.classes):
        return
    check_same_classes(model.classes, "the model", data.classes, data.name, advice)


def set_threads(threads: int | None) -> None:
    """Set how many threads PyTorch uses on the CPU; None leaves them.

    Raises:
        InputError: less than 1.
    """
    if threads is not None:
        if threads < 1:
            raise InputError(f"threads {threads}: expected at least 1")
        torch.set_num_threads(threads)
