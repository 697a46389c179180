"""Documents: targets, comparison and Markdown."""

from __future__ import annotations

from typing import Any

import pytest

from shield_engine.benchmark import (
    TARGETS,
    Target,
    benchmark_markdown,
    compare_benchmarks,
    comparison_markdown,
)
from shield_engine.benchmark.document import Measure, Ratio
from shield_engine.errors import ConfigError
from shield_engine.statistics import Figure


def figure(
    name: str, value: float, low: float | None, high: float | None, **words: Any
) -> dict[str, Any]:
    """Return a figure's row."""
    estimate = Figure(value, low, high, 200, method="order statistics")
    return Measure(name, estimate, "ms", "inference", **words).as_dict()


def document(*figures: dict[str, Any], ratios: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """Return a benchmark of these figures."""
    return {
        "format": 1,
        "created_at": "2026-01-02T03:04:05+00:00",
        "quick": True,
        "seconds": 12.3,
        "machine": {
            "cpu": "Model Z",
            "cores": 4,
            "usable_cores": 2,
            "memory_mb": 8_000,
            "platform": "Linux",
            "python": "3.11.9",
            "packages": {"numpy": "2.4"},
            "load_1_minute": 0.5,
        },
        "figures": list(figures),
        "ratios": list(ratios),
        "targets": [target.as_dict() for target in TARGETS],
    }


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_bands_of_a_target_get_worse_in_order(target: Target) -> None:
    """Target, acceptable and poor are stated from good to bad."""
    bounds = [
        bound for bound in (target.target, target.acceptable, target.poor) if bound is not None
    ]

    assert bounds == sorted(bounds, reverse=target.better == "higher")
    assert len(set(bounds)) == len(bounds)


def test_a_target_is_never_called_measured() -> None:
    """Targets and figures can be told apart by their kind alone."""
    assert {row["kind"] for row in document()["targets"]} == {"target"}
    assert figure("a", 1, 1, 1)["kind"] == "measured"


@pytest.mark.parametrize(
    ("low", "high", "better", "verdict"),
    [
        (0.5, 0.9, "lower", "better"),
        (0.5, 0.9, "higher", "worse"),
        (2.1, 2.5, "lower", "worse"),
        (2.1, 2.5, "higher", "better"),
        (0.5, 1.0, "lower", "not decisive"),
        (1.9, None, "lower", "not decisive"),
        (2.1, None, "lower", "worse"),
        (None, 0.9, "lower", "better"),
        (None, None, "lower", "not decisive"),
    ],
)
def test_only_disjoint_intervals_decide(
    low: float | None, high: float | None, better: Any, verdict: str
) -> None:
    """Before is 1.0-2.0; an open end reaches without bound."""
    before = document(figure("a", 1.5, 1.0, 2.0, better=better))
    after = document(figure("a", 0.75, low, high, better=better))

    (row,) = compare_benchmarks(before, after)

    assert row["verdict"] == verdict
    assert row["is_disjoint"] is (verdict != "not decisive")
    assert (row["before"], row["after"], row["ratio"]) == (1.5, 0.75, 0.5)


def test_only_figures_of_both_documents_in_one_unit_are_compared() -> None:
    """A figure that one side lacks, or measured in another unit, has no ratio."""
    other_unit = {**figure("b", 1, 1, 1), "unit": "s"}
    before = document(figure("a", 0, 0, 0), figure("b", 1, 1, 1), figure("gone", 1, 1, 1))
    after = document(figure("a", 1, 1, 1), other_unit, figure("new", 1, 1, 1))

    rows = compare_benchmarks(before, after)

    assert [row["name"] for row in rows] == ["a"]
    assert rows[0]["ratio"] is None


def test_ratios_are_compared_too() -> None:
    """Ratios hold across machines and are what a regression shows in first."""
    before = Ratio("two_threads_vs_one", Figure(1.9, 1.8, 2.0, 20, method="t"), 1.8).as_dict()
    after = Ratio("two_threads_vs_one", Figure(1.0, 0.9, 1.1, 20, method="t"), 1.8).as_dict()

    (row,) = compare_benchmarks(document(ratios=(before,)), document(ratios=(after,)))

    assert row["verdict"] == "worse"


@pytest.mark.parametrize("broken", [{}, [], {"figures": [{}], "ratios": []}])
def test_something_else_than_a_benchmark_is_refused(broken: Any) -> None:
    """The error says which of the two it was and what to give."""
    with pytest.raises(ConfigError, match=r"second document is no benchmark.*shield bench --json"):
        compare_benchmarks(document(), broken)


def test_markdown_shows_figure_interval_count_and_target_apart() -> None:
    """A row holds what was measured; the target stands in a column that says it was not."""
    shown = benchmark_markdown(
        document(
            figure(
                "inference.32_tokens.p99", 12.345, 11, None, target="inference_int8",
                detail={"escalated_share": 0.97, "hit_rate": 0.0, "cpus_busy": 1.5},
            ),
            ratios=(
                Ratio("cached_p50_us", Figure(10.62, 10.2, 10.8, 1_000, method="t"), 15, "lower")
                .as_dict(),
            ),
        )
    )  # fmt: skip
    lines = shown.splitlines()

    assert "Model Z" in shown
    assert "reference's target (not measured)" in shown
    assert (
        "| inference.32_tokens.p99 | 12.3 | ms | 11.0 - ? | 200 "
        "| 97.0% escalated, 0.0% hits, 1.50 CPUs busy "
        "| < 80 ms, acceptable < 150, poor > 300 |"
    ) in lines
    assert "| cached_p50_us | 10.6 | 10.2 - 10.8 | 1,000 |  | ≤ 15.0 |" in lines


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.000551, "0.000551"), (0, "0"), (999.6, "1,000"), (795_861.4, "795,861"), (-1.5, "-1.50")],
)
def test_numbers_are_shown_with_three_significant_digits(value: float, shown: str) -> None:
    """Microseconds in a table of milliseconds stay readable."""
    assert f"| a | {shown} | ms |" in benchmark_markdown(document(figure("a", value, None, None)))


def test_a_comparison_names_what_moved_and_counts_the_rest() -> None:
    """Worse figures come first; those whose intervals overlap are only counted."""
    before = document(figure("a", 2, 1.9, 2.1), figure("b", 2, 1.9, 2.1), figure("c", 2, 1, 3))
    after = document(figure("a", 1, 0.9, 1.1), figure("b", 4, 3.9, 4.1), figure("c", 2.5, 1, 3))

    told = comparison_markdown(compare_benchmarks(before, after))

    assert told.startswith("Of 3 figures that both have, 1 got worse, 1 got better, and 1 have")
    rows = [line for line in told.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| b | 2.00 | 4.00 | ms | 2.00 | worse |",
        "| a | 2.00 | 1.00 | ms | 0.50 | better |",
    ]


def test_a_comparison_without_a_move_has_no_table() -> None:
    """Nothing to name, nothing to draw."""
    same = document(figure("a", 2, 1.9, 2.1))
    assert "|" not in comparison_markdown(compare_benchmarks(same, same))
