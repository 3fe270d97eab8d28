"""What an experiment is: rows of evaluations, and what else is run and shown beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from lmanet.backbones import Backbone
from lmanet.errors import InputError
from lmanet.methods.lmanet import default_channels, default_window
from lmanet.ops import Border
from lmanet.research.reproduce.attention import whole_map
from lmanet.research.reproduce.budget import Budget
from lmanet.research.reproduce.cells import (
    Cell,
    Evaluation,
    MemoryTraining,
    Network,
    SingleTraining,
    Weights,
    weights_of,
)
from lmanet.research.reproduce.data import DataConfig, with_past
from lmanet.training.recipes import VideoRecipe
from lmanet.zoo.architectures import build_backbone

SINGLE, CONTROL, FLOW, FREE = "single-frame", "control", "flow average", "memory without training"

LEAST_PAST = 4
"""Frames of a Cityscapes snippet before the labelled one, for models without a memory too: TC needs them."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: of the line.
        cells: for each seed, the evaluations that are averaged: one, or one for each fold.
        place: what it was scored on, where a table has several.
    """

    name: str
    cells: tuple[tuple[Evaluation, ...], ...]
    place: str = ""


@dataclass(frozen=True)
class Point:
    """One place on an axis of a plot: how much is gained there over the single-frame network.

    Attributes:
        axis: what grows.
        value: how far it has grown.
        place: of the rows.
        rows: the names of those that are shown beside the first row of the place.
    """

    axis: str
    value: float
    place: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """An experiment.

    Attributes:
        title: of its table.
        rows: of its table; differences are taken from the first row of the same place.
        others: cells that are no evaluations: timings, pictures.
        notes: sentences below the table.
        per_class: whether IoU per class is listed and its differences are drawn.
        points: of a plot of gains.
        pictures: of those that the other cells draw, the ones that are shown.
    """

    title: str
    rows: tuple[Row, ...] = ()
    others: tuple[Cell, ...] = ()
    notes: tuple[str, ...] = ()
    per_class: bool = False
    points: tuple[Point, ...] = ()
    pictures: tuple[str, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        """All of them, place by place: what the trainings of a fold share takes much room, and goes with the last."""
        rows = sorted(self.rows, key=lambda row: len(row.cells[0]))
        evaluations: list[Cell] = [cell for row in rows for seed in row.cells for cell in seed]
        return [*evaluations, *self.others]


@dataclass(frozen=True)
class Place:
    """Frames to train on, frames to score on, and the single-frame network for them.

    Attributes:
        name: what tables call it.
        train: the frames to train on.
        scored: the frames to score on.
        network: the single-frame network, which has seen none of the frames to score on.
    """

    name: str
    train: DataConfig
    scored: DataConfig
    network: Network


@dataclass(frozen=True)
class Setup:
    """What all experiments of one call share.

    Attributes:
        spec: of the data, as `checked_spec` gives it.
        budget: of trainings.
        weights: the single-frame network; if not given, it is trained.
        seeds: how many, from 0.
        folds: whether some tables are also made on CamVid's folds.
    """

    spec: str
    budget: Budget
    weights: Weights | None = None
    seeds: int = 3
    folds: bool = False

    @property
    def kind(self) -> str:
        """The kind of data: `camvid`, `synthetic` or `cityscapes`."""
        return self.spec.partition(":")[0]

    @cached_property
    def place(self) -> Place:
        """The place that the data's own splits make: trained on `train`, scored on what the budget says."""
        budget = self.budget
        train = DataConfig(self.spec, "train", street=budget.street)
        scored = DataConfig(self.spec, budget.scored, street=budget.scored_street)
        return Place(scored.split, train, scored, self.weights or self.first_network(train))

    def fold(self, name: str) -> Place:
        """A fold of CamVid; its network is trained on the fold, whatever weights were given."""
        train, held_out = (DataConfig(self.spec, split, fold=name) for split in ("train", "held-out"))
        return Place(f"fold {name}", train, held_out, self.first_network(train))

    def first_network(self, train: DataConfig) -> SingleTraining:
        """The training of a single-frame network, one for all seeds.

        Raises:
            InputError: the budget has no recipe for its architecture.
        """
        network = self.weights.network if self.weights else next(iter(self.budget.single))
        if network not in self.budget.single:
            raise InputError(
                f"no budget to train a {network!r} on {self.kind}: there is one for {', '.join(self.budget.single)}"
            )
        initial = self.budget.initial.get(network)
        return SingleTraining(
            _reaching(train, 0), self.budget.single[network], initial=weights_of(initial) if initial else None
        )

    @property
    def network_name(self) -> str:
        """The architecture of the single-frame network."""
        network = self.place.network
        return network.network if isinstance(network, Weights) else network.recipe.network

    @cached_property
    def map_size(self) -> tuple[int, int]:
        """(h, w) of the fused map, in cells."""
        backbone = self._backbone()
        height, width = self.place.scored.size()
        return backbone.padded_length(height) // backbone.stride, backbone.padded_length(
            width
        ) // backbone.stride

    @property
    def concat_channels(self) -> int | None:
        """Value channels that concatenation can do with, half of the fused map's: the paper's own where they are."""
        given, channels = self.budget.paper.value_channels, self._backbone().channels
        own = given or default_channels("gated", "paper", channels)[1]
        return given if 2 * own == channels else channels // 2

    def window(self, asked: int | None) -> int:
        """R as trained: what is asked for, at most the whole map; None is the whole map."""
        whole = whole_map(self.map_size)
        return whole if asked is None else min(asked, whole)

    def windowed(self, asked: int | None) -> int | None:
        """LMANet's own `window` in the budget where it means this R, so that cells are the same; else R."""
        window, own = self.window(asked), self.budget.paper.window
        return own if window == (own or default_window(self._backbone().stride)) else window

    def single_row(
        self,
        place: Place | None = None,
        *,
        name: str = SINGLE,
        method: str | None = None,
        weight: float | None = None,
    ) -> Row:
        """The single-frame network, or a method on it that needs no training: the same for all seeds."""
        place = place or self.place
        cell = Evaluation(_reaching(place.scored), place.network, method=method, weight=weight)
        return Row(name, ((cell,),) * self.seeds, place.name)

    def free_row(self, place: Place | None = None) -> Row:
        """The row of the memory without training."""
        return self.single_row(place, name=FREE, method="training-free")

    def trainings(self, recipe: VideoRecipe, place: Place | None = None) -> list[MemoryTraining]:
        """The trainings of a method by a recipe, one for each seed."""
        place = place or self.place
        train = _reaching(place.train, recipe.memory_size)
        return [MemoryTraining(train, recipe, place.network, seed) for seed in range(self.seeds)]

    def row(
        self,
        name: str,
        recipe: VideoRecipe,
        place: Place | None = None,
        *,
        memory_size: int | None = None,
        window: int | None = None,
        border: Border | None = None,
        forget: bool = False,
    ) -> Row:
        """The row of a method that is trained by a recipe, and how it is run."""
        place = place or self.place
        data = _reaching(place.scored, max(LEAST_PAST, memory_size or recipe.memory_size))
        cells = tuple(
            (
                Evaluation(
                    data,
                    training,
                    memory_size=memory_size,
                    window=window,
                    border=border,
                    forget=forget,
                ),
            )
            for training in self.trainings(recipe, place)
        )
        return Row(name, cells, place.name)

    def scored(self) -> DataConfig:
        """The frames that pictures are of: those that are scored."""
        return _reaching(self.place.scored)

    def _backbone(self) -> Backbone:
        return build_backbone({"name": self.network_name, "num_classes": 2}, "the experiments' network")


def _reaching(data: DataConfig, past: int = LEAST_PAST) -> DataConfig:
    return replace(data, spec=with_past(data.spec, past))


def mean_of(name: str, place: str, rows: list[Row]) -> Row:
    """One row of several places: for each seed the mean over them."""
    seeds = zip(*(row.cells for row in rows), strict=True)
    return Row(name, tuple(tuple(cell for cells in seed for cell in cells) for seed in seeds), place)
