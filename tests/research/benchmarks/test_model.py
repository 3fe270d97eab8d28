from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from lmanet.backbones import ERFNet
from lmanet.errors import InputError
from lmanet.methods.lmanet import LMANet
from lmanet.research.benchmarks import model
from lmanet.research.benchmarks.memory import can_measure
from lmanet.research.benchmarks.model import LABELS, PAPER, Measured, Variant, bare_peak, bare_s, bench_model
from lmanet.research.benchmarks.timing import Timing
from lmanet.training.recipes import PRESETS, LabelMemoryRecipe

SIZE = (32, 48)


def measured(variant: Variant, seconds: float, peak: int | None = None) -> Measured:
    timing = Timing(seconds, seconds / 100, seconds * 100, 3)
    return Measured(variant, timing, peak, None if peak is None else 100)


def test_bench_model_measures_every_variant() -> None:
    variants = [replace(PAPER, window=None), replace(LABELS, window=3, precision="bf16")]
    results = bench_model(variants, size=SIZE, repeats=2)
    assert [one.variant for one in results] == variants
    for one in results:
        assert one.timing.runs == 2 and one.timing.median_s > 0
        if can_measure():
            assert one.peak_bytes is not None and one.imports_bytes is not None
            assert one.peak_bytes > one.imports_bytes > 0


def test_the_memory_of_labels_is_the_presets() -> None:
    recipe = PRESETS["label-memory"]
    assert isinstance(recipe, LabelMemoryRecipe)
    assert (LABELS.memory_size, LABELS.window) == (recipe.memory_size, recipe.window)


def test_a_memory_of_labels_has_no_global_attention() -> None:
    with pytest.raises(InputError, match="give it a window"):
        bench_model([replace(LABELS, window=None)], size=SIZE, repeats=1)


def test_the_global_step_is_a_step_with_the_window_of_the_whole_map() -> None:
    torch.manual_seed(0)
    segmenter = LMANet(ERFNet(3), memory_size=2, window=11).eval()
    everywhere = model._Everywhere(ERFNet(3), memory_size=2, window=1).eval()
    clip = torch.rand(1, 3, 3, *SIZE)  # a map of 4×6 cells
    with torch.inference_mode():
        # Global attention divides its scores by √Ck.
        segmenter.key_value.query_key.weight.mul_(2)
        segmenter.key_value.query_key.bias.mul_(2)  # pyright: ignore
        everywhere.load_state_dict(segmenter.state_dict())
        got = torch.stack([everywhere.step(clip[:, 0])[0], *_later(everywhere, clip)])
        segmenter.key_value.query_key.weight.div_(4)
        segmenter.key_value.query_key.bias.div_(4)  # pyright: ignore
        expected = torch.stack([segmenter.step(clip[:, 0])[0], *_later(segmenter, clip)])
    torch.testing.assert_close(got, expected)


def _later(model: LMANet, clip: torch.Tensor) -> list[torch.Tensor]:
    logits, (_, state) = [], model.step(clip[:, 0])
    for images in clip.unbind(1)[1:]:
        one, state = model.step(images, state)
        logits.append(one)
    return logits


def test_differences_are_against_the_best_bare_network_of_the_precision() -> None:
    results = [
        measured(Variant(optimized=False), 3, 900),
        measured(Variant(), 4, 800),
        measured(Variant(precision="bf16"), 1, 300),
        measured(PAPER, 2, 500),
    ]
    assert (bare_s(results, "fp32"), bare_s(results, "bf16")) == (3, 1)
    assert (bare_peak(results, "fp32"), bare_peak(results, "bf16")) == ((800, 700), (300, 200))
    assert bare_peak([measured(Variant(), 4)], "fp32") is None


def test_results_survive_json() -> None:
    one = measured(PAPER, 2, 500)
    content = json.loads(json.dumps(asdict(one)))
    assert Measured.from_json(content) == one
    del content["peak_bytes"]
    with pytest.raises(TypeError, match="peak_bytes"):
        Measured.from_json(content)
