"""`lmanet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from lmanet.cli.network import NO_NETWORK, OwnNetwork


def evaluate(
    *,
    data: str,
    weights: str | None = None,
    network: tyro.conf.OmitArgPrefixes[OwnNetwork] = NO_NETWORK,
    split: str = "val",
    control: str | None = None,
    method: tyro.conf.UseAppendAction[list[str]],
    resize: tuple[int, int] | None = None,
    memory_size: int | None = None,
    window: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str | None = None,
    mode: Literal["default", "reference"] = "default",
    threads: int | None = None,
    json: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Score methods on labelled video, side by side on one network.

    Every sequence is streamed through once; no memory reaches across a gap.

    Args:
        data: camvid:PATH, cityscapes:PATH, vspw:PATH, folder:PATH or synthetic:, with ,size=HxW behind it to resize
            frames and labels (see lmanet data check --help).
        weights: a bundled name, a .safetensors file, or a Hub id.
        network: options of a network of your own.
        split: train, val, test, or another that the data set has.
        control: weights trained with `--memories current`: scored as a further column that sees no past.
        method: single-frame, flow-average, training-free, label-memory, lmanet, or MODULE:CLASS of your own; may be
            given several times; all: every one that needs no training, and that of the weights; if not given,
            single-frame and that of the weights, or of a single-frame network training-free.
        resize: height and width that the network sees; scores are at the labels' own size.
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

    from lmanet import api
    from lmanet.cli.outputs import check_file
    from lmanet.cli.said import say
    from lmanet.data.spec import size_of
    from lmanet.devices import find_device
    from lmanet.evaluation.report import (
        PLOT_SUFFIXES,
        per_class_table,
        plot_per_class,
        print_table,
        write_json,
    )
    from lmanet.zoo import load

    api.set_threads(threads)
    find_device(device)  # before anything is loaded
    if json is not None:
        check_file(json)
    if plot is not None:
        check_file(plot, PLOT_SUFFIXES)
    console, errors = Console(), Console(stderr=True)
    models = api.find_models(
        weights,
        model=network.model,
        methods=method,
        warn=lambda text: say(errors, f"warning: {text}", style="yellow"),
        **network.options(resize or size_of(data)),
    )
    if network.model is not None:
        backbone = next(iter(models.values())).backbone
        say(errors, f"normalisation: {backbone.normalisation}", *backbone.notes)
    with Progress(console=errors, transient=True) as bars:
        task = bars.add_task(f"evaluating {data}", total=None)
        report = api.evaluate(
            data,
            models,
            split=split,
            control=load(control) if control else None,
            resize=resize,
            memory_size=memory_size,
            window=window,
            precision=precision,
            device=device,
            mode=mode,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    print_table(report, console)
    console.print(per_class_table(report))
    if json is not None:
        write_json(report, json)
    if plot is not None:
        plot_per_class(report, plot)
