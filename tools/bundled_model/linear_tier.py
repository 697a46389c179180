"""Fit hybrid's middle tier, and set it so that its band loses almost no attack.

The tier learns from the rows of the shared model. Its scores are then shifted so that at
`SAFE_BAND` it lets pass what may pass: of the held-out attacks, those that only the model finds and
the tier would not show to it are at most `MOST_LOST`, at 95% confidence.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shield_engine.config import SAFE_BAND, MLConfig
from shield_engine.engine import Shield
from shield_engine.errors import TrainingError
from shield_engine.heuristics import heuristic_for
from shield_engine.heuristics.linear import BUCKETS, LONGEST, LinearTier, features
from shield_engine.statistics.intervals import clopper_pearson
from shield_engine.types import Task
from tools.bundled_model.mixture import Mixture, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_LOST", "BandReport", "fit_linear", "make_tier", "place_band", "store_linear"]

logger = logging.getLogger(__name__)

MOST_LOST = 0.005
_STRENGTH = 1.0  # inverse of the L2 penalty; 10 lets a third less pass
_ITERATIONS = 100
_FEWEST_ATTACKS = 600


@dataclass(frozen=True, slots=True)
class BandReport:
    """What the band lets pass on held-out rows.

    Attributes:
        attacks: Risky rows.
        lost: Those that only the model finds and the tier keeps from it.
        bound: Upper end of the share lost, one-sided, 95%.
        harmless: Harmless rows.
        passed: Share of them that ends without the model.
        frontier: Share passed by share of attacks lost, as counted.
    """

    attacks: int
    lost: int
    bound: float
    harmless: int
    passed: float
    frontier: dict[float, float]


def make_tier(task: Task, mixture: Mixture, shield: Shield, path: Path) -> BandReport:
    """Fit the tier of a task, place its band on the held-out rows and write it to `path`.

    Args:
        task: Injection or toxicity.
        mixture: Rows of the shared model.
        shield: Its rules and its model say which attacks the tier could lose.
        path: Where the weights go; `weights_path(task)` for the bundled ones.

    Raises:
        TrainingError: Too few attacks to bound the loss.
    """
    heads = [task.value, *(["identity_hate"] if task is Task.TOXICITY else [])]
    tier = fit_linear(task, [row for head in heads for row in mixture.training[head]])
    held_out = [row for head in heads for row in mixture.validation[head]]
    entry = shield.entry_for(task, MLConfig.evaluation())
    part, rules = shield.model_part(entry), heuristic_for(task)
    limit = part.thresholds["ml"]

    def judge(row: Row) -> tuple[float, bool]:
        is_silent = rules.score(row.text).score <= 0
        finds = row.label == 1 and is_silent and part.infer(row.text).score >= limit
        return tier.score(row.text) if is_silent else 1.0, finds

    with ThreadPoolExecutor(shield.settings.workers) as pool:
        scores, is_only_models = map(np.array, zip(*pool.map(judge, held_out), strict=True))
    is_risky = np.array([row.label == 1 for row in held_out])
    cut, report = place_band(scores, is_risky, is_only_models)
    store_linear(tier, cut, path)
    logger.info("%s: %s", task, report)
    return report


def fit_linear(task: Task, rows: Sequence[Row]) -> LinearTier:
    """Return a tier fitted by logistic regression to the labels of `rows`; two classes.

    Raises:
        TrainingError: A class is absent.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    labels = np.array([row.label for row in rows])
    if len(set(labels.tolist())) != 2:
        raise TrainingError("a linear tier needs rows of both classes")
    rows_features = [features(row.text[:LONGEST]) for row in rows]
    ends = np.cumsum([0, *map(len, rows_features)])
    values = np.repeat(
        np.array([1 / math.sqrt(max(len(buckets), 1)) for buckets in rows_features], np.float32),
        np.diff(ends),
    )
    matrix = csr_matrix(
        (values, np.concatenate(rows_features).astype(np.int32), ends), shape=(len(rows), BUCKETS)
    )
    del rows_features, values
    matrix.sum_duplicates()
    fitted = LogisticRegression(C=_STRENGTH, max_iter=_ITERATIONS, tol=1e-3).fit(matrix, labels)
    weights = fitted.coef_[0].astype(np.float16).astype(np.float32)
    return LinearTier(task, weights, float(fitted.intercept_[0]))


def place_band(
    scores: NDArray[np.float64], is_risky: NDArray[np.bool_], is_only_models: NDArray[np.bool_]
) -> tuple[float, BandReport]:
    """Return the highest score that may pass, and what it does on these rows.

    Args:
        scores: The tier's, shape (n,); 1 where the rules found something or the text is too long.
        is_risky: Rows that are attacks.
        is_only_models: Attacks that the model finds and the rules do not.

    Raises:
        TrainingError: Too few attacks to bound the loss.
    """
    attacks, harmless = int(is_risky.sum()), int((~is_risky).sum())
    if attacks < _FEWEST_ATTACKS:
        raise TrainingError(f"{attacks} attacks bound no loss of {MOST_LOST}; {_FEWEST_ATTACKS} do")
    at_stake = np.sort(scores[is_only_models])
    lost = max(
        k
        for k in range(len(at_stake))
        if k == 0 or clopper_pearson(k, attacks, side="upper").high <= MOST_LOST
    )
    # Just below the first attack too many.
    cut = float(np.nextafter(at_stake[lost], 0))
    passing = np.sort(scores[~is_risky])

    def share(limit: float) -> float:
        return float(np.searchsorted(passing, limit, side="right") / harmless)

    frontier = {}
    for part in (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05):
        place = min(int(part * attacks), len(at_stake) - 1)
        frontier[part] = share(float(np.nextafter(at_stake[place], 0)))
    bound = clopper_pearson(lost, attacks, side="upper").high
    return cut, BandReport(attacks, lost, bound, harmless, share(cut), frontier)


def store_linear(tier: LinearTier, cut: float, path: Path) -> LinearTier:
    """Shift a tier so that `cut` becomes `SAFE_BAND`, write it to `path` and return it."""
    shift = math.log(SAFE_BAND / (1 - SAFE_BAND)) - math.log(cut / (1 - cut))
    shifted = LinearTier(tier.task, tier.weights, tier.intercept + shift)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path, weights=shifted.weights.astype(np.float16), intercept=np.float64(shifted.intercept)
    )
    return shifted
