"""What the cells of the tables are trained with.

The rule: every cell of the paper's tables has one budget, so that differences are the method's and not the training's.
On Cityscapes it is the paper's. On CamVid and on the synthetic drive it is a short one, that many cells can have. The
memory of labels has its own preset, of no more steps, and leaves the network as it is, which is its control. The
control of LMANet has LMANet's training.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from lmanet.research.benchmarks.model import LABELS, Variant
from lmanet.research.reproduce.data import Street
from lmanet.training.augment import Augmentation
from lmanet.training.config import Stage
from lmanet.training.recipes import PRESETS, LabelMemoryRecipe, LMANetRecipe, SingleRecipe, VideoRecipe

Recipe = TypeVar("Recipe", bound=VideoRecipe)

LMANET, LABEL_MEMORY = "LMANet", "label memory"
"""What tables call the paper's memory of features, and the memory of labels."""

TIMED: tuple[Variant, ...] = (
    Variant(),
    *(Variant(memory="paper", window=window, memory_size=3) for window in (None, 41, 21, 11)),
    *(Variant(memory="fast", window=window, memory_size=3) for window in (21, 11)),
    LABELS,
)
"""Table IV: the bare network, then LMANet, S=3, with global attention (None) and windows of 41, 21 and 11, then with
fast convolutions; then the memory of labels."""


@dataclass(frozen=True)
class Budget:
    """For one kind of data.

    Attributes:
        single: of single-frame networks, by architecture: for folds, and, the first, where no weights are given.
        paper: LMANet, the paper's memory of features.
        longer: LMANet with more training, for `window`; `paper`, if not given.
        labels: the memory of labels, by the preset for this data.
        initial: bundled networks that these trainings start from, by architecture; they have seen none of this data.
        scored: the split that is reported.
        street: of synthetic data, the drive to train on, if not the split's own.
        scored_street: of synthetic data, the drive to score on, if not the split's own.
        hard_street: the drive that is scored under growing degradation; fewer sequences than the split's own.
        timed: what Table IV measures.
        repeats: counted frames of each of these.
    """

    single: dict[str, SingleRecipe]
    paper: LMANetRecipe
    labels: LabelMemoryRecipe
    longer: LMANetRecipe | None = None
    initial: dict[str, str] = field(default_factory=dict)
    scored: Literal["val", "test"] = "val"
    street: Street | None = None
    scored_street: Street | None = None
    hard_street: Street | None = None
    timed: tuple[Variant, ...] = TIMED
    repeats: int = 20

    @property
    def variants(self) -> dict[str, LMANetRecipe]:
        """LMANet as the paper has it, and with cheaper convolutions, by the name that tables give them."""
        return {LMANET: self.paper, f"{LMANET}, fast convolutions": replace(self.paper, convolutions="fast")}


def with_memories(recipe: Recipe) -> Recipe:
    """The control of a recipe: the same module and training, the current frame in place of the past."""
    return replace(recipe, memories="current")


def _single(name: str, epochs: int | None = None) -> SingleRecipe:
    recipe = PRESETS[name]
    assert isinstance(recipe, SingleRecipe)
    return recipe if epochs is None else replace(recipe, stage=replace(recipe.stage, epochs=epochs))


def _labels(name: str) -> LabelMemoryRecipe:
    recipe = PRESETS[name]
    assert isinstance(recipe, LabelMemoryRecipe)
    return recipe


def _short(labels: LabelMemoryRecipe) -> LMANetRecipe:
    """LMANet, trained on what a memory of labels is trained on, with the rates that suit it, in little time."""
    samples = labels.module.samples
    return LMANetRecipe(
        memories=labels.memories,
        draws=labels.draws,
        pseudo=labels.pseudo,
        module=Stage(epochs=1, batch_size=4, lr=1e-3, ema=0.98, samples=samples),
        joint=Stage(epochs=3, batch_size=4, lr=5e-4, ema=0.99, samples=samples),
    )


def _longer(recipe: LMANetRecipe) -> LMANetRecipe:
    """Twice the epochs of both steps."""
    module, joint = (replace(stage, epochs=2 * stage.epochs) for stage in (recipe.module, recipe.joint))
    return replace(recipe, module=module, joint=joint)


FOLD = SingleRecipe(
    augmentation=Augmentation(
        crop=(256, 256), scale=(0.7, 1.6), gain=0.25, gamma=0.2, noise=4.0, blur_px=1.0
    ),
    stage=Stage(epochs=25, batch_size=4, lr=1.5e-3, weight_decay=1e-2, ema=0.998, validate_every=10),
)
"""ERFNet without one of CamVid's sequences: without a teacher, as the bundled one has seen what is left out."""


def _budgets() -> dict[str, Budget]:
    camvid, synthetic = _labels("label-memory-camvid"), _labels("label-memory-synthetic")
    paper = PRESETS["paper"]
    assert isinstance(paper, LMANetRecipe)
    return {
        "camvid": Budget(
            single={
                "erfnet": FOLD,
                "efficient-unet": _single("unet-camvid", epochs=60),
            },
            paper=_short(camvid),
            labels=camvid,
            longer=_longer(_short(camvid)),
            initial={"erfnet": "erfnet-synthetic"},
        ),
        "synthetic": Budget(
            single={"erfnet": _single("erfnet-synthetic")},
            paper=_short(synthetic),
            labels=synthetic,
            scored="test",
            hard_street=Street(sequences=4),
        ),
        "cityscapes": Budget(
            single={"erfnet": _single("erfnet")}, paper=paper, labels=_labels("label-memory")
        ),
    }


BUDGETS: dict[str, Budget] = _budgets()
"""By kind of data."""
