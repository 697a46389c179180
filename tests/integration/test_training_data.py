"""Texts written for training: well-formed, all different, and no public test row among them."""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "datasets" / "training"
FILES = sorted(FOLDER.glob("*.jsonl"))
SHINGLE_WORDS = 8


def folded(text: str) -> list[str]:
    """Return the words of a text without case, accents of compatibility and punctuation."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def shingles(words: list[str]) -> set[str]:
    """Return every run of eight words."""
    last = len(words) - SHINGLE_WORDS + 1
    return {" ".join(words[start : start + SHINGLE_WORDS]) for start in range(max(0, last))}


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Return the rows of a JSON Lines file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rows_are_whole_and_different(path: Path) -> None:
    """Each row has a text; no two of a file are equal after folding."""
    seen = set()
    for number, row in enumerate(rows(path), start=1):
        assert row["text"].strip(), f"{path.name}:{number}"
        key = " ".join(folded(row["text"])) or row["text"]
        assert key not in seen, f"{path.name}:{number} repeats {row['text'][:60]!r}"
        seen.add(key)
    assert len(seen) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_labels_fit_the_file(path: Path) -> None:
    """Attacks bear label 1 where rows bear one; frames say whether they are neutral."""
    for row in rows(path):
        if path.stem == "attack_frames":
            assert isinstance(row["neutral"], bool)
            assert row["text"].count("{request}") == 1
        elif path.stem.startswith("attack_"):
            assert row["label"] == 1
            assert row["language"]
        elif path.stem.startswith("benign_"):
            assert row["label"] == 0
            assert row["language"]


def test_no_row_is_a_public_test_row_or_near_one(shared_data: Path) -> None:
    """No text equals an evaluation row after folding, or shares half of its 8-word runs with one."""
    known, runs = set(), set()
    for path in sorted((shared_data / "eval").glob("*/*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                words = folded(json.loads(line)["text"])
                known.add(" ".join(words))
                runs |= shingles(words)
    assert len(known) > 20_000
    for path in FILES:
        for row in rows(path):
            words = folded(row["text"])
            assert " ".join(words) not in known, row["text"][:80]
            own = shingles(words)
            assert 2 * len(own & runs) < len(own) or not own, row["text"][:80]
