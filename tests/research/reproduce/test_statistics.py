import math

import pytest

from lmanet.research.reproduce.statistics import difference, summarise


def test_folds_are_averaged_for_each_seed_and_the_spread_is_over_seeds():
    summary = summarise([[1.0, 3.0], [2.0, 4.0], [6.0, 8.0]])
    assert summary.per_seed == (2.0, 3.0, 7.0)
    assert summary.mean == 4.0
    assert summary.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert summary.n == 3


def test_one_seed_has_no_spread_and_absent_classes_are_left_out():
    one = summarise([[0.25, math.nan]])
    assert (one.mean, one.n) == (0.25, 1) and math.isnan(one.std)
    assert one.text() == "25.00"
    nothing = summarise([[math.nan], [math.nan]])
    assert nothing.n == 0 and math.isnan(nothing.mean) and nothing.text() == "n/a"
    assert summarise([[0.1], [math.nan], [0.3]]).n == 2


def test_differences_are_taken_seed_by_seed():
    ours, control = summarise([[0.5], [0.7]]), summarise([[0.4], [0.5]])
    gain = difference(ours, control)
    assert gain.per_seed == pytest.approx((0.1, 0.2))
    assert gain.text(signed=True) == "+15.00 ± 7.07"
    single = summarise([[0.6]])
    assert difference(ours, single).per_seed == pytest.approx((-0.1, 0.1))
    assert difference(single, ours).per_seed == pytest.approx((0.1, -0.1))


def test_figures_as_text():
    summary = summarise([[0.6], [0.62], [0.64]])
    assert summary.text() == "62.00 ± 2.00"
