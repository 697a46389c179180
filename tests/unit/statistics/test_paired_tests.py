"""Paired tests, their correction, and the rows that would decide them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import clopper_pearson
from shield_engine.statistics.tests import (
    holm,
    mcnemar_exact,
    minimum_detectable_effect,
    required_negatives,
    rows_for_scaled,
)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (0, 6), (3, 11), (8, 8), (40, 90)])
def test_mcnemar_equals_the_binomial_test(b: int, c: int) -> None:
    """The p-value is that of scipy's two-sided binomial test at one half."""
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_exact(c, b) == mcnemar_exact(b, c)


def test_mcnemar_refuses_negative_counts() -> None:
    """A negative count is an error."""
    with pytest.raises(ValueError, match="b = -1"):
        mcnemar_exact(-1, 3)


def test_holm_by_hand() -> None:
    """Sorted p-values are multiplied by 4, 3, 2, 1 and never fall; the order given is kept."""
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        holm([0.2, float("nan")])


def test_minimum_detectable_effect_is_found_at_its_power() -> None:
    """McNemar's exact test finds the effect in about 80% of simulated comparisons."""
    n, rate = 800, 0.12
    effect = minimum_detectable_effect(n, rate)
    assert effect is not None
    assert effect == pytest.approx((1.96 + 0.8416) * (rate / n) ** 0.5, rel=0.02)
    rng = np.random.default_rng(1)
    cells = [(rate - effect) / 2, (rate + effect) / 2, 1 - rate]
    drawn = rng.multinomial(n, cells, 1_500)
    found = np.mean([mcnemar_exact(int(b), int(c)) <= 0.05 for b, c, _ in drawn])
    assert 0.72 <= found <= 0.84


def test_minimum_detectable_effect_has_a_floor() -> None:
    """Six rows must disagree one way; with fewer rows nothing can be shown."""
    assert minimum_detectable_effect(5, 0.5) is None
    small = minimum_detectable_effect(1_000, 0.0)
    assert small is not None
    assert small >= 6 / 1_000
    assert minimum_detectable_effect(1_000, 0.0, power=0.5) == 6 / 1_000
    wide, narrow = minimum_detectable_effect(100, 0.2), minimum_detectable_effect(400, 0.2)
    assert wide is not None
    assert narrow is not None
    assert wide == pytest.approx(2 * narrow, rel=0.05)
    with pytest.raises(ValueError, match="discordant_rate = 2"):
        minimum_detectable_effect(10, 2)


@pytest.mark.parametrize("target", [0.01, 0.05])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_required_negatives_prove_the_target(target: float, share: float) -> None:
    """With that many negatives and the observed rate, the one-sided bound meets the target."""
    observed = share * target
    needed = required_negatives(target, observed)
    assert needed is not None
    false_alarms = int(np.ceil(observed * needed - 1e-9))
    assert clopper_pearson(false_alarms, needed, side="upper").high <= target + 1e-12
    fewer = int(needed * 0.9)
    more_alarms = int(np.ceil(observed * fewer))
    assert clopper_pearson(more_alarms, fewer, side="upper").high > target


def test_required_negatives_by_hand() -> None:
    """None observed at 1% needs ln(0.05) / ln(0.99) = 298.07, so 299; too many cannot be cured."""
    assert required_negatives(0.01, 0.0) == 299
    assert required_negatives(0.01, 0.01) is None
    assert required_negatives(0.01, 0.5) is None
    assert required_negatives(0.01, 0.01 - 1e-9) is None
    with pytest.raises(ValueError, match="fpr_target = 0"):
        required_negatives(0, 0)


def test_rows_for_scaled_bounds() -> None:
    """Half the room needs four times the rows; the wrong side needs no number."""
    bounds = Figure(0.9, 0.8, 0.95, 100, method="bootstrap")
    assert rows_for_scaled(bounds, 0.85, is_upper=False) == 300
    assert rows_for_scaled(bounds, 0.95, is_upper=False) is None
