"""The page Guards: what a form holds as fields, and models and guards as tables."""

from __future__ import annotations

import pytest

from dashboard.guards.tables import (
    Answer,
    Listed,
    answers_frame,
    guard_facts,
    guard_place,
    guards_frame,
    scorer_title,
    variables,
)
from shield_engine.errors import ConfigError
from shield_engine.guards import HttpEntry, OnnxEntry, PythonEntry
from shield_engine.guards.fields import entry_values
from shield_engine.ml import MLScore
from shield_engine.types import Task

HOUSE = HttpEntry(
    name="house",
    version="3",
    task=Task.PROMPT_INJECTION,
    url="https://guard.example:8443/v1?key=no",
    body={"input": "{text}"},
    headers={"Authorization": "Bearer env:HOUSE_KEY", "X-Client": "shield"},
    score="score",
    threshold=0.75,
    price_per_1000=0.4,
    languages=("en", "de"),
    longest_text=20_000,
)
MOOD = PythonEntry(name="mood", task=Task.SENTIMENT, callable="package.module:mood")


def score(*probabilities: float) -> MLScore:
    """Return a score that took 12 ms."""
    risk = probabilities[1] if len(probabilities) == 2 else probabilities[0]
    return MLScore(
        score=risk,
        probabilities=probabilities,
        window=(0, 1),
        windows=1,
        tokens=0,
        tokenize_ms=2.0,
        infer_ms=10.0,
    )


def test_fields_are_read_from_what_was_typed() -> None:
    """Tables come from JSON, headers from lines, lists from commas; what is empty is left out."""
    values = entry_values(
        {
            "name": " house ",
            "version": "",
            "threshold": None,
            "body": '{"input": "{text}"}',
            "headers": "A: env:KEY\n\n B:x:y ",
            "flagged": "BLOCK, true, 3, null",
            "languages": "en,de,",
            "range": "-1, 1",
            "concurrency": 4,
            "thread_safe": False,
        }
    )
    assert values == {
        "name": "house",
        "body": {"input": "{text}"},
        "headers": {"A": "env:KEY", "B": "x:y"},
        "flagged": ["BLOCK", True, 3, "null"],
        "languages": ["en", "de"],
        "range": [-1.0, 1.0],
        "concurrency": 4,
        "thread_safe": False,
    }


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("body", "[1]", "body is a JSON object"),
        ("options", "{", "options is no JSON"),
        ("headers", "Good: one\nsk-secret", "headers has on line 2 no NAME: VALUE"),
        ("range", "1", "range is two numbers"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_field(field: str, text: str, message: str) -> None:
    """The message begins with the field, and repeats no line that may hold a secret."""
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        entry_values({field: text})
    assert "secret" not in str(caught.value)


def test_guards_are_listed_with_cost_latency_and_coverage() -> None:
    """Unknown is said to be unknown; a sentiment has no threshold."""
    frame = guards_frame([Listed(HOUSE, "here", (12.0, 300.0)), Listed(MOOD, "there")])
    house, mood = frame.to_dict("records")
    assert house["Guard"] == scorer_title(HOUSE) == "house 3"
    assert (house["Kind"], house["Threshold"], house["Price of 1,000"]) == ("http", 0.75, 0.4)
    assert (house["p50"], house["p95"]) == ("12.00 ms", "300 ms")
    assert (house["Languages"], house["Longest text"]) == ("en, de", "20,000")
    assert (mood["p50"], mood["Languages"], mood["Longest text"]) == (
        "not run",
        "unknown",
        "unknown",
    )
    assert mood["Threshold"] != mood["Threshold"]  # NaN


def test_a_place_is_a_host_a_function_a_model_or_a_package() -> None:
    """An address is shown by its host alone, as its query may hold more."""
    own = OnnxEntry(name="own", task=Task.TOXICITY, model="toxicity-minilm-l6")
    declared = {"house", "mood", "own"}
    places = [guard_place(entry, declared) for entry in (HOUSE, MOOD, own)]
    assert places == ["guard.example:8443", "package.module:mood", "toxicity-minilm-l6 INT8"]
    assert guard_place(MOOD, set()) == "installed package"


def test_secrets_are_names_of_variables() -> None:
    """The facts say which variables a guard needs and whether they are set."""
    assert variables(HOUSE) == ("HOUSE_KEY",)
    facts = guard_facts(HOUSE, ["HOUSE_KEY"]).set_index("Fact")["Value"]
    assert facts["variable HOUSE_KEY"] == "not set"
    assert facts["body"] == '{"input": "{text}"}'
    assert facts["languages"] == "en, de"
    assert "verdict" not in facts


def test_answers_have_the_verdict_of_the_guards_threshold() -> None:
    """Two classes by the threshold, three by the most probable one; an error is no verdict."""
    answers = (Answer("harmless", "a", score(0.3, 0.7)), Answer("risky", "b", error="no answer"))
    first, second = answers_frame(answers, Task.PROMPT_INJECTION, 0.75).to_dict("records")
    assert (first["Verdict"], first["Score"], first["Time"]) == ("benign", 0.7, "12.00 ms")
    assert (second["Verdict"], second["Error"]) == ("error", "no answer")
    moods = answers_frame((Answer("harmless", "a", score(0.3, 0.2, 0.5)),), Task.SENTIMENT, 0.1)
    assert moods["Verdict"].tolist() == ["positive"]
