"""Which texts are nearly the same: cosine of character four-grams, weighted by rarity.

Bounded: an index holds at most `MOST_INDEXED` rows, and of a text only its first characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from shield_engine.store import Store
from shield_engine.store.rows import stored_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MOST_CHARS",
    "MOST_INDEXED",
    "NEAR_DUPLICATE",
    "Neighbour",
    "NeighbourIndex",
    "neighbour_index",
]

MOST_INDEXED = 20_000
"""Rows of an index; 20,000 texts of 180 characters take about 3 s and 60 MB."""
MOST_CHARS = 2_000
"""Characters of a text that are compared."""
NEAR_DUPLICATE = 0.8
"""Cosine from which two texts count as nearly the same: a word or two differ."""

_FEATURES = 2**18


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A row whose text is like another's.

    Attributes:
        row_index: Which row.
        similarity: Cosine, 0..1.
        label: Its class index; `None` without one.
    """

    row_index: int
    similarity: float
    label: int | None

    @property
    def is_near_duplicate(self) -> bool:
        """True if the texts are nearly the same."""
        return self.similarity >= NEAR_DUPLICATE

    def conflicts_with(self, label: int | None) -> bool:
        """Return whether a near-duplicate with `label` is labelled otherwise than this row."""
        return self.is_near_duplicate and None not in {label, self.label} and label != self.label


@dataclass(frozen=True)
class NeighbourIndex:
    """Texts of a dataset, ready to be searched for those like a given one.

    Attributes:
        row_index: Rows that are held, shape (n,).
        labels: Their class indexes, -1 without one.
        total: Rows of the dataset; more than n if a sample is held.
    """

    row_index: NDArray[np.int64]
    labels: NDArray[np.int64]
    total: int
    _vectorizer: Any
    _weights: Any
    _matrix: Any

    @classmethod
    def of(
        cls,
        row_index: Sequence[int],
        texts: Sequence[str],
        labels: Sequence[int | None],
        total: int | None = None,
    ) -> Self:
        """Return the index of some rows; weights of rare four-grams are those of these rows."""
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        vectorizer = HashingVectorizer(
            analyzer="char_wb", ngram_range=(4, 4), n_features=_FEATURES, alternate_sign=False,
            norm=None, dtype=np.float32,
        )  # fmt: skip
        weights = TfidfTransformer()
        counts = vectorizer.transform([text[:MOST_CHARS] for text in texts])
        return cls(
            row_index=np.asarray(row_index, dtype=np.int64),
            labels=np.array([-1 if label is None else label for label in labels], dtype=np.int64),
            total=len(texts) if total is None else total,
            _vectorizer=vectorizer,
            _weights=weights.fit(counts),
            _matrix=weights.transform(counts).tocsr(),
        )

    @property
    def is_sample(self) -> bool:
        """True if the dataset has rows that are not held."""
        return len(self.row_index) < self.total

    def nearest(self, row_index: int, text: str, count: int = 5) -> list[Neighbour]:
        """Return the rows most like a text but for the row itself, the most similar first.

        Rows that share nothing with it are left out; ties come in row order.
        """
        query = self._weights.transform(self._vectorizer.transform([text[:MOST_CHARS]]))
        similarity = np.asarray((self._matrix @ query.T).todense(), dtype=np.float64).reshape(-1)
        similarity[self.row_index == row_index] = 0.0
        order = np.lexsort((self.row_index, -similarity))[:count]
        return [
            Neighbour(
                int(self.row_index[place]),
                min(1.0, float(similarity[place])),
                None if self.labels[place] < 0 else int(self.labels[place]),
            )
            for place in order
            if similarity[place] > 0
        ]


def neighbour_index(store: Store, dataset_id: str, seed: int = 7) -> NeighbourIndex | None:
    """Return the index of a dataset's texts, of a seeded sample if it has too many.

    Returns:
        `None` if the texts were purged.
    """
    info = store.datasets.find(dataset_id)
    if info.purged:
        return None
    chosen = np.arange(info.rows)
    if info.rows > MOST_INDEXED:
        generator = np.random.default_rng(seed)
        chosen = np.sort(generator.choice(info.rows, MOST_INDEXED, replace=False))
    rows = stored_rows(store, dataset_id, chosen.tolist())
    return NeighbourIndex.of(
        [row.row_index for row in rows],
        [row.text or "" for row in rows],
        [row.label for row in rows],
        info.rows,
    )
