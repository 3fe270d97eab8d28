"""`lmanet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def evaluate(
    *,
    data: str,
    weights: str | None = None,
    model: str | None = None,
    at: str | None = None,
    split: str = "val",
    control: str | None = None,
    training_free: bool = False,
    memory_size: int | None = None,
    window: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str | None = None,
    mode: Literal["default", "reference"] = "default",
    threads: int | None = None,
    json: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Score a model on labelled video, beside the single-frame network that it was made from.

    Every sequence is streamed through once; no memory reaches across a gap.

    Args:
        data: camvid:PATH, cityscapes:PATH, vspw:PATH, folder:PATH or synthetic:, with ,size=HxW behind it to resize
            frames and labels (see lmanet data check --help).
        weights: a bundled name, a .safetensors file, or a Hub id.
        model: MODULE:FUNCTION that builds a network of your own; with --weights of a memory trained on it, or without.
        at: the submodule of it whose output goes through the memory, of those that `lmanet inspect` lists.
        split: train, val, test, or another that the data set has.
        control: weights trained with `--memories current`: scored as a further column that sees no past.
        training_free: score as a further column the single-frame network steadied by a memory that needs no
            training.
        memory_size: frames remembered, if not the models' own.
        window: side of the search window in cells, odd, if not the models' own.
        precision: of the network.
        device: cpu, cuda or cuda:1 and so on; a GPU where PyTorch has one, if not given.
        mode: of the temporal metrics: `reference` computes VC and TC as VSPW's scripts do.
        threads: of PyTorch, on the CPU.
        json: write the report to this file.
        plot: draw IoU per class into this file (.png, .pdf, .svg).
    """
    from rich.console import Console
    from rich.progress import Progress

    from lmanet.backbones import Backbone
    from lmanet.cli.models import find_device, find_models, load_video, set_threads, with_memory
    from lmanet.cli.outputs import check_file
    from lmanet.data.spec import open_data
    from lmanet.evaluation.models import ModelPredictor, check_classes
    from lmanet.evaluation.report import (
        PLOT_SUFFIXES,
        per_class_table,
        plot_per_class,
        print_table,
        write_json,
    )
    from lmanet.evaluation.run import Predictor
    from lmanet.evaluation.run import evaluate as run
    from lmanet.methods.base import VideoModel
    from lmanet.methods.training_free import TrainingFreeSegmenter

    set_threads(threads)
    chosen = find_device(device)
    if json is not None:
        check_file(json)
    if plot is not None:
        check_file(plot, PLOT_SUFFIXES)
    errors = Console(stderr=True)
    frames = open_data(data, split)
    single, video = find_models(
        weights,
        model,
        at,
        training_free=training_free,
        warn=lambda text: errors.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True),
    )
    columns: dict[str, VideoModel | Backbone] = {}
    if single is not None:
        columns["single-frame"] = single
    if training_free and single is not None:
        columns["training-free"] = TrainingFreeSegmenter(single)
    if control is not None:
        columns["control"] = load_video(control)
    if video is not None:
        columns["LMANet"] = video
    remembering = [column for column in columns.values() if isinstance(column, VideoModel)]
    for column in remembering or columns.values():
        with_memory(column, memory_size, window)
    predictors: dict[str, Predictor] = {}
    for title, column in columns.items():
        check_classes(column, frames.classes.names, frames.name)
        predictors[title] = ModelPredictor(column.to(chosen), precision=precision, forget=title == "control")
    console = Console()
    with Progress(console=errors, transient=True) as bars:
        task = bars.add_task(f"evaluating {frames.name} on {chosen}", total=None)
        report = run(
            frames,
            predictors,
            mode=mode,
            settings={"device": str(chosen), "precision": precision},
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    print_table(report, console)
    console.print(per_class_table(report))
    if json is not None:
        write_json(report, json)
    if plot is not None:
        plot_per_class(report, plot)
