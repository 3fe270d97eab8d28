"""What the cells of the tables are trained with.

The rule: every cell of a table has the same budget, so that differences are the module's and not the training's. On
Cityscapes it is the paper's. On CamVid and on the synthetic drive it is a short one, that many cells can have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from lmanet.benchmarks.model import Variant
from lmanet.errors import InputError
from lmanet.reproduce.data import Street
from lmanet.training.recipes import PRESETS, MemoryRecipe, SingleRecipe, VideoRecipe

Recipe = TypeVar("Recipe", bound=VideoRecipe)

TRAINING_FIELDS = ("memories", "draws", "pseudo", "augmentation", "pseudo_memory", "module", "joint")
"""The fields of a `VideoRecipe` that say how it is trained; the others say what the module is."""

TIMED: tuple[Variant, ...] = (
    Variant(),
    *(Variant(convolutions="paper", window=window, memory_size=3) for window in (None, 41, 21, 11)),
    *(Variant(convolutions="fast", window=window, memory_size=3) for window in (21, 11)),
)
"""Table IV: the bare network, then S=3 with global attention (None) and windows of 41, 21 and 11."""


@dataclass(frozen=True)
class Budget:
    """For one kind of data.

    Attributes:
        single: of single-frame networks, by architecture: for folds, and, the first, where no weights are given.
        paper: the paper's module.
        variants: other modules, by the name that tables give them; `lmanet` is the default preset.
        scored: the split that is reported.
        street: of synthetic data, the drive to train on, if not the split's own.
        scored_street: the drive to score on, likewise.
        hard_street: the drive that is scored under growing degradation; fewer sequences than the split's own.
        timed: what Table IV measures.
        repeats: counted frames of each of these.
    """

    single: dict[str, SingleRecipe]
    paper: MemoryRecipe
    variants: dict[str, VideoRecipe]
    scored: Literal["val", "test"] = "val"
    street: Street | None = None
    scored_street: Street | None = None
    hard_street: Street | None = None
    timed: tuple[Variant, ...] = TIMED
    repeats: int = 20


def trained_as(module: Recipe, training: VideoRecipe) -> Recipe:
    """A recipe of one's module and another's training."""
    return replace(module, **{name: getattr(training, name) for name in TRAINING_FIELDS})


def with_memories(recipe: Recipe) -> Recipe:
    """The control of a recipe: the same module and training, the current frame in place of the past."""
    return replace(recipe, memories="current")


def trained_on(network: str, recipe: VideoRecipe) -> SingleRecipe:
    """A single-frame training of as many steps as a memory's, on the same samples: whole frames, the same augmentation.

    Raises:
        InputError: the steps of the two stages cannot be had in one.
    """
    module, joint = recipe.module, recipe.joint
    if (module.batch_size, module.samples) != (joint.batch_size, joint.samples):
        raise InputError(
            f"step 1 has batches of {module.batch_size} and {module.samples} samples, step 2 {joint.batch_size} and "
            f"{joint.samples}: make them the same, so that a single-frame training can have as many"
        )
    stage = replace(joint, epochs=module.epochs + joint.epochs)
    return SingleRecipe(network=network, augmentation=recipe.augmentation, stage=stage)


def _preset(name: str) -> MemoryRecipe:
    recipe = PRESETS[name]
    assert isinstance(recipe, MemoryRecipe)
    return recipe


def _single(name: str, epochs: int | None = None) -> SingleRecipe:
    recipe = PRESETS[name]
    assert isinstance(recipe, SingleRecipe)
    return recipe if epochs is None else replace(recipe, stage=replace(recipe.stage, epochs=epochs))


def _short(name: str) -> MemoryRecipe:
    """A preset with one epoch of step 1 and four of step 2."""
    recipe = _preset(name)
    return replace(recipe, module=replace(recipe.module, epochs=1), joint=replace(recipe.joint, epochs=4))


def _variants(default: VideoRecipe, training: VideoRecipe) -> dict[str, VideoRecipe]:
    paper = trained_as(_preset("paper"), training)
    return {
        "paper architecture": paper,
        "fast convolutions": replace(paper, convolutions="fast"),
        "lmanet": trained_as(default, training),
    }


def _budgets() -> dict[str, Budget]:
    camvid, synthetic, paper = _short("lmanet-camvid"), _short("lmanet-synthetic"), _preset("paper")
    return {
        "camvid": Budget(
            single={
                "erfnet": _single("erfnet-camvid", epochs=60),
                "efficient-unet": _single("unet-camvid", epochs=60),
            },
            paper=trained_as(paper, camvid),
            variants=_variants(camvid, camvid),
        ),
        "synthetic": Budget(
            single={"erfnet": _single("erfnet-synthetic")},
            paper=trained_as(paper, synthetic),
            variants=_variants(synthetic, synthetic),
            scored="test",
            hard_street=Street(sequences=4),
        ),
        "cityscapes": Budget(
            single={"erfnet": _single("erfnet")}, paper=paper, variants=_variants(_preset("lmanet"), paper)
        ),
    }


BUDGETS: dict[str, Budget] = _budgets()
"""By kind of data."""
