"""What errors have in common: words, patterns and rules more frequent in them than elsewhere.

Errors are held against the rows of the same class that were decided correctly, so that a word of
the class itself does not stand out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist
from types import MappingProxyType

import numpy as np

from shield_engine.errors import StoreError
from shield_engine.store import Store, StoredRow
from shield_engine.store.rows import (
    RowFilter,
    RowKind,
    Verdicts,
    matching_rows,
    stored_rows,
)

__all__ = ["SIDE_ROWS", "Contrast", "Contrasts", "contrast", "error_contrasts", "patterns", "words"]

SIDE_ROWS = 10_000
"""Rows of each side that are read; more are sampled."""
PRIOR_ROWS = 10.0
"""Weight of the prior, in rows; rare items of a few rows hardly move."""

_MOST_CHARS = 5_000
_LEAST_ERRORS = 2
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_PATTERNS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        name: re.compile(pattern, re.MULTILINE)
        for name, pattern in {
            "a link": r"https?://|www\.",
            "an e-mail address": r"\w@\w",
            "a number of three or more digits": r"\d{3}",
            "code in backticks": r"`[^`]{1,500}`",
            "markup tags": r"<[a-zA-Z/!][^<>]{0,200}>",
            "curly braces": r"[{}]",
            "square brackets": r"[\[\]]",
            "quoted words": r"[\"“„«]",
            "a question mark": r"[?？]",
            "an exclamation mark": r"[!！]",
            "several lines": r"\n",
            "a list": r"^\s{0,8}(?:[-*•]|\d{1,3}[.)])\s",
            "a word in capitals": r"\b[A-Z]{4,}\b",
            "a speaker's name and a colon": r"(?i:\b(?:system|assistant|user|human|ai) ?:)",
            "letters of another script": r"[\u0370-\u1fff\u2c00-\ud7ff\uf900-\ufdff\uff66-\uffdc]",
            "invisible characters": r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]",
            "60 characters without a space": r"\S{60}",
            "a character five times over": r"(\S)\1{4}",
        }.items()
    }
)


@dataclass(frozen=True, slots=True)
class Contrast:
    """One item's part in errors.

    Attributes:
        item: A word, two words in a row, a pattern, a rule or a category.
        errors: Errors that have it.
        others: Correctly decided rows of the same class that have it.
        log_odds: Natural log of the odds ratio, above 0.
        z: `log_odds` over its standard error.
        is_decided: True if z is beyond what the most extreme of all looked-at items would reach by
            chance in 1 of 20 cases (Bonferroni).
    """

    item: str
    errors: int
    others: int
    log_odds: float
    z: float
    is_decided: bool


@dataclass(frozen=True, slots=True)
class Contrasts:
    """What the errors of one class have in common, the strongest first.

    Attributes:
        errors: Errors of the class.
        others: Its correctly decided rows.
        read_errors: How many of the errors were read.
        read_others: How many of the others were read.
        words: Words and pairs of words.
        patterns: Named traits of a text.
        rules: Rules that matched.
        categories: Their categories.
    """

    errors: int
    others: int
    read_errors: int
    read_others: int
    words: tuple[Contrast, ...] = ()
    patterns: tuple[Contrast, ...] = ()
    rules: tuple[Contrast, ...] = ()
    categories: tuple[Contrast, ...] = ()

    @property
    def is_sampled(self) -> bool:
        """True if not every row was read."""
        return self.read_errors < self.errors or self.read_others < self.others


def words(text: str) -> set[str]:
    """Return the words of a text and its pairs of neighbouring words, in lower case."""
    spelt = _WORD.findall(text[:_MOST_CHARS].casefold())
    return {*spelt, *(f"{first} {second}" for first, second in pairwise(spelt))}


def patterns(text: str) -> set[str]:
    """Return the names of the traits that a text has."""
    head = text[:_MOST_CHARS]
    return {name for name, pattern in _PATTERNS.items() if pattern.search(head)}


def contrast(
    errors: Sequence[Collection[str]], others: Sequence[Collection[str]], most: int = 30
) -> tuple[Contrast, ...]:
    """Return the items that are more frequent among errors, the highest z first.

    Log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi, Quinn 2008, "Fightin'
    Words", equations 16 and 18). An item counts once a row, so a long text weighs no more than a
    short one and each count is of rows. The prior is the item's share among all rows given, with
    the weight of 10 rows.

    Args:
        errors: Items of each error.
        others: Items of each row that errors are held against.
        most: Items to return at most.
    """
    if not errors or not others:
        return ()
    in_errors = Counter(item for row in errors for item in set(row))
    in_others = Counter(item for row in others for item in set(row))
    looked_at = [item for item, count in in_errors.items() if count >= _LEAST_ERRORS]
    limit = NormalDist().inv_cdf(1 - 0.05 / max(1, len(looked_at)))
    contrasts = []
    for item in looked_at:
        log_odds, z = _log_odds(in_errors[item], len(errors), in_others[item], len(others))
        if z > 0:
            contrasts.append(
                Contrast(item, in_errors[item], in_others[item], log_odds, z, is_decided=z > limit)
            )
    return tuple(sorted(contrasts, key=lambda entry: (-entry.z, entry.item))[:most])


def _log_odds(first: int, n_first: int, second: int, n_second: int) -> tuple[float, float]:
    # A share of 1 would leave no prior for rows without the item.
    share = min((first + second) / (n_first + n_second), 1 - 1 / (n_first + n_second + 1))
    prior, rest = PRIOR_ROWS * share, PRIOR_ROWS * (1 - share)
    cells = (first + prior, n_first - first + rest, second + prior, n_second - second + rest)
    log_odds = math.log(cells[0] / cells[1]) - math.log(cells[2] / cells[3])
    return log_odds, log_odds / math.sqrt(sum(1 / cell for cell in cells))


def error_contrasts(
    store: Store, verdicts: Verdicts, label: int, *, rows: RowFilter | None = None, seed: int = 7
) -> Contrasts:
    """Return what the errors of one class have in common.

    Args:
        store: Where the run lies.
        verdicts: How its rows are judged.
        label: The class, an index into `Classes.names`: of two, 0 gives false positives and 1
            false negatives.
        rows: A filter that errors and others must pass; its kind and label are set here.
        seed: Of the samples.

    Raises:
        StoreError: The dataset's texts were purged.
    """
    run = verdicts.run
    if store.datasets.find(run.dataset_id).purged:
        raise StoreError(f"the texts of dataset {run.dataset_id} were purged")
    sides, totals = [], []
    for kind in (RowKind.ERRORS, RowKind.CORRECT):
        places = matching_rows(
            store, verdicts, replace(rows or RowFilter(), kind=kind, label=label)
        )
        totals.append(len(places))
        if len(places) > SIDE_ROWS:
            places = np.random.default_rng(seed).choice(places, SIDE_ROWS, replace=False)
        sides.append(stored_rows(store, run.dataset_id, np.sort(places).tolist(), run.run_id))

    def compared(items: Callable[[StoredRow], Collection[str]]) -> tuple[Contrast, ...]:
        errors, others = ([items(row) for row in side] for side in sides)
        return contrast(errors, others)

    return Contrasts(
        errors=totals[0],
        others=totals[1],
        read_errors=len(sides[0]),
        read_others=len(sides[1]),
        words=compared(lambda row: words(row.text or "")),
        patterns=compared(lambda row: patterns(row.text or "")),
        rules=compared(lambda row: row.rules or ()),
        categories=compared(_categories),
    )


def _categories(row: StoredRow) -> set[str]:
    return {hit.category for hit in row.hits}
