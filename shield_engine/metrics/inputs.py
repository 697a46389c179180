"""Labels, scores and groups as arrays that were checked; bad rows are named in the error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from shield_engine.statistics.arrays import Floats, Ints


__all__ = [
    "binary_input",
    "check_number",
    "check_values",
    "class_column",
    "group_codes",
    "multiclass_input",
    "number_column",
    "ratio",
]

_SHOWN_VALUES = 5


def binary_input(labels: ArrayLike, scores: ArrayLike) -> tuple[Ints, Floats]:
    """Return labels of 0 and 1, and scores within 0..1.

    Raises:
        ValueError: A value does not fit, or the arrays differ in length.
    """
    truth = class_column("labels", labels, 2)
    risk = number_column("scores", scores, len(truth))
    check_values("scores", risk, (risk >= 0) & (risk <= 1), "within 0..1")
    return truth, risk


def multiclass_input(
    labels: ArrayLike, probabilities: ArrayLike, n_classes: int
) -> tuple[Ints, Floats]:
    """Return labels below `n_classes`, and probabilities of shape (n, n_classes).

    Raises:
        ValueError: A value does not fit, or the shapes do not.
    """
    truth = class_column("labels", labels, n_classes)
    shares = np.asarray(probabilities, dtype=np.float64)
    if not len(truth) and not shares.size:
        shares = np.zeros((0, n_classes))
    if shares.shape != (len(truth), n_classes):
        raise ValueError(
            f"probabilities need shape {(len(truth), n_classes)} for {len(truth)} labels and "
            f"{n_classes} classes, got {shares.shape}"
        )
    fits = np.all((shares >= 0) & (shares <= 1), axis=1)
    check_values("probabilities", shares, np.asarray(fits), "within 0..1")
    return truth, shares


def class_column(name: str, values: ArrayLike, n_classes: int) -> Ints:
    """Return `values` as class indices.

    Raises:
        ValueError: Something else than a whole number 0..n_classes - 1 is among them.
    """
    given = np.asarray(values)
    if given.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {given.shape}")
    known = np.isin(given, np.arange(n_classes))
    check_values(name, given, known, f"whole numbers 0..{n_classes - 1}")
    return given.astype(np.int64)


def number_column(name: str, values: ArrayLike, n: int) -> Floats:
    """Return `values` as `n` numbers.

    Raises:
        ValueError: Their number is another, or one is NaN.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.shape != (n,):
        raise ValueError(f"{name} needs shape ({n},), one entry per label, got {given.shape}")
    check_values(name, given, ~np.isnan(given), "numbers")
    return given


def group_codes(groups: ArrayLike, n: int) -> Ints:
    """Return the group of each row as 0..g-1, numbered in the order of the sorted names.

    Raises:
        ValueError: There is not one entry per row, or a row has none.
    """
    given = np.asarray(groups)
    if given.dtype == object and any(name is None for name in given.reshape(-1)):
        raise ValueError("a row has no group; give it one of its own, such as its row id")
    if given.shape != (n,):
        raise ValueError(f"groups needs shape ({n},), one entry per label, got {given.shape}")
    return np.unique(given, return_inverse=True)[1].reshape(-1)


def check_number(name: str, value: float) -> None:
    """Raise a `ValueError` if `value` is NaN."""
    if np.isnan(value):
        raise ValueError(f"{name} is not a number; give the score at which a row is flagged")


def ratio(above: ArrayLike, below: ArrayLike) -> Floats:
    """Divide, with NaN where the divisor is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    quotient = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=quotient, where=bottom != 0)
    return quotient


def check_values(
    name: str, values: NDArray[np.generic], fits: NDArray[np.bool_], wanted: str
) -> None:
    """Raise an error that names the first rows whose value does not fit."""
    if bool(fits.all()):
        return
    bad = np.flatnonzero(~fits)
    shown = ", ".join(f"row {row}: {values[row]}" for row in bad[:_SHOWN_VALUES].tolist())
    more = f" and {len(bad) - _SHOWN_VALUES} more" if len(bad) > _SHOWN_VALUES else ""
    raise ValueError(
        f"{name} must be {wanted}; {shown}{more}. Leave rows without a valid value out, "
        "and count them as errors."
    )
