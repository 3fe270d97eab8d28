"""What several experiments share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lmanet.research.reproduce.budget import with_memories
from lmanet.research.reproduce.plan import CONTROL, Place, Row, Setup
from lmanet.training.recipes import LMANetRecipe, VideoRecipe
from lmanet.zoo.files import read_config
from lmanet.zoo.names import locate

CONTROL_NOTE = (
    "Control: the same method, parameters and training, the current frame in place of the past, in training and when "
    "run."
)


def paper_module(setup: Setup, **changes: object) -> LMANetRecipe:
    """LMANet, the paper's module, with some fields of its recipe changed."""
    return replace(setup.budget.paper, **changes)  # pyright: ignore[reportArgumentType]


def control_row(setup: Setup, recipe: LMANetRecipe, place: Place | None = None) -> Row:
    """The row of a recipe's control: the same method and training, which sees no past."""
    return setup.row(CONTROL, with_memories(recipe), place, forget=True)


def budget_note(setup: Setup, paper: LMANetRecipe | None = None) -> str:
    """The note that says what the trainings of a table start from, and how long they are.

    Args:
        setup: the network, the data and the budget.
        paper: LMANet's recipe, if not the budget's.
    """
    start = setup.budget.initial.get(setup.network_name)
    network = (
        Path(setup.weights.name).name
        if setup.weights
        else f"{setup.network_name}, trained on the same frames{f', from {start}' if start else ''}"
    )
    ours, papers = (_budget(recipe) for recipe in (setup.budget.labels, paper or setup.budget.paper))
    trained = (
        f"Every memory has the same budget ({ours}) and its last epoch's weights"
        if ours == papers
        else f"The label memory is trained for {ours}; LMANet for {papers}; a control as what it is the "
        f"control of; each has its last epoch's weights"
    )
    chosen = "no epoch or seed of a training here is chosen on what is scored"
    return f"Single-frame network: {network}{_chosen_on(setup)}. {trained}; {chosen}. Scored in float32."


def _chosen_on(setup: Setup) -> str:
    """A clause that warns if the given weights were chosen on what is scored; nothing if not."""
    if setup.weights is None:
        return ""
    val = read_config(locate(setup.weights.name)).get("card", {}).get("val")
    return f", whose epoch was chosen on {val}" if val == setup.place.scored.name else ""


def _budget(recipe: VideoRecipe) -> str:
    stages = " then ".join(
        f"{stage.epochs} epoch{'s' * (stage.epochs > 1)}"
        + (f" of {stage.samples} samples" if stage.samples else "")
        for stage in (recipe.module, recipe.joint)
    )
    return f"{stages}, batches of {recipe.module.batch_size}, in bfloat16"
