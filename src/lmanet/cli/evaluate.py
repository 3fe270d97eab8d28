"""`lmanet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def evaluate(
    *,
    data: str,
    weights: str,
    split: str = "val",
    control: str | None = None,
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
        split: train, val, test, or another that the data set has.
        control: weights trained with `--memories current`: scored as a further column that sees no past.
        memory_size: frames remembered, if not the model's own.
        window: side of the search window in cells, odd, if not the model's own.
        precision: of the network.
        device: cpu, cuda or cuda:1 and so on; a GPU where PyTorch has one, if not given.
        mode: of the temporal metrics: `reference` computes VC and TC as VSPW's scripts do.
        threads: of PyTorch, on the CPU.
        json: write the report to this file.
        plot: draw IoU per class into this file (.png, .pdf, .svg).
    """
    from rich.console import Console
    from rich.progress import Progress

    from lmanet.cli.models import find_device, load_video, set_threads, with_memory
    from lmanet.cli.outputs import check_file
    from lmanet.data.spec import open_data
    from lmanet.errors import WeightsError
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
    from lmanet.zoo.names import load, single_frame_of

    set_threads(threads)
    chosen = find_device(device)
    if json is not None:
        check_file(json)
    if plot is not None:
        check_file(plot, PLOT_SUFFIXES)
    errors = Console(stderr=True)
    frames = open_data(data, split)
    model = with_memory(load(weights), memory_size, window).to(chosen)
    try:
        base = single_frame_of(weights)
    except WeightsError as error:
        base = None
        errors.print(
            f"warning: no column for the single-frame network: {error}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    predictors: dict[str, Predictor] = {}
    if base is not None:
        single = load(base).to(chosen)
        check_classes(single, frames.classes.names, frames.name)
        predictors["single-frame"] = ModelPredictor(single, precision=precision)
    if control is not None:
        forgetful = with_memory(load_video(control), memory_size, window).to(chosen)
        check_classes(forgetful, frames.classes.names, frames.name)
        predictors["control"] = ModelPredictor(forgetful, precision=precision, forget=True)
    if base != weights:
        check_classes(model, frames.classes.names, frames.name)
        predictors["LMANet"] = ModelPredictor(model, precision=precision)
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
