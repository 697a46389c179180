"""The profile of a dataset, counted by hand."""

import hashlib

import pytest

from shield_engine.datasets.profile import Profiler, guess_language


def profile(rows, labels=("benign", "injection")):
    """Return the profile of (text, label) rows."""
    profiler = Profiler(labels)
    for text, label in rows:
        profiler.add(text, hashlib.sha256(text.encode()).digest(), label)
    return profiler.profile(["first"])


def test_duplicates_and_conflicts_are_counted_by_text():
    """Each later row of a text is a duplicate; a text with two labels is one conflict."""
    found = profile([("a", 0), ("a", 1), ("a", 0), ("b", 1), ("b", 1), ("c", 0)])
    assert (found.rows, found.duplicates, found.conflicts) == (6, 3, 1)
    assert found.class_counts == {"benign": 3, "injection": 3}


def test_lengths_are_those_of_real_rows():
    """Median and 95th percentile are lengths that occur."""
    found = profile([("x" * n, 0) for n in range(1, 101)])
    assert (found.chars_p50, found.chars_p95, found.chars_max) == (50, 95, 100)
    assert profile([("x", 0), ("y" * 9, 0)]).chars_p50 == 1


def test_very_long_and_empty_texts_are_counted_and_warned_about():
    """A text beyond 20,000 characters and a blank one are both reported."""
    found = profile([("x" * 20_001, 0), ("y" * 20_000, 1), ("", 0), (" \n", 1)])
    assert (found.very_long, found.empty_texts) == (1, 2)
    assert any("20,000 characters: 1" in warning for warning in found.warnings)
    assert any("white space: 2" in warning for warning in found.warnings)


def test_warnings_name_missing_and_rare_classes():
    """A class without rows and one below 1% are named, behind the reader's own warnings."""
    assert profile([("a", 0)]).warnings[0] == "first"
    assert any("no row is labelled injection" in text for text in profile([("a", 0)]).warnings)
    rare = profile([(str(n), int(n == 0)) for n in range(200)])
    assert any("injection (1)" in warning for warning in rare.warnings)


def test_unlabelled_rows_have_no_classes_and_no_class_warning():
    """Without labels nothing is said about classes."""
    found = profile([("a", None), ("b", None)])
    assert (found.labelled, found.warnings) == (0, ("first",))


def test_no_rows_give_zeros():
    """A profile of nothing is all zeros."""
    assert profile([]).chars_max == 0


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the weather like in the mountains?", "english"),
        ("Wie ist das Wetter und was soll ich anziehen?", "german"),
        ("Quel est le temps dans les Alpes pour demain ?", "french"),
        ("¿Cómo es el tiempo en las montañas por la mañana?", "spanish"),
        ("今天山里的天气怎么样", "chinese"),
        ("きょうのてんきは?", "japanese"),
        ("오늘 날씨가 어때요", "korean"),
        ("Какая завтра погода?", "cyrillic script"),
        ("zzz", "unknown"),
        ("", "unknown"),
    ],
)
def test_language_is_guessed_roughly(text, language):
    """Scripts and stop words tell the common languages; too little text is unknown."""
    assert guess_language(text) == language
