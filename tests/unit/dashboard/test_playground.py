"""One text through every scanner: tables and marked text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from dashboard.playground.tables import (
    EXAMPLES,
    MAX_CHARS,
    Scan,
    marked_html,
    matches_frame,
    reasons_frame,
    scan_everywhere,
    scans_frame,
    timings_frame,
)
from shield_engine.engine import Shield
from shield_engine.settings import Settings
from shield_engine.types import Entity, Method, Mode, ScanResult, Severity, Task, Timings, Variant

SCRIPT = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Collects the elements and the text of HTML as a browser would read it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and the names of its attributes."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


def entity(start: int, end: int, text: str, kind: str = "override") -> Entity:
    """Return a span of `text`."""
    return Entity(kind, start, end, text[start:end], 0.8, "some-rule")


def read(html: str) -> Reader:
    """Return what a browser would make of `html`."""
    reader = Reader()
    reader.feed(html)
    return reader


@pytest.mark.parametrize(
    "text",
    [
        SCRIPT,
        f'{SCRIPT}" onmouseover="alert(1)',
        "</pre></mark><img src=x onerror=alert(1)>",
        "&lt;",
    ],
)
def test_marked_text_is_text(text: str) -> None:
    """No letter of a hostile text becomes markup, wherever a span cuts it."""
    for start in range(len(text)):
        spans = [entity(start, start + 1, text, kind=f'">{SCRIPT}'), entity(0, len(text), text)]
        seen = read(marked_html(text, spans))
        assert seen.tags == {"pre", "mark", "sup"}
        assert seen.attributes <= {"style", "title"}
    assert read(marked_html(text, [])).text == text


def test_hidden_characters_are_written_out_in_marked_text() -> None:
    """What hides between letters shows, inside a span and outside."""
    text = "a\u200bb\u202ec"
    shown = read(marked_html(text, [entity(1, 2, text)])).text
    assert shown == "a1⟨U+200B⟩b⟨U+202E⟩c"


def test_rules_and_windows_are_marked_apart_and_numbered() -> None:
    """Spans that begin together have their numbers parted; a window looks unlike a rule."""
    text = "one two three"
    html = marked_html(
        text, [entity(0, 3, text), entity(0, 7, text), entity(8, 13, text, kind="window")]
    )
    assert ">1,2</sup>" in html
    styles = re.findall(r'<mark style="([^"]*)"', html)
    assert len(styles) == 3
    assert styles[0] == styles[1] != styles[2]


def test_an_error_of_one_scanner_leaves_the_others_their_rows() -> None:
    """A missing model is a row that says error; timings skip it."""
    good = ScanResult(
        "x", False, 0.8, Severity.HIGH, method=Method.HEURISTIC, timings=Timings(total_ms=0.5),
        metadata={"label": "injection", "threshold": 0.5},
    )  # fmt: skip
    scans = [
        Scan(Task.PROMPT_INJECTION, Mode.HEURISTIC, good),
        Scan(Task.PROMPT_INJECTION, Mode.ML, None, "the model is missing"),
    ]
    frame = scans_frame(scans)
    assert frame["Verdict"].tolist() == ["injection", "error"]
    assert frame["Passes"].tolist()[0] == "no"
    assert frame["Time"].tolist()[0] == "0.50 ms"
    assert timings_frame(scans)["Mode"].tolist() == ["Heuristic"]
    assert timings_frame(scans)["Infer"].tolist() == ["-"]


def test_every_scanner_judges_in_every_mode(settings: Settings) -> None:
    """Twelve results come back, with reasons and spans of the very text; again, all are hits."""
    shield = Shield.create(settings)
    try:
        text = EXAMPLES["A hidden attack"]
        scans = scan_everywhere(shield, text)
        again = scan_everywhere(shield, text)
    finally:
        shield.close()
    assert [(scan.task, scan.mode) for scan in scans] == [(t, m) for t in Task for m in Mode]
    results = [scan.result for scan in scans if scan.result is not None]
    assert len(results) == 12
    assert not any(result.cache_hit for result in results)
    assert all(scan.result is not None and scan.result.cache_hit for scan in again)
    rules = results[0]
    assert not rules.is_valid
    matched = [text[span.start : span.end] for span in rules.entities]
    frame = matches_frame(rules)
    assert [text[a:b] for a, b in zip(frame["From"], frame["To"], strict=True)] == matched
    assert any("⟨U+200B⟩" in shown for shown in frame["Matched"])
    assert reasons_frame(rules)["Score"].is_monotonic_decreasing
    sentiment = scans_frame(scans).query("Scanner == 'Sentiment'")
    assert set(sentiment["Threshold"]) == {"none"}


def test_a_model_that_is_not_there_is_reported_in_its_place(settings: Settings) -> None:
    """Heuristics still answer when the model's variant was not built."""
    shield = Shield.create(settings)
    try:
        scans = scan_everywhere(shield, "hello", Variant.FP32)
    finally:
        shield.close()
    for scan in scans:
        assert (scan.result is None) == (scan.mode is not Mode.HEURISTIC)
        assert bool(scan.error) == (scan.result is None)


def test_examples_fit_the_box() -> None:
    """Each example can be scanned as it is."""
    assert all(0 < len(text) <= MAX_CHARS for text in EXAMPLES.values())
