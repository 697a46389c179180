"""Cascades over stored scores that are known by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shield_engine.decide.cascades import (
    Aim,
    Cascade,
    Chain,
    StageSource,
    cascade_figures,
    chain_of,
    choose_cascade,
    sources_of,
)
from shield_engine.decide.splits import split
from shield_engine.decision import Stage
from shield_engine.errors import ConfigError
from shield_engine.store import Store
from shield_engine.types import Task
from tests.stored_runs import add_dataset, add_run

NAN = float("nan")
CASCADE = Cascade(
    (Stage("rules", stop_at=0.9, pass_at=0.1), Stage("guard", "house")), threshold=0.5
)


def chain(
    risks: list[list[float]], labels: list[int], ms: tuple[float, ...] = (1.0, 10.0)
) -> Chain:
    """Return a chain of the rules and a guard that costs 2 for a thousand."""
    count = len(labels)
    return Chain(
        task=Task.TOXICITY,
        sources=tuple(
            StageSource("r", stage, price)
            for stage, price in zip(CASCADE.stages, (0.0, 2.0), strict=True)
        ),
        risks=np.array(risks),
        ms=np.repeat([[one] for one in ms], count, axis=1),
        labels=np.array(labels),
        units=np.arange(count),
        groups=None,
        row_index=np.arange(count),
    )


def test_only_what_a_stage_leaves_open_asks_the_next() -> None:
    """A failure counts only where it was asked, and a text that ended early never meets the next."""
    rows = chain([[0.95, 0.05, 0.5, 0.5, NAN, 0.9], [NAN, 1.0, 0.6, NAN, 0.9, 0.0]], [1] * 6)
    risk, asked = CASCADE.risk(rows.risks)
    assert (risk >= 0.5).tolist() == [True, False, True, False, False, True]
    assert np.isnan(risk).tolist() == [False, False, False, True, True, False]
    assert asked.tolist() == [[True] * 6, [False, False, True, True, False, False]]
    figures = cascade_figures(rows, CASCADE)
    assert (figures.tp, figures.fn, figures.errors) == (3, 1, 2)
    assert figures.reached == (1.0, 2 / 6)
    assert figures.mean_ms == pytest.approx(1 + 10 * 2 / 6)
    assert figures.price_per_1000 == pytest.approx(2 * 2 / 6)
    assert figures.fpr_bound is None


def test_the_choice_is_the_cheapest_of_all_that_fit() -> None:
    """No cascade of the frontier that proves the aim on the choosing rows is cheaper."""
    generator = np.random.default_rng(3)
    labels = (generator.random(3_000) < 0.4).astype(int)
    rules = np.where(labels == 1, generator.beta(4, 2, 3_000), generator.beta(1, 6, 3_000))
    guard = np.where(labels == 1, generator.beta(9, 1, 3_000), generator.beta(1, 9, 3_000))
    rows = chain([rules.tolist(), guard.tolist()], labels.tolist())
    aim = Aim(0.9, 0.02, "price")
    choice = choose_cascade(rows, aim)
    assert choice.cascade is not None
    assert choice.chosen is not None
    assert aim.is_met(choice.chosen)
    assert 0 < choice.chosen.price_per_1000 < 1.6
    guard_alone = Cascade(
        (replace(CASCADE.stages[0], stop_at=None, pass_at=None), CASCADE.stages[1]), 0.5
    )
    assert cascade_figures(rows, guard_alone).price_per_1000 == 2.0
    choosing = rows.rows(split(rows.units, rows.labels))
    assert cascade_figures(choosing, choice.cascade) == choice.chosen
    others = [cascade_figures(choosing, cascade) for cascade, _ in choice.frontier]
    prices = [figures.price_per_1000 for figures in others if aim.is_met(figures)]
    assert len(others) > len(prices) > 1
    assert choice.chosen.price_per_1000 <= min(prices)
    dear = choose_cascade(rows, Aim(0.999, 0.0001))
    assert dear.cascade is None
    assert "more rows prove more" in dear.problem


def test_latency_that_nobody_measured_chooses_nothing() -> None:
    """Scores of a cache have no time: the lowest latency is refused, the lowest price is not."""
    rows = chain([[0.05, 0.5] * 400, [0.1, 0.9] * 400], [0, 1] * 400, ms=(1.0, NAN))
    choice = choose_cascade(rows, Aim(0.8, 0.05))
    assert (choice.cascade, choice.frontier) == (None, ())
    assert choice.problem.startswith("no time of house was measured")
    assert choose_cascade(rows, Aim(0.8, 0.05, "price")).cascade is not None


def test_the_search_keeps_groups_on_one_side() -> None:
    """Rows of one unit either choose or judge, and grouped rows prove less than single ones."""
    labels = [0, 1] * 400
    risks = [[0.05, 0.5] * 400, [0.1, 0.9] * 400]
    single = choose_cascade(chain(risks, labels), Aim(0.8, 0.05)).judged
    grouped_chain = chain(risks, labels)
    codes = np.arange(800) // 100
    grouped = choose_cascade(
        replace(grouped_chain, units=codes, groups=codes), Aim(0.8, 0.05)
    ).judged
    assert single is not None
    assert grouped is not None
    assert single.fpr_bound is not None
    assert grouped.fpr_bound is not None
    assert grouped.fpr_bound > 5 * single.fpr_bound


def test_stages_are_read_from_runs_over_the_same_rows() -> None:
    """Rules and model of one run and the model of another give a chain; other rows do not."""
    with Store.in_memory() as store:
        dataset = add_dataset(store, [0, 1, 1])
        first = add_run(store, dataset, [0.1, 0.8, 0.9], heuristic=[0.0, 0.5, 0.7])
        second = add_run(store, dataset, [0.2, 0.6, 0.7], sha256="b" * 64, model_id="costly")
        sources = [*sources_of(first), *sources_of(second)]
        assert [source.stage.title for source in sources] == ["rules", "tiny INT8", "costly INT8"]
        found = chain_of(store, sources)
        assert found.risks.tolist() == [[0.0, 0.5, 0.7], [0.1, 0.8, 0.9], [0.2, 0.6, 0.7]]
        assert found.labels.tolist() == [0, 1, 1]
        with pytest.raises(ConfigError, match="has 2 to 4 stages, got 1"):
            chain_of(store, sources[:1])
        elsewhere = add_run(store, add_dataset(store, [0], texts=["x"], name="other"), [0.5])
        with pytest.raises(ConfigError, match="the rows differ"):
            chain_of(store, [sources[0], *sources_of(elsewhere)])
