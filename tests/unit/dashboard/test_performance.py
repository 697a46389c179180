"""Benchmark documents as tables and charts."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

from dashboard.performance.charts import comparison_chart, distributions_chart, figures_chart
from dashboard.performance.tables import (
    chart_groups,
    comparison_frame,
    cost_frame,
    distributions,
    distributions_frame,
    document_title,
    figure_named,
    figures_frame,
    machine_frame,
    ratios_frame,
)
from shield_engine.benchmark import TARGETS, number, read_document
from shield_engine.errors import ConfigError

HOSTILE = '<a href="javascript:alert(1)">x</a>\u202e'


def figure(
    name: str, value: float, *, low: float | None = None, high: float | None = None, **more: Any
) -> dict[str, Any]:
    """Return one figure as a document carries it."""
    row = {
        "name": name, "value": value, "unit": "ms", "low": low, "high": high, "n": 200,
        "kind": "measured", "group": "end_to_end", "better": "lower", "target": None, "detail": {},
    }  # fmt: skip
    return {**row, **more}


def ratio(name: str, value: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    """Return one ratio as a document carries it."""
    row = {"name": name, "value": value, "low": low, "high": high, "target": 10.0, "n": 6}
    return {**row, "better": "higher", "detail": {}, **more}


@pytest.fixture
def document() -> dict[str, Any]:
    """Return a small benchmark with known numbers."""
    return {
        "format": 1,
        "created_at": "2026-01-02T03:04:05+00:00",
        "quick": True,
        "seconds": 28.4,
        "machine": {
            "cpu": "Some CPU", "cores": 4, "usable_cores": 2, "memory_mb": 8_000,
            "platform": "Linux", "python": "3.11.7", "packages": {"numpy": "2.0"},
            "load_1_minute": 0.5,
        },
        "figures": [
            figure("end_to_end.ml.miss.p50", 2.0, low=1.5, high=2.5, target="end_to_end_ml"),
            figure("end_to_end.ml.miss.p99", 9.0, low=8.0, high=None, target="end_to_end_ml"),
            figure("end_to_end.ml.hit.p50", 0.01, low=0.009, high=0.011),
            figure(
                "throughput.hybrid", 272.0, low=-5.0, high=600.0, unit="texts/s",
                group="throughput", better="higher", target="throughput_hybrid",
                detail={"escalated_share": 0.98, "hit_rate": 0.0, "cpus_busy": 1.14},
            ),
            figure(
                "throughput.ml", 286.0, low=261.0, high=311.0, unit="texts/s",
                group="throughput", better="higher",
            ),
            figure("replay.hit_rate", 0.7, unit="share", group="replay", better="higher"),
            figure("memory.total", 190.0, unit="MB", group="memory"),
        ],
        "ratios": [
            ratio("reached", 12.0, 11.0, 13.0),
            ratio("missed", 8.0, 7.0, 9.0),
            ratio("between", 10.5, 9.0, 12.0),
            ratio("small_is_good", 8.0, 7.0, 9.0, better="lower"),
            ratio("small_between", 9.0, 8.0, 12.0, better="lower"),
        ],
        "targets": [target.as_dict() for target in TARGETS],
    }  # fmt: skip


def written(document: dict[str, Any]) -> bytes:
    """Return a document as a file."""
    return json.dumps(document).encode()


# --- reading --------------------------------------------------------------------------------


def test_a_benchmark_is_read_back_whole(document: dict[str, Any]) -> None:
    """What the command wrote comes back unchanged, with a byte order mark or without."""
    assert read_document(written(document)) == document
    assert read_document(b"\xef\xbb\xbf" + written(document)) == document


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no benchmark of format 1"),
        (b'{"format": 2}', "no benchmark of format 1"),
        (b'{"format": 1}', "'figures' of the benchmark is no list"),
    ],
)
def test_another_file_is_refused_in_words(content: bytes, said: str) -> None:
    """The message says what is wrong with the file and how to write a right one."""
    with pytest.raises(ConfigError, match=said):
        read_document(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": None}, r"'value' of figures\[0\].*no finite number"),
        ({"value": True}, r"'value' of figures\[0\].*no finite number"),
        ({"value": 10**400}, r"'value' of figures\[0\].*no finite number"),
        ({"low": "1"}, r"'low' of figures\[0\].*no finite number"),
        ({"name": ""}, r"figures\[0\] of the benchmark has no name"),
        ({"name": "end_to_end.ml.miss.p99"}, r"figures\[1\] of the benchmark has no name"),
        ({"unit": 3}, r"'unit' of figures\[0\].*no text"),
        ({"detail": 7}, "incomplete"),
    ],
)
def test_a_wrong_figure_is_named(document: dict[str, Any], change: Any, said: str) -> None:
    """A figure that cannot be drawn is refused with its place and name."""
    document["figures"][0] |= change
    with pytest.raises(ConfigError, match=said):
        read_document(written(document))


@pytest.mark.parametrize("key", ["created_at", "quick", "seconds", "machine"])
def test_a_missing_part_is_refused(document: dict[str, Any], key: str) -> None:
    """A document that a page could not show is refused before it is stored."""
    del document[key]
    with pytest.raises(ConfigError, match="incomplete"):
        read_document(written(document))


def test_not_a_number_is_refused(document: dict[str, Any]) -> None:
    """Python's own NaN is no JSON and no figure."""
    document["figures"][0]["value"] = math.nan
    with pytest.raises(ConfigError, match="NaN is no JSON number"):
        read_document(written(document))


# --- words and tables -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0"), (0.000131, "0.000131"), (2.354, "2.35"), (19.06, "19.1"),
     (272.4, "272"), (789_643.0, "789,643"), (-0.5, "-0.500")],
)  # fmt: skip
def test_numbers_keep_three_digits(value: float | None, shown: str) -> None:
    """Microseconds and thousands are both readable."""
    assert number(value) == shown


def test_the_table_shows_intervals_targets_and_what_stands_beside(document: Any) -> None:
    """A speed never stands without its hit rate and share; an open end is called open."""
    frame = figures_frame(document).set_index("Figure")
    assert frame.loc["end_to_end.ml.miss.p50", "95% interval"] == "1.50 to 2.50"
    assert frame.loc["end_to_end.ml.miss.p99", "95% interval"] == "8.00 to open"
    assert frame.loc["end_to_end.ml.miss.p50", "Target, not measured"] == (
        "< 200 ms (acceptable < 400)"
    )
    assert frame.loc["throughput.hybrid", "Target, not measured"] == "> 2,000 texts/s"
    assert frame.loc["throughput.hybrid", "Beside it"] == (
        "98.0% asked the model, 0.0% cache hits, 1.14 CPUs busy"
    )
    assert len(frame) == 7


def test_an_aim_is_met_only_by_the_whole_interval(document: Any) -> None:
    """An interval across the aim decides nothing, in either direction of good."""
    frame = ratios_frame(document).set_index("Ratio")
    assert frame["Outcome"].to_dict() == {
        "reached": "met", "missed": "missed", "between": "not decisive", "small_is_good": "met",
        "small_between": "not decisive",
    }  # fmt: skip
    assert frame.loc["small_is_good", "Aim"] == "at most 10.0"


def test_title_machine_and_lookup(document: Any) -> None:
    """A benchmark is told from others by time, kind and machine; figures are found by name."""
    assert document_title(document) == "2026-01-02 03:04 UTC, quick, Some CPU, 2 cores"
    facts = machine_frame(document).set_index("What")["Value"]
    assert facts["Cores usable"] == "2 of 4"
    assert facts["numpy"] == "2.0"
    found = figure_named(document, "missed")
    assert found is not None
    assert found["value"] == 8.0
    assert figure_named(document, "absent") is None


# --- charts ---------------------------------------------------------------------------------


def test_groups_share_a_unit_and_known_questions_come_first(document: Any) -> None:
    """Shares and single figures are left to the table; groups without a question come last."""
    odd = [figure(f"odd.{n}", 1.0, unit="widgets", group="odd") for n in (1, 2)]
    document["figures"][:0] = odd
    groups = chart_groups(document)
    assert [group.question for group in groups] == [
        "How long does a text take, end to end?", "How many texts a second?", "What else was measured?",
    ]  # fmt: skip
    assert [len(group.figures) for group in groups] == [3, 2, 2]
    assert len({group.key for group in groups}) == 3


def test_percentiles_of_one_thing_share_a_line_over_its_target(document: Any) -> None:
    """p50 and p99 of a scan lie on one line; its target band ends at the target."""
    group = chart_groups(document)[0]
    chart = figures_chart(document, group)
    traces = {trace.name: trace for trace in chart.data}
    assert list(chart.layout.yaxis.ticktext) == ["ml, miss", "ml, hit"]
    assert list(traces["p50, measured"].x) == [2.0, 0.01]
    assert list(traces["p50, measured"].y) == [0, 1]
    assert list(traces["p99, measured"].y) == [0]
    assert traces["target, not measured"].x[1] == 200
    assert traces["acceptable, not measured"].x[:2] == (200, 400)
    assert set(traces["target, not measured"].y) == {0, None}
    left, right = (10**end for end in chart.layout.xaxis.range)
    assert left < 0.009
    assert right > 400


def test_intervals_are_drawn_as_far_as_they_are_known(document: Any) -> None:
    """An open end has no line, and an end below zero is drawn to the axis' edge."""
    first, second = (figures_chart(document, group) for group in chart_groups(document)[:2])
    p99 = next(trace for trace in first.data if trace.name == "p99, measured")
    assert list(p99.error_x.array) == [0]
    assert list(p99.error_x.arrayminus) == [1.0]
    rates = next(trace for trace in second.data if trace.name == "measured")
    left = 10 ** second.layout.xaxis.range[0]
    assert rates.error_x.arrayminus[0] == pytest.approx(272 - left)
    assert "higher is better" in second.layout.xaxis.title.text


def test_a_target_where_more_is_better_reaches_to_the_right(document: Any) -> None:
    """The band begins at the target and has no end but the axis'."""
    chart = figures_chart(document, chart_groups(document)[1])
    band = next(trace for trace in chart.data if trace.name == "target, not measured")
    assert band.x[0] == 2_000
    assert band.x[1] == pytest.approx(10 ** chart.layout.xaxis.range[1])


def test_strange_names_reach_a_chart_as_text(document: Any) -> None:
    """A chart reads links in its labels, so names from files are escaped and made visible."""
    document["figures"] = [
        figure(f"{HOSTILE}{n}", 1.0, unit=HOSTILE, group=HOSTILE) for n in (1, 2)
    ]
    read_document(written(document))
    (group,) = chart_groups(document)
    drawn = figures_chart(document, group).to_json()
    assert "<a" not in drawn.replace("\\u003c", "<")
    assert "\\u202e" not in drawn
    assert group.question == "What else was measured?"


# --- two benchmarks -------------------------------------------------------------------------


def changed(document: dict[str, Any], factors: dict[str, float]) -> dict[str, Any]:
    """Return a copy in which some figures, with their intervals, are multiplied."""
    other = copy.deepcopy(document)
    for row in other["figures"]:
        for key in ("value", "low", "high"):
            if row[key] is not None:
                row[key] *= factors.get(row["name"], 1.0)
    return other


def test_changes_read_as_times_better_whichever_way_is_good(document: Any) -> None:
    """Half the time and twice the rate are both two times better; the worst come first."""
    after = changed(
        document,
        {"end_to_end.ml.hit.p50": 0.5, "throughput.ml": 2.0, "end_to_end.ml.miss.p50": 4.0},
    )
    frame = comparison_frame(document, after).set_index("Figure")
    assert frame.index[0] == "end_to_end.ml.miss.p50"
    assert frame.loc["end_to_end.ml.miss.p50", "Times better"] == 0.25
    assert frame.loc["end_to_end.ml.hit.p50", "Times better"] == 2.0
    assert frame.loc["throughput.ml", "Times better"] == 2.0
    assert frame["Verdict"].value_counts().to_dict() == {
        "not decisive": 9, "better": 2, "worse": 1,
    }  # fmt: skip


def test_only_parted_intervals_are_drawn(document: Any) -> None:
    """Better and worse have a marker each; where nothing parts there is no chart."""
    after = changed(document, {"throughput.ml": 2.0, "end_to_end.ml.miss.p50": 4.0})
    chart = comparison_chart(comparison_frame(document, after))
    assert chart is not None
    assert {trace.name: list(trace.x) for trace in chart.data} == {"better": [2.0], "worse": [0.25]}
    assert list(chart.layout.yaxis.ticktext) == ["end_to_end.ml.miss.p50", "throughput.ml"]
    assert comparison_chart(comparison_frame(document, document)) is None
    assert chart.layout.paper_bgcolor == "rgba(0,0,0,0)"


def test_whole_distributions_are_drawn_by_mode_and_outcome(document: dict[str, Any]) -> None:
    """Only sorted, positive, finite steps of end-to-end figures; names are shown as text."""
    document["figures"] = [
        figure("end_to_end.ml.miss.p50", 2.0, detail={"quantiles": [1.0, 2.0, 4.0]}),
        figure(f"end_to_end.{HOSTILE}.p50", 2.0, detail={"quantiles": [1.0, 2.0]}),
        figure("end_to_end.hybrid.hit.p50", 1.0, detail={"quantiles": [3.0, 2.0]}),
        figure("end_to_end.both.hit.p50", 1.0, detail={"quantiles": ["1", None]}),
        figure("end_to_end.both.miss.p50", 1.0, detail={"quantiles": [0.0, 1.0]}),
        figure("inference.p50", 1.0, group="inference", detail={"quantiles": [1.0, 2.0]}),
        figure("end_to_end.ml.miss.p95", 3.0, detail="no table"),
    ]
    found = distributions(document)
    assert found["ml, miss"] == [1.0, 2.0, 4.0]
    assert len(found) == 2
    assert not any("<a" in name for name in found)
    frame = distributions_frame(document)
    assert frame[frame["Case"] == "ml, miss"]["Share"].tolist() == [0.0, 0.5, 1.0]
    chart = distributions_chart(document)
    assert list(chart.data[0].y) == [0, 50, 100]
    document["figures"] = []
    assert distributions_frame(document).empty


def test_a_million_texts_cost_their_cpu_time(document: dict[str, Any]) -> None:
    """3.6 ms a text are an hour of one CPU a million; figures without CPU time are left out."""
    document["figures"] = [
        figure("throughput.ml", 250.0, unit="texts/s", group="throughput",
               detail={"cpu_ms_per_text": 3.6, "model_asked_share": 1.0}),
        figure("throughput.odd", 250.0, unit="texts/s", group="throughput",
               detail={"cpu_ms_per_text": "3.6"}),
        figure("throughput.none", 250.0, unit="texts/s", group="throughput", detail=None),
    ]  # fmt: skip
    frame = cost_frame(document, 0.5)
    assert frame["CPU hours a million"].tolist() == pytest.approx([1.0])
    assert frame["Price of a million"].tolist() == pytest.approx([0.5])
    document["figures"] = []
    assert cost_frame(document, 0.5).empty
