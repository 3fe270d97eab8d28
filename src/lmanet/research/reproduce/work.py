"""Running one cell."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmanet.data.protocols import VideoData, labelled_frames
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.methods.lmanet import LMANet
from lmanet.research.reproduce.attention import draw_attention_maps
from lmanet.research.reproduce.cells import (
    AttentionMaps,
    Cell,
    Changes,
    Evaluation,
    MemoryTraining,
    Network,
    SingleTraining,
    Timings,
    Training,
    Weights,
    weights_of,
)
from lmanet.research.reproduce.changes import find_changes
from lmanet.research.reproduce.scoring import score
from lmanet.research.reproduce.store import Store, best_device, locked, using
from lmanet.training.checkpoint import remove_resumable
from lmanet.training.config import Stage
from lmanet.training.progress import Phase, Progress
from lmanet.zoo import load
from lmanet.zoo.files import load_model
from lmanet.zoo.names import bundled

if TYPE_CHECKING:
    from lmanet.training.options import TrainingTimings

Report = Callable[[str, Any], None]
"""Called with the name of what is going on, and (done, total) or a training's `Progress`."""


def run_cell(
    cell: Cell, store: Store, *, workers: int = 0, report: Report = lambda name, progress: None
) -> None:
    """Run a cell whose needs are finished, and keep its result; nothing if it is finished itself.

    A training that was killed goes on from its last epoch.

    Args:
        cell: what to run.
        store: where cells are kept.
        workers: processes that prepare a training's samples.
        report: told of the progress.

    Raises:
        LmanetError: what the training or the evaluation finds wrong.
    """
    # Another run of the same cell, or what a killed one left behind, finishes first.
    with locked(store.folder(cell)):
        if not store.is_finished(cell):
            _run(cell, store, workers, report)


def _run(cell: Cell, store: Store, workers: int, report: Report) -> None:
    folder = store.begin(cell)
    began = time.perf_counter()
    match cell:
        case SingleTraining() | MemoryTraining():
            result = _train(cell, store, folder, workers, report)
        case Evaluation():
            result = score(
                cell, load_trained(cell.model, store), store.frames(cell.data), lambda *n: report("frames", n)
            )
        case Timings():
            result = _time(cell, report)
        case Changes():
            single, video = (load_trained(one, store) for one in (cell.single, cell.video))
            result = find_changes(cell, single, video, store.frames(cell.data), folder)
        case AttentionMaps():
            video = load_trained(cell.video, store)
            if not isinstance(video, LMANet):
                raise InputError(
                    f"attention maps of the method {video.method}: they are drawn of lmanet alone"
                )
            result = draw_attention_maps(video, store.frames(cell.data), folder)
    store.finish(cell, {**result, "seconds": time.perf_counter() - began})
    if isinstance(cell, SingleTraining | MemoryTraining):
        remove_resumable(store.folder(cell))


def load_trained(model: Network | MemoryTraining, store: Store) -> VideoModel:
    """A bundled network, or what a training gave, in `eval` mode, on the device of `best_device`.

    Raises:
        InputError: the weights' file is not what it was when the run began.
        WeightsError: see `lmanet.load`.
    """
    if not isinstance(model, Weights):
        return load_model(store.weights(model)).to(best_device())
    if weights_of(model.name) != model:
        raise InputError(f"{model.name} is not what it was when the run began: run it again with one file")
    return load(model.name).to(best_device())


def stages_of(training: Training) -> tuple[Stage, ...]:
    """The stages that the training runs, in order."""
    if isinstance(training, MemoryTraining):
        from lmanet.training.steps import steps_of

        return tuple(steps_of(training.recipe).values())
    return (training.recipe.stage,)


def samples_of(stage: Stage, frames: int) -> int:
    """Samples that a stage trains on in all, of data with so many labelled frames."""
    each = min(stage.samples, frames) or frames
    return stage.epochs * -(-each // stage.batch_size) * stage.batch_size


def _train(cell: Training, store: Store, folder: Path, workers: int, report: Report) -> dict[str, Any]:
    from accelerate import Accelerator

    from lmanet.training.method import train_method
    from lmanet.training.options import RunOptions
    from lmanet.training.single import train_single

    data = cell.data.open()
    store.share_frames(cell)
    shared = store.shared(cell.data)
    with using(shared), locked(shared) as held:

        def told(phase: Phase, progress: Progress | tuple[int, int]) -> None:
            if phase.kind == "training":
                held.close()  # others that wait for the frames and features find them now
            report(phase.name, progress)

        options = RunOptions(Accelerator(mixed_precision="bf16"), cell.seed, workers, told)
        if isinstance(cell, SingleTraining):
            initial = load_trained(cell.initial, store).backbone if cell.initial else None
            result = train_single(data, None, cell.recipe, folder, options=options, initial=initial)
        else:
            network = cell.network
            own_name = network.name if isinstance(network, Weights) and network.name in bundled() else None
            result = train_method(
                data,
                None,
                load_trained(network, store).backbone,
                cell.recipe,
                folder,
                options=options,
                single_frame=own_name,
                cache_folder=shared,
            )
    return {"parts": _parts(cell, data, result.timings)}


def _parts(cell: Training, data: VideoData, timings: TrainingTimings) -> dict[str, Any]:
    """Seconds of what the training was made of, how many samples of how many pixels: for estimates."""
    height, width = cell.data.size()
    frames = len(labelled_frames(data))
    samples = sum(samples_of(stage, frames) for stage in stages_of(cell))
    crop = cell.recipe.augmentation.crop or (height, width)
    kind = "memory" if isinstance(cell, MemoryTraining) else "single"
    seconds = sum(timings.steps_s.values())
    parts = {kind: {"seconds": seconds, "samples": samples, "pixels": crop[0] * crop[1]}}
    if timings.encoded:
        assert isinstance(cell, MemoryTraining)
        views = timings.encoded * views_of(cell)
        parts["encoding"] = {"seconds": timings.encoding_s, "samples": views, "pixels": height * width}
    return parts


def views_of(cell: MemoryTraining) -> int:
    """Views under which each frame is encoded."""
    return cell.recipe.draws * (1 + cell.recipe.pseudo)


def _time(cell: Timings, report: Report) -> dict[str, Any]:
    from lmanet.research.benchmarks.model import bench_model

    measured = bench_model(
        cell.variants,
        size=cell.size,
        repeats=cell.repeats,
        on_variant=lambda *n: report("networks", n),
    )
    return {"measured": [asdict(one) for one in measured]}
