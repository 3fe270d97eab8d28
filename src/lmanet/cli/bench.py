"""`lmanet bench`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Stream:
    """From file to file against frames in memory, with and without memory module.

    Attributes:
        weights: a video model; the single-frame network is the one inside it.
        frames: length of the clip.
        precision: of the networks.
        device: cpu, cuda or cuda:1 and so on; a GPU where PyTorch has one, if not given.
    """

    weights: str = "lmanet-erfnet-synthetic"
    frames: int = 60
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str | None = None


@dataclass(frozen=True)
class Training:
    """Steps 1 and 2 of the training with and without the feature cache, in bfloat16 on the CPU."""


def bench(
    *,
    what: Annotated[Stream, tyro.conf.subcommand("stream", prefix_name=False)]
    | Annotated[Training, tyro.conf.subcommand("training", prefix_name=False)],
    repeats: int = 5,
    threads: int | None = None,
    json: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
) -> None:
    """Measure speed on this machine.

    Args:
        what: what to measure.
        repeats: counted runs of each thing, all in turn.
        threads: of PyTorch, on the CPU.
        json: write the figures to this file.
    """
    import tempfile

    from rich.console import Console

    from lmanet.benchmarks.report import stream_table, training_table
    from lmanet.benchmarks.timing import write_results
    from lmanet.cli.models import find_device, load_video, set_threads
    from lmanet.cli.outputs import check_file
    from lmanet.errors import InputError

    if repeats < 1:
        raise InputError(f"repeats {repeats}: expected at least 1")
    set_threads(threads)
    if json is not None:
        check_file(json)
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(what, Stream):
            from lmanet.benchmarks.stream import bench_stream

            device = find_device(what.device)
            model = load_video(what.weights).to(device)
            name = "stream"
            timings = bench_stream(
                model, Path(folder), frames=what.frames, precision=what.precision, repeats=repeats
            )
            settings = {**asdict(what), "device": str(device), "size": [360, 480]}
            table = stream_table(timings, what.frames)
        else:
            from lmanet.benchmarks.training import bench_training

            name = "training"
            timings = bench_training(Path(folder), batches=2, repeats=repeats)
            settings = {"batches": 2, "batch_size": 4, "size": [360, 480], "precision": "bf16"}
            table = training_table(timings)
    Console().print(table)
    if json is not None:
        write_results(json, f"lmanet bench {name}", settings, timings)
