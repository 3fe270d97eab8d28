"""`lmanet segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

DEFAULT_WEIGHTS = "lmanet-erfnet-camvid"


def segment(
    source: tyro.conf.Positional[str],
    /,
    *,
    output: tyro.conf.UseAppendAction[Annotated[list[Path], tyro.conf.arg(aliases=["-o"])]],
    weights: str = DEFAULT_WEIGHTS,
    view: Literal["overlay", "labels", "side-by-side"] = "overlay",
    opacity: float = 0.5,
    memory: bool = True,
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
            given several times.
        weights: a bundled name, a .safetensors file, or a Hub id.
        view: what the video shows.
        opacity: of the labels in the overlay, 0 to 1.
        memory: use the memory; --no-memory labels every frame by itself, by the single-frame network.
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
    from lmanet.cli.models import find_device, set_threads, with_memory
    from lmanet.evaluation.shares import ClassShares
    from lmanet.session import Session
    from lmanet.video import open_sinks, open_source, run_pipeline
    from lmanet.video.view import drawer
    from lmanet.zoo.names import load, single_frame_of

    set_threads(threads)
    chosen = find_device(device)
    name = weights if memory else single_frame_of(weights)
    model = with_memory(load(name), memory_size, window).to(chosen)
    classes = model.classes
    session = Session(model, precision=precision, resize=resize)
    shares = ClassShares(len(classes))
    draw = drawer(view, classes, opacity)
    console = Console(stderr=True)
    began_s = time.perf_counter()
    with (
        open_source(source, images_fps=fps) as frames,
        open_sinks(output, frames.info, draw=draw, palette=classes.colours()) as writes,
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
        outputs=output,
    )
