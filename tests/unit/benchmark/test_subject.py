"""Texts of known lengths, and the proof that counts agree."""

from __future__ import annotations

import pytest

from shield_engine.benchmark.subject import Effort, Subject, Tally, describe
from shield_engine.engine import Shield
from shield_engine.errors import ShieldError
from shield_engine.settings import Settings
from shield_engine.types import Mode


@pytest.fixture
def subject(settings: Settings) -> Subject:
    """Return the bundled samples and registry; no model is loaded."""
    return Subject.of(Shield.create(settings), Effort.quick())


def test_prompts_are_distinct_benign_pieces_of_the_wanted_length(subject: Subject) -> None:
    """Every piece has exactly 200 characters and stands in the benign rows, joined."""
    pieces = subject.prompts(200, 300)
    stream = " ".join(text for text in subject.ordinary() if text.isascii())

    assert len(pieces) == len(set(pieces)) == 300
    assert {len(piece) for piece in pieces} == {200}
    assert all(piece in stream for piece in pieces)


def test_ordinary_traffic_is_the_samples_benign_rows(subject: Subject) -> None:
    """No attack is among them, and they are a proper part of the sample."""
    labels = subject.rows[subject.entry.task]

    assert {labels[text] for text in subject.ordinary()} == {0}
    assert 0 < len(subject.ordinary()) < len(subject.texts())


def test_percentiles_of_the_default_suite_rest_on_enough_calls() -> None:
    """200 calls at least; 368 where p99 shall have an upper end."""
    assert Effort.full().calls >= 368
    assert Effort.full().cheap_calls >= 368
    assert Effort.full().batches >= 368
    assert Effort.quick().calls >= 200


def test_a_tally_accepts_what_the_scanner_counted(subject: Subject) -> None:
    """Two texts, one of them twice: three scans, one of them a hit."""
    scanner = subject.scanner(Mode.HEURISTIC, cache=10)
    for _ in range(2):
        scanner.scan("before the tally")
    tally = Tally(scanner)
    for text in ("a", "b", "a"):
        scanner.scan(text)

    tally.check(scans=3, hits=1)

    assert tally.shares() == {"hit_rate": pytest.approx(1 / 3), "model_asked_share": 0}


@pytest.mark.parametrize(("scans", "hits"), [(2, 1), (4, 1), (3, 0), (3, 2)])
def test_a_tally_refuses_every_other_count(subject: Subject, scans: int, hits: int) -> None:
    """A benchmark that miscounts ends in an error, not in a figure."""
    scanner = subject.scanner(Mode.HEURISTIC, cache=10)
    tally = Tally(scanner)
    for text in ("a", "b", "a"):
        scanner.scan(text)

    with pytest.raises(ShieldError, match=f"timed {scans} scans with {hits} cache hits.*counted 3"):
        tally.check(scans=scans, hits=hits)


def test_scanners_of_a_benchmark_leave_the_engine_alone(subject: Subject) -> None:
    """They are not among the engine's own, and a scanner without a cache never hits."""
    scanner = subject.scanner(Mode.HEURISTIC)
    tally = Tally(scanner)
    scanner.scan("twice")
    scanner.scan("twice")

    tally.check(scans=2, hits=0)
    assert subject.shield.stats().scanners == {}
    assert subject.shield.stats().caches == {}


def test_lengths_are_described_with_duplicates_counted() -> None:
    """Twenty texts of 1 to 19 characters, one of them twice."""
    texts = ["x" * length for length in range(1, 20)] + ["x"]

    assert describe(texts) == {
        "texts": 20,
        "distinct_texts": 19,
        "chars_p5": 1,
        "chars_p50": 10,
        "chars_p95": 19,
        "chars_max": 19,
    }
