"""`lmanet segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def segment(
    source: tyro.conf.Positional[str],
    /,
    *,
    output: tyro.conf.UseAppendAction[Annotated[list[Path], tyro.conf.arg(aliases=["-o"])]],
    weights: str | None = None,
    model: str | None = None,
    at: str | None = None,
    view: Literal["overlay", "labels", "side-by-side"] = "overlay",
    opacity: float = 0.5,
    memory: bool = True,
    training_free: bool = False,
    memory_size: int | None = None,
    window: int | None = None,
    resize: tuple[int, int] | None = None,
    fps: float | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str | None = None,
    threads: int | None = None,
) -> None:
    """Label a video, a folder of images or an image.

    Args:
        source: a video file, a folder of images, an image, or camera:0.
        output: a video (H.264) or an image of the view, or a folder for label maps (PNG of class ids); may be
            given several times; NAME-labelled.mp4 in the current folder, if not given.
        weights: a bundled name, a .safetensors file, or a Hub id; lmanet-erfnet-camvid if there is no --model.
        model: MODULE:FUNCTION that builds a network of your own; the module lies in the current folder.
        at: the submodule of it whose output goes through the memory, of those that `lmanet inspect` lists.
        view: what the video shows.
        opacity: of the labels in the overlay, 0 to 1.
        memory: use the memory; --no-memory labels every frame by itself, by the single-frame network.
        training_free: steady the single-frame network by a memory that needs no training, in place of LMANet's.
        memory_size: frames remembered, if not the model's own.
        window: side of the search window in cells, odd, if not the model's own.
        resize: height and width that the network sees; the output keeps the input's size.
        fps: frames per second of a folder of images, 30 if not given; videos and cameras have their own.
        precision: bf16 is faster on CPUs and GPUs that have it.
        device: cpu, cuda or cuda:1 and so on; a GPU where PyTorch has one, if not given.
        threads: of PyTorch, on the CPU.
    """
    import time

    from rich.console import Console

    from lmanet.cli.labelling import labelling_progress, print_summary, stopping_camera
    from lmanet.cli.models import find_device, find_model, set_threads, with_memory
    from lmanet.cli.third_party import classes_of
    from lmanet.evaluation.shares import ClassShares
    from lmanet.session import Session
    from lmanet.video import default_output, open_sinks, open_source, run_pipeline
    from lmanet.video.view import drawer

    set_threads(threads)
    chosen = find_device(device)
    name, labeller = find_model(weights, model, at, memory=memory, training_free=training_free)
    labeller = with_memory(labeller, memory_size, window).to(chosen)
    classes = classes_of(labeller)
    palette = classes.colours()
    session = Session(labeller, precision=precision, resize=resize)
    shares = ClassShares(len(classes))
    draw = drawer(view, classes, opacity)
    console = Console(stderr=True)
    began_s = time.perf_counter()
    with (
        open_source(source, images_fps=fps) as frames,
        open_sinks(
            output or [default_output(frames.info)], frames.info, draw=draw, palette=palette
        ) as writes,
        labelling_progress(frames.info.frame_count, console) as advance,
        stopping_camera(frames),
    ):
        count = run_pipeline(
            frames,
            lambda frame: session.step(frame.image).labels,
            [lambda frame, label: shares.update(label), *writes],
            progress=lambda frame: advance(),
        )
    # Only now the outputs are closed, which is part of the work.
    seconds = time.perf_counter() - began_s
    for warning in frames.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    print_summary(
        console,
        frames=count,
        model=name,
        device=str(chosen),
        seconds=seconds,
        shares=dict(zip(classes.names, shares.compute(), strict=True)),
        outputs=output or [default_output(frames.info)],
    )
