"""Cells: what an experiment is made of, as plain values, each known by a hash (`spelling.cell_hash`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lmanet.errors import WeightsError
from lmanet.ops import Border
from lmanet.research.benchmarks.model import Variant
from lmanet.research.reproduce.data import DataConfig
from lmanet.training.recipes import SingleRecipe, VideoRecipe
from lmanet.zoo.files import read_config
from lmanet.zoo.names import locate


@dataclass(frozen=True)
class Weights:
    """A trained single-frame network in a file.

    Attributes:
        name: bundled name or path; two files of the same contents are the same network.
        sha256: of the file.
        network: its architecture, by its name in weights files.
    """

    name: str
    sha256: str
    network: str


@dataclass(frozen=True)
class SingleTraining:
    """A training of a single-frame network; its last epoch's weights are kept, nothing is validated.

    Attributes:
        data: the frames.
        recipe: of step 0.
        seed: of the order of the samples and what is drawn for each; of a network that starts anew, its weights.
        initial: start from this network; from random weights if not given.
    """

    data: DataConfig
    recipe: SingleRecipe
    seed: int = 0
    initial: Weights | SingleTraining | None = None


@dataclass(frozen=True)
class MemoryTraining:
    """A training of a method on a single-frame network; its last epoch's weights are kept, nothing is validated.

    Attributes:
        data: the frames.
        recipe: of steps 1 and 2.
        network: that the method is put on.
        seed: of the method's first weights, the order of the samples and what is drawn for each.
    """

    data: DataConfig
    recipe: VideoRecipe
    network: Weights | SingleTraining
    seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """A model streamed through labelled video, in float32.

    Attributes:
        data: the frames.
        model: the network, or the network with a memory.
        memory_size: S, if not the trained one.
        window: R in cells, if not the trained one.
        border: of the attention, if not the trained one.
        forget: every frame begins a stream (`ModelPredictor`).
        method: put this method, which needs no training, on the network; None runs the model as it is.
        weight: of the flow average, if not its default.
    """

    data: DataConfig
    model: Weights | SingleTraining | MemoryTraining
    memory_size: int | None = None
    window: int | None = None
    border: Border | None = None
    forget: bool = False
    method: str | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Timings:
    """Time and peak memory of networks with random weights, by `lmanet.research.benchmarks.model`; run by itself.

    Attributes:
        variants: what is measured.
        size: (H, W) of the frames.
        repeats: counted frames of each.
    """

    variants: tuple[Variant, ...]
    size: tuple[int, int]
    repeats: int


@dataclass(frozen=True)
class Changes:
    """Frames where the memory changes the label (Figure 5).

    Attributes:
        data: the frames.
        single: the single-frame network.
        video: the network with a memory.
        parts: the labelled frames are cut into so many equal runs, and one frame of each is shown.
    """

    data: DataConfig
    single: Weights | SingleTraining
    video: MemoryTraining
    parts: int = 4


@dataclass(frozen=True)
class AttentionMaps:
    """Where chosen cells look in the memory (Figures 1 and 3).

    Attributes:
        data: the frames.
        video: the network with a memory.
    """

    data: DataConfig
    video: MemoryTraining


Network = Weights | SingleTraining
Training = SingleTraining | MemoryTraining
Cell = SingleTraining | MemoryTraining | Evaluation | Timings | Changes | AttentionMaps


def weights_of(name: str) -> Weights:
    """The single-frame network of this name.

    Raises:
        WeightsError: there is none, or it is of another method.
    """
    path = locate(name)
    config = read_config(path)
    method = config["method"]["name"]
    if method != "single-frame":
        raise WeightsError(
            f"{name} is a model of the method {method}: give the single-frame network that it was made from"
        )
    return Weights(name, hashlib.sha256(Path(path).read_bytes()).hexdigest(), config["backbone"]["name"])


def needs(cell: Cell) -> tuple[Training, ...]:
    """The trainings that must be done before the cell."""
    match cell:
        case SingleTraining():
            used = (cell.initial,)
        case MemoryTraining():
            used = (cell.network,)
        case Evaluation():
            used = (cell.model,)
        case Changes():
            used = (cell.single, cell.video)
        case AttentionMaps():
            used = (cell.video,)
        case Timings():
            used = ()
    return tuple(one for one in used if isinstance(one, SingleTraining | MemoryTraining))


def title(cell: Cell) -> str:
    """The cell in a line, for progress and lists."""
    match cell:
        case SingleTraining():
            match cell.initial:
                case Weights():
                    start = f"from {cell.initial.name}"
                case SingleTraining():
                    start = "trained on"
                case None:
                    start = "from the start"
            return f"single-frame training, {cell.recipe.network} {start}, {cell.data.name}, seed {cell.seed}"
        case MemoryTraining():
            return f"memory training, {_recipe(cell.recipe)}, {cell.data.name}, seed {cell.seed}"
        case Evaluation():
            return f"evaluation of {_model(cell)}, {cell.data.name}"
        case Timings():
            return f"time and memory of {len(cell.variants)} networks at {cell.size[1]}×{cell.size[0]}"
        case Changes():
            return f"frames with changed labels, {cell.data.name}"
        case AttentionMaps():
            return f"attention maps, {cell.data.name}"


def _recipe(recipe: VideoRecipe) -> str:
    arguments = recipe.arguments
    window = [f"R={arguments['window']}"] if arguments.get("window") else []
    chosen = [value for value in arguments.values() if isinstance(value, str)]  # fusion and convolutions
    control = ", control" if recipe.memories == "current" else ""
    return " ".join([recipe.method, f"S={recipe.memory_size}", *window, *chosen]) + control


def _model(cell: Evaluation) -> str:
    if not isinstance(cell.model, MemoryTraining):
        single = (cell.method or "single-frame") + (f", weight={cell.weight:g}" if cell.weight else "")
        return single if isinstance(cell.model, Weights) else f"{single}, seed {cell.model.seed}"
    extra = {
        "S": cell.memory_size,
        "R": cell.window,
        "border": cell.border,
        "forget": cell.forget or None,
    }
    given = "".join(f", {key}={value}" for key, value in extra.items() if value is not None)
    return f"{_recipe(cell.model.recipe)}, seed {cell.model.seed}{given}"
