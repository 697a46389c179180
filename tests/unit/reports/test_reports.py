"""Reports: hostile words stay words, every figure carries its n, and nothing is fetched."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser

import numpy as np
import pytest

from shield_engine.decide.candidates import Candidate, candidate_of
from shield_engine.gates import GateOutcome, judge, parse_gate
from shield_engine.hostile_text import fenced, markdown_text, redacted, visible, xml_text
from shield_engine.policy import Policy
from shield_engine.reports import (
    Report,
    as_html,
    as_markdown,
    build_report,
    gate_junit,
    gate_markdown,
    scored_rows,
)
from shield_engine.reports.svg import (
    Bar,
    Curve,
    Dot,
    bars,
    bounds_bar,
    curves,
    forest,
    histogram,
)
from shield_engine.store import RunInfo, Store
from shield_engine.types import Mode, Task, Variant
from tests.stored_runs import add_dataset, add_run

HOSTILE = '</pre><script>alert("x")</script> ![i](https://bad.example/p.png) \u202e\u200b ```'
NAME = "<b>set</b> | [x](javascript:1)"


@pytest.fixture
def store() -> Iterator[Store]:
    """A store of its own."""
    with Store.in_memory() as opened:
        yield opened


@pytest.fixture
def run(store: Store) -> RunInfo:
    """Sixty attacks and sixty harmless rows, two of each wrong, with hostile words everywhere."""
    texts = [f"{number} {HOSTILE}" for number in range(120)]
    slices = [{"lang": "<i>de</i>" if number % 2 else "en"} for number in range(120)]
    dataset = add_dataset(store, [1] * 60 + [0] * 60, texts=texts, slices=slices, name=NAME)
    scores = [0.1, 0.2] + [0.9] * 58 + [0.8, 0.7] + [0.3] * 58
    return add_run(store, dataset, scores, rules=[["vader.secret", "rule-1"]] * 120)


def report_of(
    store: Store, run: RunInfo, *, redact: bool = False, baseline: Candidate | None = None
) -> Report:
    """Return a report of a model-only run."""
    return build_report(
        store,
        candidate_of(run, {}),
        {},
        redact=redact,
        baseline=baseline,
        gate=outcome_of(store, run),
    )


def outcome_of(store: Store, run: RunInfo) -> GateOutcome:
    """Judge one requirement of each outcome, and one for another task."""
    lines = (
        'metric = "recall"\nat_least = 0.8',
        'metric = "recall"\nat_least = 0.97',
        'metric = "fpr"\nat_most = 0.001',
        'metric = "fpr"\nat_most = 0.1\ntask = "toxicity"',
        'metric = "fpr"\nat_most = 0.1\nslice = {column = "lang", value = "<x>&\\u0007|"}',
    )
    tables = "\n".join(f"[[require]]\n{one}" for one in lines)
    gate = parse_gate(f'format = 1\nname = "g <&> é"\n{tables}')
    return judge(store, gate, candidate_of(run, {}), thresholds_of=lambda _: {})


class Tags(HTMLParser):
    """Collects every element, attribute and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.texts.append(data)


def parsed(html: str) -> Tags:
    """Return what a browser would see of a page."""
    tags = Tags()
    tags.feed(html)
    return tags


# --- HTML -------------------------------------------------------------------------------------


def test_html_runs_and_fetches_nothing(store: Store, run: RunInfo) -> None:
    """No script, handler, link, image, frame or address; a policy forbids all but inline styles."""
    found = parsed(as_html(report_of(store, run)))
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "img", "link", "iframe", "object", "embed", "a", "form", "b", "i"}
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name in {"href", "src"}]
    policies = [a["content"] for tag, a in found.tags if a.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "url(" not in as_html(report_of(store, run))


def test_hostile_words_are_shown_letter_by_letter(store: Store, run: RunInfo) -> None:
    """Prompts, names and slice values stand in the page as text, hidden characters written out."""
    shown = "".join(parsed(as_html(report_of(store, run))).texts)
    assert '</pre><script>alert("x")</script>' in shown
    assert "⟨U+202E⟩⟨U+200B⟩" in shown
    assert "\u202e" not in shown
    assert "<b>set</b>" in shown
    assert "<i>de</i>" in shown


def test_html_says_what_the_report_says(store: Store, run: RunInfo) -> None:
    """Verdict, figures with n and method, gate, stamp and commands are there."""
    report = report_of(store, run)
    shown = "".join(parsed(as_html(report)).texts)
    assert report.sentence.startswith(
        "In this run ml at threshold 0.5 flags 96.7% (88.6 to 99.1) of 60 risky rows and "
        "3.3% (0.9 to 11.4) of 60 harmless rows."
    )
    for words in (
        report.sentence, "96.7% (88.6 to 99.1), n 60", "bootstrap(1000, seed 7)", "inconclusive",
        "not applicable", "rules-1", "shield report", run.run_id,
    ):  # fmt: skip
        assert words in shown
    assert len(re.findall("<svg", as_html(report))) >= 4


def test_redacted_report_holds_no_text(store: Store, run: RunInfo) -> None:
    """With redaction no word of a prompt is in any format, lexicon rules included."""
    report = report_of(store, run, redact=True)
    written = [as_html(report), as_markdown(report), json.dumps(report.as_dict())]
    for text in written:
        assert "alert" not in text
        assert "vader.secret" not in text
        assert "rule-1" in text
    assert redacted(f"0 {HOSTILE}") in written[2]
    assert "vader.secret" in as_html(report_of(store, run))


# --- what is in it ----------------------------------------------------------------------------


def test_worst_errors_are_the_farthest_of_each_kind(store: Store, run: RunInfo) -> None:
    """Both kinds of error, each by distance from the threshold."""
    errors = report_of(store, run).errors
    assert [(one.kind, one.row_id) for one in errors] == [
        ("missed", "r0"), ("missed", "r1"), ("false alarm", "r60"), ("false alarm", "r61"),
    ]  # fmt: skip
    missed = next(one for one in errors if one.row_id == "r0")
    assert (missed.label, missed.said) == ("injection", "benign")
    assert missed.distance == pytest.approx(0.4)


def test_slices_have_their_own_rows(store: Store, run: RunInfo) -> None:
    """Each value of a slice column has its n and Wilson intervals."""
    slices = {one.value: one for one in report_of(store, run).slices}
    assert {value: one.n for value, one in slices.items()} == {"en": 60, "<i>de</i>": 60}
    assert slices["en"].metrics["recall"].value == pytest.approx(29 / 30)
    assert slices["en"].metrics["recall"].method == "wilson"


def test_json_is_plain_and_names_method_and_seed(store: Store, run: RunInfo) -> None:
    """The JSON report survives writing without NaN; figures carry n, interval and method."""
    document = json.loads(json.dumps(report_of(store, run).as_dict(), allow_nan=False))
    figure = document["modes"][0]["metrics"]["recall"]
    assert (figure["n"], figure["method"]) == (60, "wilson")
    assert document["seed"] == 7
    assert document["stamp"]["dataset_hash"] == "d" * 64
    assert document["gate"]["outcome"] == "fail"


def test_policy_and_baseline_are_in_the_report(store: Store, run: RunInfo) -> None:
    """The policy's file and evidence, and the verdict against the baseline."""
    policy = Policy(
        "front", Task.PROMPT_INJECTION, Mode.ML, 0.75, model_id="tiny", variant=Variant.INT8,
        model_sha256="a" * 64, evidence={"rows": 120, "split": {"seed": 3}},
    )  # fmt: skip
    other = add_run(store, store.datasets.find(run.dataset_id), [0.9] * 60 + [0.1] * 60)
    report = build_report(
        store, candidate_of(run, {}, policy=policy), {}, policy=policy,
        baseline=candidate_of(other, {}),
    )  # fmt: skip
    assert report.baseline is not None
    assert report.views[0].threshold == 0.75
    for text in ("".join(parsed(as_html(report)).texts), as_markdown(report)):
        assert "threshold = 0.75" in text
        assert "--policy shield.toml" in text
        assert "Against the baseline" in text
    assert "split.seed" in as_html(report)
    assert any(other.run_id in line for line in report.commands)


def test_parquet_rows_carry_verdicts_and_stamp(store: Store, run: RunInfo) -> None:
    """Each row has score, verdict and whether it is right; the stamp is in the metadata."""
    table = scored_rows(store, report_of(store, run))
    assert table.num_rows == 120
    assert table["judged_verdict"].to_pylist()[:3] == ["benign", "benign", "injection"]
    assert table["is_right"].to_pylist().count(False) == 4
    assert "text" not in table.column_names
    assert json.loads(table.schema.metadata[b"llm_shield"])["run_id"] == run.run_id


def test_unlabelled_failed_and_three_class_runs_have_reports(store: Store) -> None:
    """Without labels there are rates; failed rows are counted; three classes have no threshold."""
    log = add_run(
        store, add_dataset(store, [None] * 40, name="log"), [0.9] * 10 + [0.1] * 29 + [None]
    )
    report = build_report(store, candidate_of(log, {}), {})
    assert "flags 25.64% of 39 rows; they have no labels" in report.sentence
    assert "1 rows failed" in as_markdown(report)
    assert "1 rows failed" in as_html(report)
    assert scored_rows(store, report)["judged_verdict"].to_pylist()[-1] is None
    labels = [0, 1, 2] * 20
    scores = [[0.8 if place == label else 0.1 for place in range(3)] for label in labels]
    scores[0] = [0.1, 0.1, 0.8]
    tone = add_run(store, add_dataset(store, labels, task=Task.SENTIMENT, name="tone"), scores)
    report = build_report(store, candidate_of(tone, {}), {})
    assert report.sentence.startswith("In this run ml gives 98.3%")
    assert [one.kind for one in report.errors] == ["wrong label"]
    assert "wrong label" in as_html(report)
    assert scored_rows(store, report)["judged_score"].null_count == 60


# --- Markdown and JUnit -----------------------------------------------------------------------


def test_markdown_disarms_and_fences(store: Store, run: RunInfo) -> None:
    """No link, image or tag comes alive; a text cannot leave its block."""
    text = as_markdown(report_of(store, run))
    assert "\u202e" not in text
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "alert" not in outside
    assert r"\[x\](javascript:1)" in outside
    assert "<b>" not in outside.replace(r"\<b>", "")
    rows = [line for line in outside.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) >= 3 for row in rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("<script>", r"\<script>"),
        ("a < b", "a < b"),
        ("p95_ms and _this_", r"p95_ms and \_this\_"),
        ("http://x www.y", r"http\://x www\.y"),
        ("- item\nnext", r"\- item next"),
        ("1. one", r"1\. one"),
        ("\u200b", "⟨U+200B⟩"),
    ],
)
def test_markdown_text(text: str, expected: str) -> None:
    """What would be markup is escaped, what would not stays readable."""
    assert markdown_text(text) == expected


def test_fences_outgrow_what_they_hold() -> None:
    """A block with a long fence inside gets a longer one."""
    assert fenced("a\n`````\nb").splitlines()[0] == "``````text"
    assert fenced("plain").splitlines() == ["```text", "plain", "```"]


def test_gate_markdown_is_one_table(store: Store, run: RunInfo) -> None:
    """A row a requirement, each with as many cells as the head."""
    text = gate_markdown(outcome_of(store, run))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 7
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert "✅ pass" in text
    assert "❌ fail" in text


@pytest.mark.parametrize(("strict", "failures", "skipped"), [(False, 1, 3), (True, 3, 1)])
def test_junit_is_valid_and_counts(
    store: Store, run: RunInfo, strict: bool, failures: int, skipped: int
) -> None:
    """One case a requirement; inconclusive is skipped, or a failure if strict; names are escaped."""
    outcome = outcome_of(store, run)
    root = ET.fromstring(gate_junit(outcome, strict=strict))  # noqa: S314 - our own text
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (
        "5", str(failures), str(skipped),
    )  # fmt: skip
    assert len(suite.findall("testcase/failure")) == failures
    assert len(suite.findall("testcase/skipped")) == skipped
    assert suite.get("name") == "gate g <&> é"
    names = [case.get("name") for case in suite.findall("testcase")]
    assert names[0] == "1. recall >= 80%"
    assert names[4] == "5. fpr <= 10%, where lang is <x>&⟨U+0007⟩|"
    properties = {one.get("name"): one.get("value") for one in suite.findall("properties/property")}
    assert properties["stamp.dataset_hash"] == "d" * 64
    assert properties["outcome"] == "fail"


def test_xml_text_keeps_only_what_xml_holds() -> None:
    """Controls, surrogates and non-characters are written out; the rest stays."""
    assert xml_text("a\x00\ufffe\ud800\tb é 😀") == "a⟨U+0000⟩⟨U+FFFE⟩⟨U+D800⟩\tb é 😀"
    assert visible("a\r\nb\u2028") == "a\nb⟨U+2028⟩"


# --- charts -----------------------------------------------------------------------------------


def test_charts_are_well_formed_and_escaped() -> None:
    """Each chart is XML by itself, named for screen readers, with hostile labels as text."""
    edges, counts = np.linspace(0, 1, 5), np.array([0, 3, 10, 0])
    ends = np.array([0.0, 100.0])
    charts = [
        forest("t", [Dot(HOSTILE, 0, 50, 40, 60, HOSTILE), Dot("b", 3, 5, None, None, "")]),
        curves("t", [Curve(HOSTILE, 1, ends, ends, (5.0, 5.0))], "x", "y"),
        histogram("t", edges, [(HOSTILE, counts), ("none", np.zeros(4, dtype=np.int64))], 0.5),
        bars("t", [Bar(HOSTILE, 2, 12.5, HOSTILE), Bar("zero", 0, 0.0, "")], "ms"),
        bounds_bar(HOSTILE, 0.9, 0.8, 0.95, 0.9),
    ]
    for chart in charts:
        root = ET.fromstring(chart)  # noqa: S314 - our own text
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "<script" not in chart
        assert "nan" not in chart


def test_forest_places_values_on_its_scale() -> None:
    """Half way between 0 and 100% stands half way between the axis ends."""
    chart = forest("t", [Dot("a", 0, 50, 0, 100, "x")])
    (line,) = re.findall(r'<line class="line s0" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', chart)
    (dot,) = re.findall(r'cx="([\d.]+)"', chart)
    assert float(dot) == pytest.approx((float(line[0]) + float(line[1])) / 2)


def test_bounds_bar_and_bars_place_values_on_their_scales() -> None:
    """A limit midway between the bounds stands midway; ten times as long is one tick further."""
    chart = bounds_bar("t", 0.9, 0.8, 1.0, 0.9)
    (low, high) = re.findall(r'<line class="line s0" x1="([\d.]+)" y1="12.0" x2="([\d.]+)"', chart)[
        0
    ]
    (limit,) = re.findall(r'<line class="mark" x1="([\d.]+)"', chart)
    assert float(limit) == pytest.approx((float(low) + float(high)) / 2, abs=0.1)
    assert 2 < float(low) < float(high) < 178
    drawn = bars("t", [Bar("a", 0, 20.0, ""), Bar("b", 0, 200.0, "")], "ms")
    short, long = (float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', drawn))
    ticks = [float(x) for x in re.findall(r'<line class="grid" x1="([\d.]+)"', drawn)]
    assert long - short == pytest.approx(ticks[1] - ticks[0], abs=0.2)
