"""What an imported dataset looks like, known before any compute is spent on it.

Hides the counting of duplicates and conflicts by text hash, and a rough guess of languages.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

__all__ = ["VERY_LONG_CHARS", "DatasetProfile", "Profiler", "guess_language"]

VERY_LONG_CHARS = 20_000
"""About 5,000 tokens, or ten windows of a 512-token model."""
_LANGUAGE_SAMPLE_CHARS = 300
_IMBALANCE = 0.01


@dataclass(frozen=True, slots=True)
class DatasetProfile:
    """Facts of an imported dataset.

    Attributes:
        rows: Imported rows.
        labelled: Those with a label: all, or none where no label column is mapped.
        class_counts: Rows by class name, every class of the task.
        duplicates: Rows whose exact text occurred before.
        conflicts: Distinct texts that occur with more than one label.
        chars_p50: Median length of a text, in characters.
        chars_p95: Length that 95% of the texts do not exceed.
        chars_max: Length of the longest text.
        very_long: Texts of more than 20,000 characters.
        empty_texts: Texts that are empty or only white space.
        languages: Rows by guessed language or script, most frequent first; `unknown` where a text
            is too short to tell. Rough: stop words and scripts of the first 300 characters.
        warnings: What the user should know before scanning.
    """

    rows: int
    labelled: int
    class_counts: Mapping[str, int]
    duplicates: int
    conflicts: int
    chars_p50: int
    chars_p95: int
    chars_max: int
    very_long: int
    empty_texts: int
    languages: Mapping[str, int]
    warnings: tuple[str, ...]


_SCRIPTS: Sequence[tuple[str, re.Pattern[str]]] = tuple(
    (name, re.compile(f"[{span}]"))
    for name, span in (
        # Japanese before Chinese: kana occur only there, Han characters in both.
        ("japanese", "\u3040-\u30ff"),
        ("korean", "\uac00-\ud7af"),
        ("chinese", "\u4e00-\u9fff"),
        ("cyrillic script", "\u0400-\u04ff"),
        ("arabic script", "\u0600-\u06ff"),
        ("hebrew", "\u0590-\u05ff"),
        ("devanagari script", "\u0900-\u097f"),
        ("thai", "\u0e00-\u0e7f"),
        ("greek", "\u0370-\u03ff"),
    )
)
_MANY_LETTERS = 3

# Words that English shares with another language are left to English, the commonest here.
_STOP_WORDS: Mapping[str, str] = {
    "english": "the of and to is in that it you for with this are on your my have not what how "
    "be can i me please do a an at from was as",
    "german": "der die das und ist nicht ich du ein eine einen zu mit auf für wie bitte sie "
    "den dem von im es alle",
    "french": "le la les et est une un je vous que des du pour dans pas sur avec ce qui mon "
    "votre moi ne",
    "spanish": "el la los las y es una un que de en por para con no mi se tu como lo qué cómo",
    "italian": "il lo la gli e è una un che di per con non mi si tu come del della sono questo",
    "portuguese": "o os e é uma um que de em por para com não meu se você como da isso",
    "dutch": "de het een en niet ik je van voor met op dat wat hoe zijn te mijn alle aan",
    "polish": "w na z nie jest się że jak co mi dla czy proszę wszystkie",
    "turkish": "ve bir bu için ne nasıl ile bana çok değil mi tüm lütfen",
}


def _invert(words: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    languages: dict[str, list[str]] = {}
    for language, text in words.items():
        for word in text.split():
            languages.setdefault(word, []).append(language)
    return MappingProxyType({word: tuple(names) for word, names in languages.items()})


_LANGUAGES_OF = _invert(_STOP_WORDS)
_WORD = re.compile(r"[^\W\d_]+")


def guess_language(text: str) -> str:
    """Guess the language of a text from its first 300 characters.

    A script that tells comes first, then the language with most stop words, at least two, and at
    least a tenth of the words; a tie is `unknown`.
    """
    head = text[:_LANGUAGE_SAMPLE_CHARS].lower()
    if not head.isascii():
        for name, letters in _SCRIPTS:
            if len(letters.findall(head)) >= _MANY_LETTERS:
                return name
    words = _WORD.findall(head)
    votes: Counter[str] = Counter()
    for word in words:
        if word in _LANGUAGES_OF:
            votes.update(_LANGUAGES_OF[word])
    ranked = votes.most_common(2)
    if not ranked or ranked[0][1] < max(2, len(words) // 10):
        return "unknown"
    return "unknown" if len(ranked) > 1 and ranked[0][1] == ranked[1][1] else ranked[0][0]


class Profiler:
    """Counts rows as they are imported; memory grows by some 150 bytes a distinct text."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._first_label: dict[bytes, int | None] = {}
        self._conflicting: set[bytes] = set()
        self._classes: Counter[int] = Counter()
        self._languages: Counter[str] = Counter()
        self._chars = array("q")
        self._duplicates = 0
        self._empty = 0

    def add(self, text: str, digest: bytes, label: int | None) -> None:
        """Count one row.

        Args:
            text: The text.
            digest: A collision-safe hash of it.
            label: Its class index, if it has one.
        """
        self._chars.append(len(text))
        self._empty += not text or text.isspace()
        self._languages[guess_language(text)] += 1
        if label is not None:
            self._classes[label] += 1
        known = self._first_label.setdefault(digest, label)
        if len(self._first_label) + self._duplicates < len(self._chars):
            self._duplicates += 1
            if known != label:
                self._conflicting.add(digest)

    def profile(self, warnings: Sequence[str]) -> DatasetProfile:
        """Return what was counted; `warnings` of the reader come first."""
        rows = len(self._chars)
        chars = np.frombuffer(self._chars, dtype=np.int64) if rows else np.zeros(1, np.int64)
        p50, p95 = np.percentile(chars, (50, 95), method="inverted_cdf")
        labelled = self._classes.total()
        counts = {name: self._classes[index] for index, name in enumerate(self._labels)}
        very_long = int((chars > VERY_LONG_CHARS).sum())
        notes = [*warnings]
        if labelled:
            notes += self._class_warnings(counts, labelled)
        if self._conflicting:
            notes.append(
                f"texts with more than one label: {len(self._conflicting):,}; no scanner can be "
                "right on all of their rows"
            )
        if self._empty:
            notes.append(f"texts that are empty or only white space: {self._empty:,}")
        if very_long:
            notes.append(
                f"texts of more than {VERY_LONG_CHARS:,} characters: {very_long:,}; they are "
                "scanned window by window and take long"
            )
        return DatasetProfile(
            rows=rows,
            labelled=labelled,
            class_counts=MappingProxyType(counts),
            duplicates=self._duplicates,
            conflicts=len(self._conflicting),
            chars_p50=int(p50),
            chars_p95=int(p95),
            chars_max=int(chars.max()),
            very_long=very_long,
            empty_texts=self._empty,
            languages=MappingProxyType(dict(self._languages.most_common())),
            warnings=tuple(notes),
        )

    @staticmethod
    def _class_warnings(counts: Mapping[str, int], labelled: int) -> list[str]:
        absent = [name for name, count in counts.items() if count == 0]
        rare = [
            f"{name} ({count:,})"
            for name, count in counts.items()
            if 0 < count / labelled < _IMBALANCE
        ]
        notes = []
        if absent:
            notes.append(
                f"no row is labelled {' or '.join(absent)}; figures that need every class are "
                "undefined"
            )
        if rare:
            notes.append(f"less than 1% of the rows are {', '.join(rare)}; intervals will be wide")
        return notes
