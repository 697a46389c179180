"""Sentiment without a model: VADER's compound score as three probabilities.

Hides the package, its set-up cost and the cut of long texts into pieces.
"""

from __future__ import annotations

import math
import re
from functools import cache
from importlib import metadata
from time import perf_counter
from typing import Any

from shield_engine.heuristics.parts import HeuristicScore, Views
from shield_engine.types import RuleHit, Task

__all__ = ["SHARPNESS", "LexiconPart", "class_probabilities"]

SHARPNESS = 2.0
"""Fitted by maximum likelihood on labelled training rows; decides probabilities, never the label."""

CUT = 0.05
_PIECE_CHARS = 2_000
_MOST_PIECES = 200
_MOST_HITS = 8
_WORD = re.compile(r"[^\W_][\w']*")


class LexiconPart:
    """VADER (Hutto and Gilbert, 2014) from its own package.

    The compound score c becomes weights exp(k(-c - .05)), 1 and exp(k(c - .05)) for negative,
    neutral and positive, so that the most probable label is exactly VADER's at its cuts of +-.05.
    VADER's time grows faster than a text's length, so texts beyond 2,000 characters are scored in
    pieces and their compounds averaged; beyond 200 pieces, evenly spread ones.
    """

    __slots__ = ("task", "version")

    def __init__(self) -> None:
        self.task = Task.SENTIMENT
        self.version = f"vader-{metadata.version('vaderSentiment')}-k{SHARPNESS:g}-p{_PIECE_CHARS}"

    def score(self, text: str, views: Views | None = None) -> HeuristicScore:
        """Return VADER's view of any text; an empty one is neutral."""
        started = perf_counter()
        pieces = _pieces(text)
        ready = perf_counter()
        analyzer = _analyzer()
        compounds = [analyzer.polarity_scores(piece)["compound"] for piece in pieces]
        probabilities = class_probabilities(sum(compounds) / len(compounds) if compounds else 0.0)
        hits = _hits(text[: _PIECE_CHARS * 5], analyzer.lexicon)
        return HeuristicScore(
            probabilities[0],
            probabilities,
            hits,
            (ready - started) * 1_000,
            (perf_counter() - ready) * 1_000,
        )


def class_probabilities(compound: float) -> tuple[float, float, float]:
    """Return P(negative), P(neutral), P(positive) of a compound score in -1..1."""
    cut = CUT
    # On the cut itself VADER gives the polar label; a hair's breadth breaks the tie its way.
    if abs(compound) >= CUT:
        cut = CUT - 1e-9
    weights = (
        math.exp(SHARPNESS * (-compound - cut)),
        1.0,
        math.exp(SHARPNESS * (compound - cut)),
    )
    total = sum(weights)
    return (weights[0] / total, weights[1] / total, weights[2] / total)


@cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def _pieces(text: str) -> list[str]:
    text = text.encode("utf-8", "replace").decode()
    pieces = [text[i : i + _PIECE_CHARS] for i in range(0, len(text), _PIECE_CHARS)]
    if len(pieces) > _MOST_PIECES:
        step = len(pieces) / _MOST_PIECES
        pieces = [pieces[int(index * step)] for index in range(_MOST_PIECES)]
    return [piece for piece in pieces if not piece.isspace()]


def _hits(text: str, lexicon: dict[str, float]) -> tuple[RuleHit, ...]:
    """Return the strongest lexicon words with their spans; valence runs from -4 to 4."""
    words = []
    for match in _WORD.finditer(text):
        valence = lexicon.get(match.group().lower())
        if valence:
            words.append((valence, match))
    words.sort(key=lambda item: (-abs(item[0]), item[1].start()))
    return tuple(
        RuleHit(
            f"vader.{match.group().lower()}",
            "negative_word" if valence < 0 else "positive_word",
            f"VADER's lexicon gives this word a valence of {valence:+.1f} on a scale of -4 to 4",
            min(abs(valence) / 4, 1.0) if valence < 0 else 0.0,
            match.start(),
            match.end(),
        )
        for valence, match in words[:_MOST_HITS]
    )
