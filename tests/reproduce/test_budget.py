from dataclasses import fields, replace

import pytest

from lmanet.errors import InputError
from lmanet.reproduce.budget import BUDGETS, TRAINING_FIELDS, trained_as, trained_on, with_memories
from lmanet.reproduce.data import KINDS
from lmanet.training.recipes import PRESETS, MemoryRecipe


@pytest.mark.parametrize("kind", KINDS)
def test_all_modules_of_a_budget_are_trained_alike(kind):
    budget = BUDGETS[kind]
    assert budget.variants["paper architecture"] == budget.paper
    for recipe in budget.variants.values():
        for name in TRAINING_FIELDS:
            assert getattr(recipe, name) == getattr(budget.paper, name)
    assert budget.variants["fast convolutions"].convolutions == "fast"


def test_the_papers_module_and_budget_are_the_papers():
    assert BUDGETS["cityscapes"].paper == PRESETS["paper"]
    paper = PRESETS["paper"]
    for kind in ("camvid", "synthetic"):
        for field in fields(MemoryRecipe):
            if field.name not in TRAINING_FIELDS:
                assert getattr(BUDGETS[kind].paper, field.name) == getattr(paper, field.name)


def test_a_training_of_another_module():
    recipe = trained_as(
        MemoryRecipe(window=5, memories="pseudo"), MemoryRecipe(window=7, memories="real", draws=2)
    )
    assert (recipe.window, recipe.memories, recipe.draws) == (5, "real", 2)
    assert with_memories(recipe) == replace(recipe, memories="current")


def test_a_network_is_trained_on_for_as_many_steps():
    recipe = BUDGETS["camvid"].paper
    single = trained_on("erfnet", recipe)
    assert single.stage.epochs == recipe.module.epochs + recipe.joint.epochs
    assert (single.stage.batch_size, single.stage.samples) == (recipe.joint.batch_size, recipe.joint.samples)
    assert single.augmentation == recipe.augmentation and single.augmentation.crop is None
    with pytest.raises(InputError, match="step 1 has batches of 4 and 5 samples, step 2 4 and 0"):
        trained_on("erfnet", replace(recipe, module=replace(recipe.module, samples=5)))
