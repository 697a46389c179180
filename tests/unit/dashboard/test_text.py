"""Texts of others stay text, and numbers read as the pages promise."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dashboard.text import (
    duration,
    label,
    marked,
    megabytes,
    milliseconds,
    plain,
    progress_text,
    segments,
    visible,
)
from shield_engine.metrics.table import figure_text, percent
from shield_engine.runs.execution import Progress
from shield_engine.statistics import Figure

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](https://example.org/leak.png)",
    "[click](javascript:alert(1))",
    "**bold** _slanted_ `code` # head",
    ":red[text] :material/delete: $x^2$",
    "https://example.org/ and www.example.org",
    "- list\n1. list\n> quote\n\n---\n| a | b |\n| - | - |",
    "&lt;b&gt; &#60;",
    "[a]: https://example.org\n[a]",
)


@pytest.mark.parametrize(
    ("letter", "written"),
    [
        ("\u200b", "⟨U+200B⟩"),
        ("\u202e", "⟨U+202E⟩"),
        ("\u2066", "⟨U+2066⟩"),
        ("\ufeff", "⟨U+FEFF⟩"),
        ("\u00ad", "⟨U+00AD⟩"),
        ("\x00", "⟨U+0000⟩"),
        ("\x1b", "⟨U+001B⟩"),
        ("\u3164", "⟨U+3164⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u2028", "⟨U+2028⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("\U000e0101", "⟨U+E0101⟩"),
    ],
)
def test_a_character_that_draws_nothing_is_written_out(letter: str, written: str) -> None:
    """Zero-width, bidi, control, filler, tag and surrogate characters show as code points."""
    assert visible(f"a{letter}b") == f"a{written}b"


def test_ordinary_writing_is_left_alone() -> None:
    """Accents, other scripts, emoji, tabs and line breaks are shown as they are."""
    text = "Größe 漢字 עברית नमस्ते 😀\tx\ny"
    assert visible(text) == text
    assert visible("a\r\nb") == "a\nb"


@given(st.text())
def test_what_is_shown_can_always_be_sent_to_the_browser(text: str) -> None:
    """A shown text is valid UTF-8 and showing it again changes nothing."""
    shown = visible(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert visible(shown) == shown


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_an_escaped_text_letter_by_letter(text: str) -> None:
    """Rendered as Markdown with HTML, tables and links on, only paragraphs and breaks appear."""
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(plain(text))
    assert set(re.findall(r"</?([a-zA-Z]+)", rendered)) <= {"p", "br"}
    shown = re.sub(r"</?(?:p|br)\s*/?>", "", rendered)
    for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(entity, letter)
    assert shown.replace("\u2060", "").split() == text.split()


REPLACED = (
    re.compile(r"(https?://|www(?=\.))([-.\w]+)([^ \t\r\n]*)", re.IGNORECASE),
    re.compile(r"([-.\w+]+)@([-\w]+(?:\.[-\w]+)+)"),
    re.compile(r":streamlit:|:material/\w+:|:[\w+-]+:"),
    re.compile(r"<->|<-|->|--|>=|<=|~="),
)
"""What Streamlit's page replaces in texts after Markdown has taken the backslashes away."""


@pytest.mark.parametrize(
    "text",
    [
        *("https://example.org/a", "HTTP://a.b", "www.example.org", "me@example.org"),
        *(":streamlit:", ":smile:", ":+1:", ":material/home:", ":a:b:c:"),
        *("a -> b", "<- b", "<-> b", "a -- b", "a --- b", "--->", ">= 1", "<= 1", "~= 1"),
    ],
)
def test_no_link_icon_or_arrow_is_made_of_a_text(text: str) -> None:
    """Nothing is left for Streamlit to replace, and without the joiners the letters are the same."""
    assert any(pattern.search(text) for pattern in REPLACED)
    shown = html.unescape(re.sub(r"</?p>", "", MarkdownIt("commonmark").render(plain(text))))
    assert not any(pattern.search(shown) for pattern in REPLACED)
    assert shown.replace("\u2060", "").strip() == text


def test_streamlit_directives_and_formulas_are_disarmed() -> None:
    """Colons, brackets and dollars carry a backslash, so no icon, colour or formula is drawn."""
    assert plain(":red[$x$]") == r"\:red\[\$x\$\]"


def test_percent_has_one_decimal_and_its_interval() -> None:
    """A share reads as percent with its interval, and a missing one as a dash."""
    assert percent(0.931, 0.902, 0.953) == "93.1% (90.2-95.3)"
    assert percent(0.931) == "93.1%"
    assert percent(None, 0.1, 0.2) == "-"


def test_a_figure_that_is_no_rate_is_not_shown_as_percent() -> None:
    """MCC keeps its sign and three decimals."""
    assert figure_text("mcc", Figure(-0.25, -0.4, -0.1, 50)) == "-0.250 (-0.400 to -0.100)"
    assert figure_text("recall", Figure(0.5, 0.25, 0.75, 8)) == "50.0% (25.0-75.0)"
    assert figure_text("mcc", Figure(None, None, None, 0, "no rows")) == "-"


def test_small_and_large_times_keep_the_digits_that_count() -> None:
    """Microseconds are not rounded to zero and minutes are not written in seconds."""
    assert milliseconds(0.01379) == "0.014 ms"
    assert milliseconds(3.2091) == "3.21 ms"
    assert milliseconds(1240.2) == "1,240 ms"
    assert [duration(s) for s in (0.42, 42.4, 200, 7200, 7500)] == [
        "0.4 s",
        "42 s",
        "3 min 20 s",
        "2 h",
        "2 h 5 min",
    ]
    assert duration(None) == milliseconds(None) == "-"
    assert [megabytes(size) for size in (2_300, 23_015_991)] == ["2.3 kB", "23.0 MB"]


def test_progress_says_how_far_how_fast_and_how_long() -> None:
    """A run's progress names rows, rate, time left and errors; none yet says so."""
    progress = Progress(1_000, 3_000, 2, 10, 2.4, 412.3, 4.85)
    assert progress_text(progress, 3_000) == (
        "1,000 of 3,000 rows, 412 rows/s, 4.8 s left, 2 errors"
    )
    assert progress_text(None, 3_000) == "0 of 3,000 rows, getting ready"


def test_segments_join_to_the_text_and_know_their_spans() -> None:
    """Spans that overlap are cut where one begins or ends; nothing is lost or doubled."""
    text = "abcdefghij"
    found = segments(text, [(2, 6), (4, 8)])
    assert "".join(segment.text for segment in found) == text
    assert [(segment.text, segment.spans, segment.begins) for segment in found] == [
        ("ab", (), ()), ("cd", (0,), (0,)), ("ef", (0, 1), (1,)), ("gh", (1,), ()), ("ij", (), ()),
    ]  # fmt: skip
    assert segments("", []) == []


def test_spans_are_marked_and_joined_where_they_touch() -> None:
    """Overlapping and touching spans give one pair of marks; no letter is lost."""
    assert marked("0123456789abcdef", [(8, 12), (0, 3), (2, 5), (5, 6)]) == "⟦012345⟧67⟦89ab⟧cdef"
    assert marked("text", []) == "text"


def test_a_chart_shows_a_name_letter_by_letter() -> None:
    """Markup and Plotly's own fields are disarmed in labels."""
    assert label("<b>%{x}</b> & \u200b") == "&lt;b&gt;% {x}&lt;/b&gt; &amp; ⟨U+200B⟩"
