"""Cascades over stored scores: what a chain of guards decides, costs and lets through, and the best.

The bands are searched over quantiles of scores on half of the rows and judged on the other half.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shield_engine.config import check_share
from shield_engine.decide.candidates import Candidate, align
from shield_engine.decide.column import ScoreColumn
from shield_engine.decide.splits import split
from shield_engine.decision import MOST_STAGES, Stage, check_cascade, stage_risk
from shield_engine.errors import ConfigError
from shield_engine.policy import Policy
from shield_engine.statistics.intervals import clopper_pearson_bounds
from shield_engine.store import RunInfo, Store
from shield_engine.types import Mode, Task, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shield_engine.statistics.arrays import Floats, Mask

__all__ = [
    "Aim",
    "Cascade",
    "CascadeChoice",
    "CascadeFigures",
    "Chain",
    "StageSource",
    "cascade_figures",
    "cascade_policy",
    "chain_of",
    "choose_cascade",
    "sources_of",
]

_SHARES = {1: np.linspace(0, 1, 12), 2: np.array([0.0, 0.2, 0.5, 1.0]), 3: np.array([0.2, 0.8])}
"""Shares of the errors allowed that a band may make, by the number of stages with bands: with
"off", that is 169, 625 or 729 sets of bands."""


@dataclass(frozen=True, slots=True)
class StageSource:
    """Where a stage's scores are stored: a part of a run."""

    run_id: str
    stage: Stage
    price_per_1000: float = 0.0


@dataclass(frozen=True)
class Chain:
    """The stages' scores of the same rows.

    Attributes:
        sources: In the order in which they are asked.
        risks: Of each stage on each row, shape (stages, n); NaN where it failed.
        ms: Likewise, what that took; NaN where the cache answered.
        labels: 1 for risky rows, 0 for harmless ones, -1 without a label.
        units: What each row belongs to when rows are split.
        groups: Group of each row; `None` if rows are independent.
        row_index: Of each row in the first run's dataset.
    """

    task: Task
    sources: tuple[StageSource, ...]
    risks: Floats
    ms: Floats
    labels: NDArray[np.int64]
    units: NDArray[Any]
    groups: NDArray[np.int64] | None
    row_index: NDArray[np.int64]

    def rows(self, chosen: Mask) -> Chain:
        """Return some of the rows."""
        return replace(
            self,
            risks=self.risks[:, chosen],
            ms=self.ms[:, chosen],
            labels=self.labels[chosen],
            units=self.units[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            row_index=self.row_index[chosen],
        )


@dataclass(frozen=True, slots=True)
class Cascade:
    """Stages with their bands, and the threshold of the last."""

    stages: tuple[Stage, ...]
    threshold: float

    def risk(self, risks: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return each row's risk, NaN where a stage that was asked failed, and who was asked.

        Args:
            risks: Of each stage, shape (stages, n).

        Returns:
            Shapes (n,) and (stages, n).
        """
        result = np.full(risks.shape[1], np.nan)
        asked = np.zeros(risks.shape, dtype=bool)
        is_open = np.ones(risks.shape[1], dtype=bool)
        for place, (stage, scores) in enumerate(zip(self.stages, risks, strict=True)):
            asked[place] = is_open
            is_last = place == len(self.stages) - 1
            ended = scores if is_last else stage_risk(stage, scores, self.threshold)
            result[is_open] = ended[is_open]
            is_open = is_open & np.isnan(ended) & ~np.isnan(scores)
        return result, asked


@dataclass(frozen=True, slots=True)
class CascadeFigures:
    """What a cascade gives on some rows.

    Attributes:
        tp: Risky rows flagged; so `fp`, `fn` and `tn`.
        errors: Rows on which a stage that was asked failed.
        recall_bound: Recall proved at least, one-sided; `None` without risky rows.
        fpr_bound: False positive rate proved at most, likewise.
        reached: Share of the rows that asks each stage.
        mean_ms: Mean time of a text, from rows that no cache answered; `None` without any.
        price_per_1000: Of a thousand texts.
    """

    tp: int
    fp: int
    fn: int
    tn: int
    errors: int
    recall_bound: float | None
    fpr_bound: float | None
    reached: tuple[float, ...]
    mean_ms: float | None
    price_per_1000: float

    @property
    def recall(self) -> float | None:
        """Share of risky rows flagged."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def fpr(self) -> float | None:
        """Share of harmless rows flagged."""
        return self.fp / (self.fp + self.tn) if self.fp + self.tn else None


@dataclass(frozen=True, slots=True)
class Aim:
    """What a cascade is chosen for: the lowest cost at which both limits are proved."""

    recall: float = 0.8
    fpr: float = 0.01
    cost: Literal["latency", "price"] = "latency"
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_share("recall of a cascade", self.recall)
        check_share("FPR of a cascade", self.fpr)

    @property
    def title(self) -> str:
        """In words, as a policy keeps it."""
        return (
            f"lowest {self.cost} with recall at least {self.recall:.3g} and FPR at most "
            f"{self.fpr:.3g}, each at {self.confidence:.0%} confidence"
        )

    def is_met(self, figures: CascadeFigures) -> bool:
        """Return whether rows prove both limits."""
        recall, fpr = figures.recall_bound, figures.fpr_bound
        return None not in {recall, fpr} and recall >= self.recall and fpr <= self.fpr  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class CascadeChoice:
    """The cascade chosen on half of the rows, and what the other half says.

    Attributes:
        cascade: `None` if none reaches the aim on the choosing rows.
        chosen: Its figures there.
        judged: Its figures on the other half, which never saw the choice.
        holds: True if the other half proves the aim, too.
        problem: Why there is none, or why it does not hold; empty if all is well.
        frontier: Cascades that no other beats in recall, latency and price at once under the limit
            of FPR, as the choosing rows say, with their figures on the other half; cheapest first.
    """

    cascade: Cascade | None
    chosen: CascadeFigures | None
    judged: CascadeFigures | None
    holds: bool
    problem: str
    frontier: tuple[tuple[Cascade, CascadeFigures], ...]


def sources_of(run: RunInfo) -> list[StageSource]:
    """Return the stages that a run's stored scores can play, and an engine can ask."""
    if run.is_given or run.task is Task.SENTIMENT or run.settings.get("rules_file"):
        return []
    sources, stamp = [], run.stamp
    if "heuristic" in run.parts and not run.settings.get("disabled_rules"):
        rules = Stage("rules", version=stamp["rules_version"])
        sources.append(StageSource(run.run_id, rules))
        if stamp.get("linear_version"):
            linear = Stage("linear", version=stamp["linear_version"])
            sources.append(StageSource(run.run_id, linear))
    guard, variant = stamp.get("guard"), Variant(run.variant) if run.variant else None
    if guard and guard["kind"] != "cascade":
        stage = Stage(
            "guard", guard["name"], version=guard["version"] or None, sha256=run.model_sha256
        )
        sources.append(StageSource(run.run_id, stage, float(guard["price_per_1000"])))
    elif run.model_id and not guard:
        stage = Stage("model", run.model_id, variant, sha256=run.model_sha256)
        sources.append(StageSource(run.run_id, stage))
    return sources


def chain_of(store: Store, sources: Sequence[StageSource], *, intersect: bool = False) -> Chain:
    """Return the stages' stored scores, row by row.

    Raises:
        ConfigError: There are too few or too many stages, or their rows differ; see `align`.
    """
    if not 2 <= len(sources) <= MOST_STAGES:
        raise ConfigError(f"a cascade has 2 to {MOST_STAGES} stages, got {len(sources)}")
    outside = {"model": Mode.ML, "guard": Mode.ML}
    candidates = [
        Candidate(source.run_id, outside.get(source.stage.part, Mode.HEURISTIC))
        for source in sources
    ]
    aligned = align(store, candidates, intersect=intersect)
    risks, times = [], []
    for source, view in zip(sources, aligned.views, strict=True):
        risk, ms = view.score, view.latency_ms
        if source.stage.part == "linear":
            if view.scores.linear is None:
                raise ConfigError(f"run {source.run_id} has no score of the linear tier")
            risk, ms = view.scores.linear, view.scores.parts_ms["linear_ms"]
        risks.append(risk)
        times.append(ms)
    first = sources[0].run_id
    places = np.searchsorted(store.runs.scores(first).row_index, aligned.row_index)
    return Chain(
        task=aligned.views[0].task,
        sources=tuple(sources),
        risks=np.vstack(risks),
        ms=np.vstack(times),
        labels=aligned.views[0].labels,
        units=store.runs.units(first)[places],
        groups=aligned.groups,
        row_index=aligned.row_index,
    )


def cascade_figures(chain: Chain, cascade: Cascade, confidence: float = 0.95) -> CascadeFigures:
    """Return what a cascade gives on the rows of a chain; groups count what they are worth."""
    risk, asked = cascade.risk(chain.risks)
    rows = ~np.isnan(risk) & (chain.labels >= 0)
    column = ScoreColumn.of(
        chain.labels[rows],
        (risk[rows] >= cascade.threshold).astype(np.float64),
        None if chain.groups is None else chain.groups[rows],
    )
    counts = column.at(0.5)
    recall, fpr = (_bound(column, label, confidence) for label in (1, 0))
    mean_ms, price, reached = _costs(chain, asked)
    tp, fp, fn, tn = (int(cell[0]) for cell in counts.cells)
    errors = int(np.isnan(risk).sum())
    return CascadeFigures(tp, fp, fn, tn, errors, recall, fpr, reached, mean_ms, price)


def choose_cascade(chain: Chain, aim: Aim, *, seed: int = 7) -> CascadeChoice:
    """Return the cheapest cascade that reaches the aim on half of the rows, judged on the others.

    Rows that a stage failed on or that lack a label choose and judge nothing.
    """
    chain = chain.rows((chain.labels >= 0) & ~np.isnan(chain.risks).any(axis=0))
    if len(np.unique(chain.labels)) < 2:
        return CascadeChoice(None, None, None, False, "both classes are needed", ())
    if aim.cost == "latency" and (untimed := np.isnan(chain.ms).all(axis=1)).any():
        titles = [chain.sources[place].stage.title for place in np.flatnonzero(untimed)]
        problem = (
            f"no time of {', '.join(titles)} was measured; score the rows anew, or go by price"
        )
        return CascadeChoice(None, None, None, False, problem, ())
    is_choosing = split(chain.units, chain.labels, seed=seed)
    choosing, judging = chain.rows(is_choosing), chain.rows(~is_choosing)
    tried = list(_tried(choosing, aim))
    best = min(
        (trial for trial in tried if trial.is_fit),
        key=lambda trial: (trial.cost(aim), -trial.caught),
        default=None,
    )
    frontier = tuple(
        (trial.cascade, cascade_figures(judging, trial.cascade, aim.confidence))
        for trial in _undominated(tried)
    )
    if best is None:
        problem = (
            f"no cascade of these stages proves {aim.title} on the {len(choosing.labels):,} rows it "
            "is chosen on: more rows prove more, or ask for less"
        )
        return CascadeChoice(None, None, None, False, problem, frontier)
    chosen, judged = (
        cascade_figures(rows, best.cascade, aim.confidence) for rows in (choosing, judging)
    )
    holds = aim.is_met(judged)
    problem = "" if holds else "the rows that did not choose it do not prove the aim"
    return CascadeChoice(best.cascade, chosen, judged, holds, problem, frontier)


def cascade_policy(
    chain: Chain, choice: CascadeChoice, aim: Aim, name: str, *, note: str = "", seed: int = 7
) -> Policy:
    """Return a chosen cascade as a policy with the evidence it rests on.

    Raises:
        ConfigError: Nothing was chosen, or the name cannot be used.
    """
    if choice.cascade is None or choice.judged is None or choice.chosen is None:
        raise ConfigError(f"there is no cascade to save: {choice.problem}")

    def plain(figures: CascadeFigures) -> dict[str, Any]:
        return {name: getattr(figures, name) for name in (*_KEPT, "recall", "fpr")}

    check_cascade(f"policy {name}", choice.cascade.stages, choice.cascade.threshold)
    return Policy(
        name=name.strip(),
        task=chain.task,
        mode=Mode.ML,
        threshold=choice.cascade.threshold,
        cascade=choice.cascade.stages,
        note=note.strip(),
        evidence={
            "runs": [source.run_id for source in chain.sources],
            "rows": len(chain.labels),
            "chosen_by": aim.title,
            "seed": seed,
            "chosen": plain(choice.chosen),
            "judged": plain(choice.judged) | {"holds": choice.holds},
        },
    )


_KEPT = tuple(CascadeFigures.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class _Trial:
    """A cascade tried on the choosing rows."""

    cascade: Cascade
    caught: int
    mean_ms: float
    price: float
    is_fit: bool

    def cost(self, aim: Aim) -> tuple[float, float]:
        """Return what the aim makes low, then the other cost."""
        costs = (self.mean_ms, self.price)
        return costs if aim.cost == "latency" else costs[::-1]


def _tried(chain: Chain, aim: Aim) -> Iterator[_Trial]:
    """Yield every set of bands with the lowest threshold that keeps the limit of FPR proved."""
    is_risky = chain.labels == 1
    risky, harmless = int(is_risky.sum()), int((~is_risky).sum())
    most_alarms = _most_alarms(harmless, aim.fpr, aim.confidence)
    most_missed = _most_alarms(risky, 1 - aim.recall, aim.confidence)
    last = chain.risks[-1]
    order = np.argsort(-last, kind="stable")
    ordered = last[order]
    # The last row of each distinct score: a threshold there flags every row up to it.
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True) & (ordered > 0))
    stages = [source.stage for source in chain.sources]
    grids = [
        _bands(stage, risk, is_risky, aim, len(stages) - 1)
        for stage, risk in zip(stages[:-1], chain.risks, strict=False)
    ]
    for banded in product(*grids):
        chained = Cascade((*banded, stages[-1]), 1.0)
        risk, asked = chained.risk(chain.risks)
        is_ended = ~asked[-1]
        is_stopped = is_ended & (risk >= 1.0)
        is_next = asked[-1][order]
        alarms = int((is_stopped & ~is_risky).sum()) + np.cumsum(is_next & ~is_risky[order])[ends]
        caught = int((is_stopped & is_risky).sum()) + np.cumsum(is_next & is_risky[order])[ends]
        place = int(np.searchsorted(alarms, most_alarms, side="right")) - 1
        if place < 0:
            continue
        mean_ms, price, _ = _costs(chain, asked)
        hits = int(caught[place])
        yield _Trial(
            replace(chained, threshold=float(ordered[ends[place]])),
            hits,
            np.inf if mean_ms is None else mean_ms,
            price,
            risky - hits <= most_missed,
        )


def _bands(stage: Stage, risk: Floats, is_risky: Mask, aim: Aim, stages: int) -> list[Stage]:
    """Return a stage with every pair of bands worth trying, each making a share of the errors."""
    shares = _SHARES[stages]
    passes = np.quantile(risk[is_risky], shares * (1 - aim.recall), method="lower")
    stops = np.quantile(risk[~is_risky], 1 - shares * aim.fpr, method="higher")
    # A band at a score counts that score in: pass below the risky row, flag above the harmless one.
    pass_at = {None, *(float(x) for x in np.nextafter(passes, -1.0) if x >= 0)}
    stop_at = {None, *(float(x) for x in np.nextafter(stops, 2.0) if x <= 1)}
    return [
        replace(stage, pass_at=low, stop_at=high)
        for low in pass_at
        for high in stop_at
        if low is None or high is None or low < high
    ]


def _most_alarms(rows: int, limit: float, confidence: float) -> int:
    """Return how many of `rows` may be wrong with the limit still proved; -1 if none may."""

    def proved(wrong: int) -> float:
        return float(clopper_pearson_bounds(wrong, rows, confidence, "upper")[1])

    return bisect_right(range(rows + 1), limit, key=proved) - 1


def _bound(column: ScoreColumn, label: int, confidence: float) -> float | None:
    """Return the recall that flagged rows prove, or the FPR (label 0); `None` without such rows."""
    if not len(column.risky if label else column.harmless):
        return None
    hits, rows = column.effective(0.5, label)
    low, high = clopper_pearson_bounds(hits, rows, confidence, "lower" if label else "upper")
    return float((low if label else high)[0])


def _costs(chain: Chain, asked: Mask) -> tuple[float | None, float, tuple[float, ...]]:
    """Return mean milliseconds, price of a thousand texts, and the share that asks each stage.

    A stage's time is the mean of those of its texts that no cache answered.
    """
    shares = tuple(float(share) for share in asked.mean(axis=1))
    price = sum(
        share * src.price_per_1000 for share, src in zip(shares, chain.sources, strict=True)
    )
    mean = 0.0
    for share, is_asked, ms in zip(shares, asked, chain.ms, strict=True):
        timed = is_asked & ~np.isnan(ms)
        if is_asked.any() and not timed.any():
            return None, price, shares
        mean += share * float(ms[timed].mean()) if timed.any() else 0.0
    return mean, price, shares


def _undominated(tried: Sequence[_Trial], most: int = 40) -> list[_Trial]:
    """Return the trials that none beats in recall, latency and price at once, fastest first."""
    ordered = sorted(tried, key=lambda trial: (trial.mean_ms, trial.price, -trial.caught))
    front: list[_Trial] = []
    for trial in ordered:
        if not any(other.caught >= trial.caught and other.price <= trial.price for other in front):
            front.append(trial)
    places = np.unique(np.linspace(0, len(front) - 1, min(most, len(front))).astype(int))
    return [front[place] for place in places]
