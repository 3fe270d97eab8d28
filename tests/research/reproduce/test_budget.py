from dataclasses import fields, replace

import pytest

from lmanet.research.reproduce.budget import BUDGETS, with_memories
from lmanet.research.reproduce.data import KINDS
from lmanet.training.recipes import PRESETS, LMANetRecipe, VideoRecipe


@pytest.mark.parametrize("kind", KINDS)
def test_a_budget_has_the_papers_module_and_its_controls(kind):
    budget = BUDGETS[kind]
    assert next(iter(budget.variants.values())) == budget.paper
    fast = budget.variants["LMANet, fast convolutions"]
    assert isinstance(fast, LMANetRecipe) and replace(fast, convolutions="paper") == budget.paper
    assert with_memories(fast) == replace(fast, memories="current")


@pytest.mark.parametrize("kind", ["camvid", "synthetic"])
def test_the_label_memory_takes_no_more_steps_than_lmanet(kind):
    paper, default = BUDGETS[kind].paper, BUDGETS[kind].labels
    assert default == PRESETS[f"label-memory-{kind}"]
    steps = [sum(stage.epochs for stage in (r.module, r.joint)) for r in (default, paper)]
    assert steps[0] <= steps[1]
    assert default.module.samples == paper.module.samples == paper.joint.samples and not default.joint.epochs
    assert (default.memories, default.draws, default.pseudo) == (paper.memories, paper.draws, paper.pseudo)


def test_the_papers_module_is_the_papers():
    assert BUDGETS["cityscapes"].paper == PRESETS["paper"]
    trained = {field.name for field in fields(VideoRecipe)} - {"memory_size"}
    for kind in ("camvid", "synthetic"):
        for field in fields(LMANetRecipe):
            if field.name not in trained:
                assert getattr(BUDGETS[kind].paper, field.name) == getattr(PRESETS["paper"], field.name)
