"""`lmanet bench`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


@dataclass(frozen=True)
class Op:
    """Local attention by itself on the CPU: the kernels, other ways to compute it, and global attention."""


@dataclass(frozen=True)
class Model:
    """A frame through a network with a memory against the bare network on the CPU: time and peak memory.

    Attributes:
        network: the bare network.
        size: height and width of the frames; the paper's for the network, if not given.
    """

    network: Literal["erfnet", "pspnet50", "pspnet101"] = "erfnet"
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Stream:
    """From file to file against frames in memory, with and without memory module.

    Attributes:
        weights: of a method; the single-frame network is the one inside it.
        frames: length of the clip.
        precision: of the networks.
        device: cpu, cuda or cuda:1 and so on; a GPU where PyTorch has one, if not given.
    """

    weights: str = "label-memory-erfnet-synthetic"
    frames: int = 60
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str | None = None


@dataclass(frozen=True)
class Training:
    """Steps 1 and 2 of the training, in bfloat16 on the CPU: the feature cache, and the attention's kernel."""


def bench(
    *,
    what: Annotated[Op, tyro.conf.subcommand("op", prefix_name=False)]
    | Annotated[Model, tyro.conf.subcommand("model", prefix_name=False)]
    | Annotated[Stream, tyro.conf.subcommand("stream", prefix_name=False)]
    | Annotated[Training, tyro.conf.subcommand("training", prefix_name=False)],
    repeats: int = 5,
    threads: int | None = None,
    json: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    plot: Path | None = None,
) -> None:
    """Measure speed on this machine.

    Args:
        what: what to measure.
        repeats: counted runs of each thing, all in turn; fewer of very slow ones.
        threads: of PyTorch, on the CPU.
        json: write the figures to this file.
        plot: draw op, model or stream into this file (.png, .pdf, .svg).
    """
    from rich.console import Console

    from lmanet.api import set_threads
    from lmanet.cli.outputs import check_file
    from lmanet.errors import InputError
    from lmanet.evaluation.report import PLOT_SUFFIXES
    from lmanet.research.benchmarks.timing import write_results

    if repeats < 1:
        raise InputError(f"repeats {repeats}: expected at least 1")
    if plot is not None and isinstance(what, Training):
        raise InputError(f"--plot {plot}: there is no plot of bench training; leave it out")
    set_threads(threads)
    if json is not None:
        check_file(json)
    if plot is not None:
        check_file(plot, PLOT_SUFFIXES)
    run: Callable[[Any, int], _Outcome] = {
        Op: _op,
        Model: _model,
        Stream: _stream,
        Training: _training,
    }[type(what)]
    outcome = run(what, repeats)
    for table in outcome.tables:
        Console().print(table)
    if json is not None:
        command = f"lmanet bench {type(what).__name__.lower()}{outcome.options}"
        write_results(json, command, {**outcome.settings, "repeats": repeats}, outcome.figures)
    if plot is not None and outcome.draw is not None:
        from lmanet.research.benchmarks.plots import save_figure

        save_figure(outcome.draw(), plot)


@dataclass(frozen=True)
class _Outcome:
    """What a benchmark gave: settings and figures for the results file, tables, and what draws the plot.

    `options` are those of the command that tell one results file from another.
    """

    settings: dict[str, Any]
    figures: dict[str, Any]
    tables: list[Table]
    draw: Callable[[], Figure] | None = None
    options: str = ""


@contextmanager
def _counting() -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal's error output; what it gives is told how much is done, and of how much."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("measuring", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _op(what: Op, repeats: int) -> _Outcome:
    from lmanet.research.benchmarks.op import BUDGET_S, CASES, LEAST_S, bench_op
    from lmanet.research.benchmarks.op_report import op_tables
    from lmanet.research.benchmarks.plots import op_figure

    with _counting() as progress:
        results = bench_op(CASES, repeats=repeats, on_case=progress)
    return _Outcome(
        {"least_s": LEAST_S, "budget_s": BUDGET_S},
        {"cases": [asdict(result) for result in results]},
        [table.rich() for table in op_tables(results)],
        lambda: op_figure(results),
    )


def _model(what: Model, repeats: int) -> _Outcome:
    from lmanet.errors import InputError
    from lmanet.research.benchmarks.model import BUDGET_S, SIZES, bench_model, variants_of
    from lmanet.research.benchmarks.model_report import model_tables
    from lmanet.research.benchmarks.plots import model_figure

    size = what.size or SIZES[what.network]
    if min(size) < 8:
        raise InputError(f"size {size}: expected a height and a width of at least 8 pixels")
    with _counting() as progress:
        results = bench_model(variants_of(what.network), size=size, repeats=repeats, on_variant=progress)
    return _Outcome(
        {"network": what.network, "size": size, "budget_s": BUDGET_S},
        {"networks": [asdict(result) for result in results]},
        [table.rich() for table in model_tables(results, size)],
        lambda: model_figure(results),
        "" if what.network == "erfnet" else f" --network {what.network}",
    )


def _stream(what: Stream, repeats: int) -> _Outcome:
    import tempfile

    from lmanet.devices import find_device
    from lmanet.research.benchmarks.plots import stream_figure
    from lmanet.research.benchmarks.stream import bench_stream
    from lmanet.research.benchmarks.summaries import stream_table
    from lmanet.zoo import load

    device = find_device(what.device)
    model = load(what.weights).to(device)
    with tempfile.TemporaryDirectory() as folder:
        timings = bench_stream(
            model, Path(folder), frames=what.frames, precision=what.precision, repeats=repeats
        )
    return _Outcome(
        {**asdict(what), "device": str(device), "size": [360, 480]},
        {"timings": {name: asdict(timing) for name, timing in timings.items()}},
        [stream_table(timings, what.frames)],
        lambda: stream_figure(timings, what.frames),
    )


def _training(what: Training, repeats: int) -> _Outcome:
    import tempfile

    from lmanet.research.benchmarks.summaries import training_table
    from lmanet.research.benchmarks.training import bench_training

    with tempfile.TemporaryDirectory() as folder:
        timings = bench_training(Path(folder), batches=2, repeats=repeats)
    return _Outcome(
        {"batches": 2, "batch_size": 4, "size": [360, 480], "precision": "bf16"},
        {"timings": {name: asdict(timing) for name, timing in timings.items()}},
        [training_table(timings)],
    )
