"""Label values of files become classes, or are refused with the choices."""

import pytest

from shield_engine.datasets.labels import class_of, default_label_map, parse_label_map
from shield_engine.errors import ConfigError
from shield_engine.types import LABELS, Task


@pytest.mark.parametrize(
    ("text", "task", "expected"),
    [
        ("1=attack,0=benign", Task.PROMPT_INJECTION, {"1": 1, "0": 0}),
        (" jailbreak = 1 ; ok = 0 ", Task.PROMPT_INJECTION, {"jailbreak": 1, "ok": 0}),
        ("H=hate,N=non-hateful", Task.TOXICITY, {"H": 1, "N": 0}),
        ("-1=neg,0=neu,1=pos", Task.SENTIMENT, {"-1": 0, "0": 1, "1": 2}),
        ("a=b=toxic", Task.TOXICITY, {"a=b": 1}),
        ({"yes": True, "no": False}, Task.TOXICITY, {"yes": 1, "no": 0}),
        ({"jailbreak": 1, "x": "SAFE"}, Task.PROMPT_INJECTION, {"jailbreak": 1, "x": 0}),
    ],
)
def test_parse_label_map_reads_pairs(text, task, expected):
    """Pairs are read from a flag or a mapping, with class names, indices and synonyms."""
    assert parse_label_map(text, task) == expected


def test_parse_label_map_lists_choices_for_unknown_class():
    """An unknown class is refused by name, with the classes there are."""
    with pytest.raises(ConfigError, match=r"'nasty'.*clean \(or 0\), toxic \(or 1\)"):
        parse_label_map("1=nasty", Task.TOXICITY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attack", "is no pair"),
        ("", "is empty"),
        ({}, "is empty"),
        ("1=attack,1=benign", "given twice"),
        ("1=3", "no class"),
        ("1=2", "no class"),
    ],
)
def test_parse_label_map_refuses_what_it_cannot_read(text, message):
    """A missing sign, an empty map, a contradiction and an index out of range are refused."""
    with pytest.raises(ConfigError, match=message):
        parse_label_map(text, Task.PROMPT_INJECTION)


@pytest.mark.parametrize("task", list(Task))
def test_default_label_map_knows_every_class_name(task):
    """Each class is found by its own name."""
    known = default_label_map(task)
    assert [known[name] for name in LABELS[task]] == list(range(len(LABELS[task])))


def test_default_label_map_leaves_sentiment_numbers_open():
    """0 and 1 are known for two classes, but mean different things in sentiment files."""
    assert default_label_map(Task.TOXICITY)["1"] == 1
    assert "1" not in default_label_map(Task.SENTIMENT)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", 1), (" 1.0 ", 1), ("TRUE", 1), ("Prompt Injection", 1), ("benign", 0), ("-1", None)],
)
def test_class_of_ignores_spelling_not_meaning(value, expected):
    """Case, spaces, hyphens and a spreadsheet's .0 do not matter; an unknown value is no class."""
    assert class_of(value, default_label_map(Task.PROMPT_INJECTION)) == expected


def test_class_of_prefers_the_exact_spelling():
    """Two values that differ only in case can be told apart by the user's own map."""
    assert class_of("T", {"T": 1, "t": 0}) == 1
    assert class_of("t", {"T": 1, "t": 0}) == 0
