"""What the cells of the tables are trained with.

The rule: every cell of the paper's tables has one budget, so that differences are the module's and not the training's.
On Cityscapes it is the paper's. On CamVid and on the synthetic drive it is a short one, that many cells can have. A
memory of labels has its own preset, of no more steps; a control has the training of what it is the control of.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from lmanet.errors import InputError
from lmanet.research.benchmarks.model import LABELS, Variant
from lmanet.research.reproduce.data import Street
from lmanet.training.config import Stage
from lmanet.training.recipes import PRESETS, MemoryRecipe, SingleRecipe, VideoRecipe

Recipe = TypeVar("Recipe", bound=VideoRecipe)

TIMED: tuple[Variant, ...] = (
    Variant(),
    *(Variant(memory="paper", window=window, memory_size=3) for window in (None, 41, 21, 11)),
    *(Variant(memory="fast", window=window, memory_size=3) for window in (21, 11)),
    LABELS,
)
"""Table IV: the bare network, then S=3 with global attention (None) and windows of 41, 21 and 11; then ours."""


@dataclass(frozen=True)
class Budget:
    """For one kind of data.

    Attributes:
        single: of single-frame networks, by architecture: for folds, and, the first, where no weights are given.
        paper: the paper's module.
        variants: other modules, by the name that tables give them; `lmanet` is the default preset.
        initial: bundled networks that these trainings start from, by architecture; they have seen none of this data.
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
    initial: dict[str, str] = field(default_factory=dict)
    scored: Literal["val", "test"] = "val"
    street: Street | None = None
    scored_street: Street | None = None
    hard_street: Street | None = None
    timed: tuple[Variant, ...] = TIMED
    repeats: int = 20


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


def _preset(name: str) -> VideoRecipe:
    recipe = PRESETS[name]
    assert isinstance(recipe, VideoRecipe)
    return recipe


def _single(name: str, epochs: int | None = None) -> SingleRecipe:
    recipe = PRESETS[name]
    assert isinstance(recipe, SingleRecipe)
    return recipe if epochs is None else replace(recipe, stage=replace(recipe.stage, epochs=epochs))


def _short(label_recipe: VideoRecipe) -> MemoryRecipe:
    """The paper's module, trained on the memories of a preset, with the rates that suit it, in little time."""
    samples = label_recipe.module.samples
    return MemoryRecipe(
        memories=label_recipe.memories,
        draws=label_recipe.draws,
        pseudo=label_recipe.pseudo,
        module=Stage(epochs=1, batch_size=4, lr=1e-3, ema=0.98, samples=samples),
        joint=Stage(epochs=3, batch_size=4, lr=5e-4, ema=0.99, samples=samples),
    )


def _variants(default: VideoRecipe, paper: VideoRecipe) -> dict[str, VideoRecipe]:
    return {
        "paper architecture": paper,
        "fast convolutions": replace(paper, convolutions="fast"),
        "lmanet": default,
    }


def _budgets() -> dict[str, Budget]:
    budgets = {}
    for kind in ("camvid", "synthetic"):
        ours = _preset(f"lmanet-{kind}")
        paper = _short(ours)
        budgets[kind] = {"paper": paper, "variants": _variants(ours, paper)}
    paper = _preset("paper")
    assert isinstance(paper, MemoryRecipe)
    return {
        "camvid": Budget(
            single={
                "erfnet": _single("erfnet-camvid", epochs=25),
                "efficient-unet": _single("unet-camvid", epochs=60),
            },
            initial={"erfnet": "erfnet-synthetic"},
            **budgets["camvid"],
        ),
        "synthetic": Budget(
            single={"erfnet": _single("erfnet-synthetic")},
            scored="test",
            hard_street=Street(sequences=4),
            **budgets["synthetic"],
        ),
        "cityscapes": Budget(
            single={"erfnet": _single("erfnet")}, paper=paper, variants=_variants(_preset("lmanet"), paper)
        ),
    }


BUDGETS: dict[str, Budget] = _budgets()
"""By kind of data."""
