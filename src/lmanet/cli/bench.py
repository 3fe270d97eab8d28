"""`lmanet bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def bench(
    what: tyro.conf.Positional[Literal["stream", "training"]],
    /,
    *,
    weights: str = "lmanet-erfnet-synthetic",
    frames: int = 60,
    precision: Literal["fp32", "bf16"] = "fp32",
    repeats: int = 5,
    threads: int | None = None,
    json: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
) -> None:
    """Measure speed on this machine.

    Args:
        what: `stream`: from file to file against frames in memory, with and without memory module. `training`:
            steps 1 and 2 with and without the feature cache.
        weights: for `stream`: a video model.
        frames: for `stream`: length of the clip.
        precision: for `stream`: of the networks.
        repeats: counted runs of each thing, all in turn.
        threads: of PyTorch.
        json: write the figures to this file.
    """
    import tempfile

    from rich.console import Console

    from lmanet.benchmarks.report import stream_table, training_table
    from lmanet.benchmarks.timing import write_results
    from lmanet.cli.models import set_threads

    set_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        if what == "stream":
            from lmanet.benchmarks.stream import bench_stream

            timings = bench_stream(weights, Path(folder), frames=frames, precision=precision, repeats=repeats)
            settings = {"weights": weights, "frames": frames, "size": [360, 480], "precision": precision}
            table = stream_table(timings, frames)
        else:
            from lmanet.benchmarks.training import bench_training

            timings = bench_training(Path(folder), batches=2, repeats=repeats)
            settings = {"batches": 2, "batch_size": 4, "size": [360, 480], "precision": "bf16"}
            table = training_table(timings)
    Console().print(table)
    if json is not None:
        write_results(json, f"lmanet bench {what}", settings, timings)
