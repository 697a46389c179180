"""One mode of a run made ready for any threshold: sorted once, asked often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.decide.thresholds import ScoreColumn
from shield_engine.decide.views import ModeView

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Lab", "lab_of", "nearest_rows"]


@dataclass(frozen=True)
class Lab:
    """One mode of a run, ready for any threshold.

    Attributes:
        view: Every scored row as the mode sees it.
        column: The labelled ones, sorted.
        rows: Positions of the labelled rows in `view`.
        units: What each labelled row belongs to when rows are split: its group, or its text.
        groups: Group of each labelled row; `None` if no row has one.
    """

    view: ModeView
    column: ScoreColumn
    rows: NDArray[np.int64]
    units: NDArray[Any]
    groups: NDArray[np.int64] | None

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of the labelled rows."""
        return self.view.labels[self.rows]

    @property
    def risk(self) -> NDArray[np.float64]:
        """Scores of the labelled rows."""
        assert self.view.risk is not None  # noqa: S101 - `lab_of` takes two classes only
        return self.view.risk[self.rows]

    @property
    def has_both(self) -> bool:
        """True if there are risky and harmless rows."""
        return bool(len(self.column.risky) and len(self.column.harmless))


def lab_of(view: ModeView, units: NDArray[Any], groups: NDArray[np.int64] | None) -> Lab:
    """Return a two-class mode ready for any threshold.

    Args:
        view: The mode's view of all scored rows.
        units: What each row belongs to when rows are split, in the view's order.
        groups: Group of each row in that order; `None` if no row has one.
    """
    assert view.risk is not None  # noqa: S101 - three classes have no threshold
    rows = np.flatnonzero(view.counts)
    kept = None if groups is None else groups[rows]
    return Lab(
        view=view,
        column=ScoreColumn.of(view.labels[rows], view.risk[rows], kept),
        rows=rows,
        units=units[rows],
        groups=kept,
    )


def nearest_rows(view: ModeView, threshold: float, count: int = 5) -> tuple[list[int], list[int]]:
    """Return positions of the rows just below and just above a threshold, nearest first."""
    assert view.risk is not None  # noqa: S101 - three classes have no threshold
    found = []
    for is_side in (view.risk < threshold, view.risk >= threshold):
        places = np.flatnonzero(is_side & view.is_scored)
        distance = np.abs(view.risk[places] - threshold)
        if len(places) > count:
            near = np.argpartition(distance, count)[:count]
            places, distance = places[near], distance[near]
        found.append(places[np.argsort(distance, kind="stable")].tolist())
    return found[0], found[1]
