"""Running one cell."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmanet.backbones import Backbone
from lmanet.data.protocols import VideoData, labelled_frames
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.methods.lmanet import VideoSegmenter
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
from lmanet.training.config import Stage
from lmanet.zoo import load
from lmanet.zoo.files import load_model
from lmanet.zoo.names import bundled

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
            models = (load_network(cell.single, store), load_video(cell.video, store))
            result = find_changes(cell, *models, store.frames(cell.data), folder)
        case AttentionMaps():
            video = load_video(cell.video, store)
            if not isinstance(video, VideoSegmenter):
                raise InputError(
                    f"attention maps of a {type(video).__name__}: they are drawn of the paper's module"
                )
            result = draw_attention_maps(video, store.frames(cell.data), folder)
    store.finish(cell, {**result, "seconds": time.perf_counter() - began})
    if isinstance(cell, SingleTraining | MemoryTraining):
        store.clean(cell)


def load_network(network: Network, store: Store) -> Backbone:
    """A single-frame network, in `eval` mode, on the device of `best_device`.

    Raises:
        WeightsError: see `lmanet.load`.
    """
    if isinstance(network, Weights) and weights_of(network.name) != network:
        raise InputError(f"{network.name} is not what it was when the run began: run it again with one file")
    model = load(network.name) if isinstance(network, Weights) else load_model(store.weights(network))
    if not isinstance(model, Backbone):
        raise InputError(f"{network} is a video model: expected a single-frame network")
    return model.to(best_device())


def load_video(training: MemoryTraining, store: Store) -> VideoModel:
    """The network with the memory that a training gave, likewise."""
    model = load_model(store.weights(training))
    assert isinstance(model, VideoModel)
    return model.to(best_device())


def load_trained(model: Network | MemoryTraining, store: Store) -> Backbone | VideoModel:
    """Either of them."""
    return load_video(model, store) if isinstance(model, MemoryTraining) else load_network(model, store)


def stages_of(training: Training) -> dict[str, Stage]:
    """The training's stages, by the name of their folder."""
    if isinstance(training, MemoryTraining):
        from lmanet.training.method import steps_of

        return {f"step{step}": stage for step, stage in steps_of(training.recipe).items()}
    return {"step0": training.recipe.stage}


def samples_of(stage: Stage, frames: int) -> int:
    """Samples that a stage trains on in all, of data with so many labelled frames."""
    each = min(stage.samples, frames) or frames
    return stage.epochs * -(-each // stage.batch_size) * stage.batch_size


def _train(cell: Training, store: Store, folder: Path, workers: int, report: Report) -> dict[str, Any]:
    from accelerate import Accelerator

    from lmanet.training.method import train_memory
    from lmanet.training.single import train_single

    accelerator = Accelerator(mixed_precision="bf16")
    data = cell.data.open()
    store.share_frames(cell)
    shared = store.shared(cell.data)
    with using(shared), locked(shared) as held:
        watch = _Watch(report, held)
        if isinstance(cell, SingleTraining):
            train_single(
                data,
                None,
                cell.recipe,
                folder,
                accelerator=accelerator,
                initial=load_network(cell.initial, store) if cell.initial else None,
                seed=cell.seed,
                workers=workers,
                report=watch,
            )
        else:
            network = cell.network
            train_memory(
                data,
                None,
                load_network(network, store),
                cell.recipe,
                folder,
                accelerator=accelerator,
                single_frame=network.name
                if isinstance(network, Weights) and network.name in bundled()
                else None,
                seed=cell.seed,
                workers=workers,
                cache_folder=shared,
                report=watch,
            )
    return {"parts": _parts(cell, data, folder, watch)}


class _Watch:
    """Passes the progress on, notes the time of the encoding, and lets the shared folder go when training begins."""

    def __init__(self, report: Report, held: ExitStack) -> None:
        self.report, self.held = report, held
        self.began = time.perf_counter()
        self.encoded, self.encoding_s = 0, 0.0

    def __call__(self, name: str, progress: Any) -> None:
        if name.startswith("reading"):
            self.began = time.perf_counter()
        elif name == "encoding":
            self.encoded, self.encoding_s = progress[0], time.perf_counter() - self.began
        elif name.startswith("step"):
            self.held.close()
        self.report(name, progress)


def _parts(cell: Training, data: VideoData, folder: Path, watch: _Watch) -> dict[str, Any]:
    """Seconds of what the training was made of, how many samples of how many pixels: for estimates."""
    height, width = cell.data.size()
    frames = len(labelled_frames(data))
    stages = stages_of(cell)
    seconds = sum(_logged_s(folder / name / "log.csv") for name in stages)
    samples = sum(samples_of(stage, frames) for stage in stages.values())
    crop = cell.recipe.augmentation.crop or (height, width)
    kind = "memory" if isinstance(cell, MemoryTraining) else "single"
    parts = {kind: {"seconds": seconds, "samples": samples, "pixels": crop[0] * crop[1]}}
    if watch.encoded:
        assert isinstance(cell, MemoryTraining)
        views = watch.encoded * views_of(cell)
        parts["encoding"] = {"seconds": watch.encoding_s, "samples": views, "pixels": height * width}
    return parts


def views_of(cell: MemoryTraining) -> int:
    """Views under which each frame is encoded."""
    return cell.recipe.draws * (1 + cell.recipe.pseudo)


def _logged_s(log: Path) -> float:
    with log.open(newline="") as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file))


def _time(cell: Timings, report: Report) -> dict[str, Any]:
    from lmanet.research.benchmarks.model import bench_model

    measured = bench_model(
        cell.variants,
        size=cell.size,
        repeats=cell.repeats,
        on_variant=lambda *n: report("networks", n),
    )
    return {"measured": [asdict(one) for one in measured]}
