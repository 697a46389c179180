"""The whole suite on the real models, with the fewest repetitions that still measure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from shield_engine.benchmark import (
    TARGETS,
    benchmark_markdown,
    compare_benchmarks,
    run_benchmark,
    run_soak,
    soak,
)
from shield_engine.benchmark.subject import Effort, Subject
from shield_engine.engine import Shield
from shield_engine.settings import Settings, usable_cpus

EFFORT = Effort(
    calls=6,
    cheap_calls=12,
    batches=2,
    loads=2,
    processes=1,
    rounds=2,
    round_texts=6,
    requests=30,
)


@pytest.fixture(scope="module")
def shield(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shield]:
    """Return an engine that the module's tests share."""
    home = tmp_path_factory.mktemp("home")
    shield = Shield.create(Settings(home, offline=True, workers=2))
    yield shield
    shield.close()


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, float]]:
    """Return what progress was reported, once `document` is there."""
    return []


@pytest.fixture(scope="module")
def document(shield: Shield, steps: list[tuple[str, float]]) -> dict[str, Any]:
    """Return the benchmark of this machine."""
    return run_benchmark(
        shield,
        quick=True,
        effort=EFFORT,
        on_progress=lambda title, share: steps.append((title, share)),
    )


def test_the_document_is_json(document: dict[str, Any]) -> None:
    """It survives a round trip through strict JSON, so the store and the command can keep it."""
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["format"] == 1
    assert document["quick"] is True
    assert document["machine"]["usable_cores"] == usable_cpus()


def test_every_figure_lies_in_its_interval_and_counts_something(document: dict[str, Any]) -> None:
    """Names are unique, values finite, and n is above 0."""
    rows = document["figures"] + document["ratios"]

    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert math.isfinite(row["value"]), row["name"]
        assert row["n"] > 0, row["name"]
        assert row["low"] is None or row["low"] <= row["value"], row["name"]
        assert row["high"] is None or row["value"] <= row["high"], row["name"]
        assert row["detail"]["interval"], row["name"]


def test_the_suite_covers_every_operation(document: dict[str, Any]) -> None:
    """Each group of figures is there, and each mode with hits and misses."""
    names = {figure["name"] for figure in document["figures"]}

    assert {figure["group"] for figure in document["figures"]} == {
        "cache", "end_to_end", "heuristic", "hit_rate", "inference", "load", "memory", "parts",
        "peers", "replay", "throughput", "tokenization",
    }  # fmt: skip
    for callers in (1, 2, 4, 8, 16, 32):
        assert f"throughput.ml.threads_{callers}" in names
    for mode in ("heuristic", "ml", "hybrid", "both"):
        for outcome in ("miss", "hit"):
            for share in ("p50", "p95", "p99"):
                assert f"end_to_end.{mode}.{outcome}.{share}" in names
    for length in (16, 32, 64, 128):
        assert f"inference.{length}_tokens.p99" in names


def test_a_larger_cache_and_more_repeats_are_hit_more(document: dict[str, Any]) -> None:
    """Hits are counted on a cold cache, so they are the same in every run."""
    values = {figure["name"]: figure["value"] for figure in document["figures"]}
    rates = [
        [values[f"hit_rate.repeats_{repeats}.size_{size}"] for size in (100, 1_000, 10_000)]
        for repeats in ("rare", "some", "often")
    ]
    assert all(row == sorted(row) for row in rates)
    assert all(list(column) == sorted(column) for column in zip(*rates, strict=True))
    assert 0 < rates[0][0] < rates[2][2] < 100


def test_parts_add_up_to_the_whole(document: dict[str, Any]) -> None:
    """Mean times of the parts are shares of one; rules take none of mode ml's time."""
    shares: dict[str, dict[str, float]] = {}
    for figure in document["figures"]:
        if figure["group"] == "parts":
            _, mode, part = figure["name"].split(".")
            shares.setdefault(mode, {})[part] = figure["detail"]["share"]
    assert set(shares) == {"heuristic", "ml", "hybrid", "both"}
    for parts in shares.values():
        assert min(parts.values()) > 0
        assert sum(parts.values()) == pytest.approx(1.0)
    assert "rules" not in shares["ml"]
    assert shares["ml"]["infer"] > 0.5


def test_ratios_have_the_names_that_documents_share(document: dict[str, Any]) -> None:
    """Those that cannot be measured here are absent, not null."""
    expected = {
        "cached_p50_us",
        "heuristic_per_second",
        "heuristic_vs_re",
        "hybrid_per_second",
        "int8_vs_plain_int8_32",
        "ml_vs_bare_ort",
        "three_scanners_vs_one",
    }
    if usable_cpus() > 1:
        expected.add("two_threads_vs_one")

    assert {ratio["name"] for ratio in document["ratios"]} == expected


def test_a_target_stands_only_beside_a_figure_of_its_unit(document: dict[str, Any]) -> None:
    """A band drawn beside a figure can be read on the same axis, in the same direction."""
    targets = {target.name: target for target in TARGETS}
    beside = [figure for figure in document["figures"] if figure["target"] is not None]

    assert beside
    for figure in beside:
        assert targets[figure["target"]].unit == figure["unit"], figure["name"]
        assert targets[figure["target"]].better == figure["better"], figure["name"]


def test_speeds_of_hybrid_name_the_share_escalated(document: dict[str, Any]) -> None:
    """Misses escalate some texts, hits none, and the replay's hit rate is its detail's."""
    figures = {figure["name"]: figure for figure in document["figures"]}

    assert figures["end_to_end.hybrid.hit.p50"]["detail"]["hit_rate"] == 1
    assert figures["end_to_end.hybrid.hit.p50"]["detail"]["escalated_share"] == 0
    assert figures["end_to_end.hybrid.miss.p50"]["detail"]["hit_rate"] == 0
    assert 0 < figures["end_to_end.hybrid.miss.p50"]["detail"]["escalated_share"] <= 1
    assert figures["end_to_end.ml.miss.p50"]["detail"]["model_asked_share"] == 1
    replay = figures["replay.zipf.hit_rate"]
    assert replay["value"] == replay["detail"]["hit_rate"]
    assert 0 < replay["value"] < 1


def test_the_matcher_and_re_find_the_same_rules(document: dict[str, Any]) -> None:
    """The ratio of two matchers means something only if both answer alike."""
    ratio = next(row for row in document["ratios"] if row["name"] == "heuristic_vs_re")

    assert ratio["detail"]["texts_with_equal_answers"] == ratio["detail"]["texts"]


def test_progress_never_goes_back_and_ends_at_one(
    document: dict[str, Any], steps: list[tuple[str, float]]
) -> None:
    """A bar can be drawn from it."""
    shares = [share for _, share in steps]

    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1


def test_the_engines_own_scanners_and_caches_are_left_alone(
    document: dict[str, Any], shield: Shield
) -> None:
    """A benchmark run from the dashboard does not fill the cache of its scanners."""
    assert shield.stats().scanners == {}
    assert shield.stats().caches == {}


def test_a_document_compared_with_itself_decides_nothing(document: dict[str, Any]) -> None:
    """Every figure and ratio has a row, and no interval is disjoint from itself."""
    rows = compare_benchmarks(document, document)

    assert len(rows) == len(document["figures"]) + len(document["ratios"])
    assert not any(row["is_disjoint"] for row in rows)


def test_markdown_has_a_row_for_every_figure_and_ratio(document: dict[str, Any]) -> None:
    """What is in the JSON is in the table."""
    shown = benchmark_markdown(document)

    for row in document["figures"] + document["ratios"]:
        assert f"\n| {row['name']} | " in shown


@pytest.mark.parametrize("tokens", [16, 64])
def test_texts_of_a_length_have_exactly_that_many_tokens(shield: Shield, tokens: int) -> None:
    """The model reads each in one window of that many tokens, special ones included."""
    subject = Subject.of(shield, EFFORT)
    texts = subject.of_tokens(tokens, 20)

    assert len(texts) == 20
    for text in texts:
        (window,) = subject.model.windows.windows(text)
        assert len(window.ids) == tokens


def test_a_soak_counts_its_scans_and_finds_no_other_score(shield: Shield) -> None:
    """Eight callers by every task and mode get the scores that one caller got."""
    outcome = run_soak(shield, minutes=0.05)

    assert outcome["wrong_scores"] == 0
    assert outcome["scans"] == sum(outcome["scans_by_scanner"].values()) > 0
    assert outcome["cache_hits"] < outcome["scans"]
    assert set(outcome["memory_mb"]) == {"first", "last", "highest"}
    assert json.loads(json.dumps(outcome, allow_nan=False)) == outcome


def test_a_soak_notices_a_wrong_score(shield: Shield, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that differ from the first ones are counted."""
    scored = soak._expected

    def shifted(*args: Any) -> dict[tuple[str, str], float]:
        return {key: score + 1 for key, score in scored(*args).items()}

    monkeypatch.setattr(soak, "_expected", shifted)
    outcome = run_soak(shield, minutes=0.01)

    assert outcome["wrong_scores"] == outcome["scans"] > 0
