"""`lmanet segment`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lmanet.cli.network import NO_NETWORK, OwnNetwork


def segment(
    source: tyro.conf.Positional[str],
    /,
    *,
    output: tyro.conf.UseAppendAction[Annotated[list[Path], tyro.conf.arg(aliases=["-o"])]],
    weights: str | None = None,
    network: tyro.conf.OmitArgPrefixes[OwnNetwork] = NO_NETWORK,
    method: str | None = None,
    view: Literal["overlay", "labels", "side-by-side"] = "overlay",
    opacity: float = 0.5,
    memory_size: int | None = None,
    window: int | None = None,
    resize: tuple[int, int] | None = None,
    fps: float | None = None,
    strict: bool = False,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str | None = None,
    threads: int | None = None,
    resume: bool = False,
) -> None:
    """Label a video, a folder of images or an image.

    Args:
        source: a video file, a folder of images, an image, or camera:0.
        output: a video (H.264) or an image of the view, or a folder for label maps (PNG of class ids); may be
            given several times; NAME-labelled.mp4 in the current folder, if not given.
        weights: a bundled name, a .safetensors file, or a Hub id; erfnet-camvid if there is no --model.
        network: options of a network of your own.
        method: how video is labelled: single-frame, flow-average, training-free, of weights that were trained for it
            label-memory or lmanet, or MODULE:CLASS of your own; if not given, that of the weights, and of a
            single-frame network training-free.
        view: what the video shows.
        opacity: of the labels in the overlay, 0 to 1.
        memory_size: frames remembered, if not the model's own.
        window: side of the search window in cells, odd, if not the model's own.
        resize: height and width that the network sees; the output keeps the input's size. A network of your own that
            takes images of one size alone wants this.
        fps: frames per second of a folder of images, 30 if not given; videos and cameras have their own.
        strict: stop at an image that cannot be read or a video that is damaged, instead of leaving it out.
        precision: bf16 is faster on CPUs and GPUs that have it.
        device: cpu, cuda or cuda:1 and so on; a GPU where PyTorch has one, if not given.
        threads: of PyTorch, on the CPU.
        resume: go on with a folder of label maps: those that are there and whole are not made again.
    """
    from rich.console import Console

    from lmanet.api import DEFAULT_WEIGHTS, find_model, label_video, set_threads
    from lmanet.cli.labelling import labelling_progress, print_summary
    from lmanet.cli.signals import current
    from lmanet.labelling.live import Labelling
    from lmanet.labelling.result import LabelledVideo

    set_threads(threads)
    console, signals = Console(stderr=True), current()
    with console.status(f"trying out {network.model}" if network.model else "loading the network"):
        model = find_model(weights, model=network.model, method=method, **network.options(resize))
    with ExitStack() as shown:
        advance = []

        def report(labelled: LabelledVideo) -> None:
            shown.close()
            stopped_by = signals.name if labelled.stopped else ""
            print_summary(console, labelled, weights or network.model or DEFAULT_WEIGHTS, stopped_by)

        def on_open(run: Labelling) -> None:
            advance.append(shown.enter_context(labelling_progress(run.info.frame_count, console)))
            signals.labelling(run, report)

        labelled = label_video(
            source,
            output,
            model,
            view=view,
            opacity=opacity,
            resize=resize,
            images_fps=fps,
            strict=strict,
            memory_size=memory_size,
            window=window,
            precision=precision,
            device=device,
            resume=resume,
            on_open=on_open,
            progress=lambda done: advance[0](),
        )
        signals.labelled()
        report(labelled)
