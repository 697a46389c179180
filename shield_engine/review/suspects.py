"""Labels to doubt, by the scores and by the texts most like a row's.

Texts are alike by the cosine of character four-grams, weighted by rarity. Bounded: an index holds
at most `MOST_INDEXED` rows, and of a text only its first characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from shield_engine.store import Scores, Store
from shield_engine.store.rows import stored_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MOST_CHARS",
    "MOST_INDEXED",
    "NEAR_DUPLICATE",
    "Neighbour",
    "NeighbourIndex",
    "Suspect",
    "label_suspects",
    "neighbour_index",
    "with_neighbours",
]

MOST_INDEXED = 20_000
"""Rows of an index; 20,000 texts of 180 characters take about 3 s and 60 MB."""
MOST_CHARS = 2_000
"""Characters of a text that are compared."""
NEAR_DUPLICATE = 0.8
"""Cosine from which two texts count as nearly the same: a word or two differ."""

MOST_SUSPECTS = 200

_FEATURES = 2**18
_NEIGHBOURS = 5
_LEAST_SIMILARITY = 0.3


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
            analyzer="char_wb",
            ngram_range=(4, 4),
            n_features=_FEATURES,
            alternate_sign=False,
            norm=None,
            dtype=np.float32,
        )
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


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label is contradicted.

    Attributes:
        row_index: Which row.
        label: Class index it has.
        suggested: Class index that the scores speak for.
        score: Rank, higher is more suspect; see `label_suspects` and `with_neighbours`.
        shares: Part → probability of the label it has.
        agreeing: Near neighbours that have the suggested label; `None` if none were looked up.
        neighbours: Near neighbours with a label.
    """

    row_index: int
    label: int
    suggested: int
    score: float
    shares: Mapping[str, float]
    agreeing: int | None = None
    neighbours: int = 0


def label_suspects(scores: Scores, most: int = MOST_SUSPECTS) -> list[Suspect]:
    """Return the rows whose label the scores contradict with confidence, most suspect first.

    Confident learning (Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating Uncertainty
    in Dataset Labels", section 3) on the mean probabilities of the parts that the run scored: a row
    is confidently of class j where P(j) reaches the mean P(j) of the rows labelled j, and of
    several such classes the most probable counts. A row is suspect if that class is not its label
    and every part, normalised by the same class means of its own, speaks for that class rather
    than for the label. Its score is P(j) - mean of j minus P(label) - mean of the label: how much
    surer than usual the parts are of the other class.

    Rows without a label or without a score of some part are never suspect, nor is any row where
    one class only occurs or all scores are equal.
    """
    parts = {
        name: probabilities
        for name, probabilities in (("heuristic", scores.heuristic), ("ml", scores.model))
        if probabilities is not None
    }
    usable = np.flatnonzero(
        (scores.labels >= 0)
        & np.logical_and.reduce([~np.isnan(shares[:, 0]) for shares in parts.values()])
    )
    truth = scores.labels[usable]
    present = np.unique(truth)
    if len(present) < 2:
        return []
    used = np.stack([shares[usable] for shares in parts.values()])
    surplus = np.stack([shares - _class_means(shares, truth, present) for shares in used])
    spoken = _confident_class(used.mean(axis=0), surplus.mean(axis=0))
    rows = np.arange(len(usable))
    margins = surplus[:, rows, spoken] - surplus[:, rows, truth]
    # Margins of equal scores may differ from 0 in the last bit.
    places = np.flatnonzero((spoken >= 0) & (spoken != truth) & (margins > 1e-12).all(axis=0))
    score = margins.mean(axis=0)
    order = places[np.lexsort((places, -score[places]))][:most]
    return [
        Suspect(
            row_index=int(scores.row_index[usable[place]]),
            label=int(truth[place]),
            suggested=int(spoken[place]),
            score=float(score[place]),
            shares={
                name: float(shares[place, truth[place]])
                for name, shares in zip(parts, used, strict=True)
            },
        )
        for place in order
    ]


def _class_means(
    shares: NDArray[np.float64], truth: NDArray[np.int64], present: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the mean P(j) of the rows labelled j; infinite for a class that no row has."""
    means = np.full(shares.shape[1], np.inf)
    for label in present:
        means[label] = shares[truth == label, label].mean()
    return means


def _confident_class(
    shares: NDArray[np.float64], surplus: NDArray[np.float64]
) -> NDArray[np.int64]:
    # A mean of equal numbers may differ from them in the last bit.
    confident = np.where(surplus >= -1e-12, shares, -1.0)
    classes: NDArray[np.int64] = confident.argmax(axis=1)
    classes[confident.max(axis=1) < 0] = -1
    return classes


def with_neighbours(
    suspects: Sequence[Suspect], index: NeighbourIndex, texts: Mapping[int, str]
) -> list[Suspect]:
    """Return suspects ranked anew by what the rows most like them are labelled.

    Of the five nearest rows with a label and a similarity of .3 or more, the share that has the
    suggested label raises a score by up to its half, and the share that has the given label lowers
    it by as much.

    Args:
        suspects: From `label_suspects`.
        index: Of the same dataset.
        texts: By row index, of each suspect.
    """
    ranked = []
    for suspect in suspects:
        labelled = [
            near
            for near in index.nearest(suspect.row_index, texts[suspect.row_index], _NEIGHBOURS)
            if near.label is not None and near.similarity >= _LEAST_SIMILARITY
        ]
        agreeing = sum(near.label == suspect.suggested for near in labelled)
        opposing = sum(near.label == suspect.label for near in labelled)
        balance = (agreeing - opposing) / max(1, len(labelled))
        ranked.append(
            replace(
                suspect,
                score=suspect.score * (1 + balance / 2),
                agreeing=agreeing,
                neighbours=len(labelled),
            )
        )
    return sorted(ranked, key=lambda suspect: (-suspect.score, suspect.row_index))
