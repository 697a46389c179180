"""Everything a report says, as one value: figures, comparison, policy, gate, errors, and the stamp.

Built once from stored scores; HTML, Markdown and JSON only write it down.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.datasets import ScoreColumn
from shield_engine.decide.candidates import Candidate, align, candidate_of, candidate_title
from shield_engine.decide.compare import Comparison, compare
from shield_engine.decide.figures import Evaluated, figures_of, scores_table
from shield_engine.decide.views import ModeView, available_modes
from shield_engine.gates import shown
from shield_engine.hostile_text import redacted
from shield_engine.metrics.table import RATES, figure_text, reported_names
from shield_engine.policy import write_policies
from shield_engine.statistics import Figure
from shield_engine.store.rows import stored_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from shield_engine.gates import GateOutcome
    from shield_engine.metrics.figures import LatencySummary
    from shield_engine.policy import Policy
    from shield_engine.store import DatasetInfo, RunInfo, Store

__all__ = [
    "Report",
    "SliceFigures",
    "WorstError",
    "build_report",
    "leaves",
    "scored_rows",
]


_WORST = 5
_MOST_VALUES = 12


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """What is judged, on the rows of one slice value.

    Attributes:
        metrics: Recall, fpr and accuracy (three classes: accuracy) with Wilson intervals.
    """

    column: str
    value: str
    n: int
    metrics: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class WorstError:
    """A row that is decided wrongly, and by how much.

    Attributes:
        kind: `missed`, `false alarm` or, of three classes, `wrong label`.
        text: The row's text, or what identifies it where texts are redacted or purged.
        score: Risk, or probability of the wrong label of three.
        distance: How far on the wrong side of the threshold, or of the right label.
        rules: Ids of the rules that matched.
    """

    kind: str
    row_id: str
    text: str
    label: str
    said: str
    score: float
    distance: float
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A run and what is decided on it.

    Attributes:
        judged: What the report is about.
        modes: Figures of the judged one, then of the run's other modes.
        views: Their verdicts, in that order.
        comparison: The judged one against the run's other modes; `None` where there are none.
        baseline: The judged one against the baseline; `None` without one.
        slices: By column, most rows first.
        errors: The worst misses and false alarms.
        is_redacted: True if texts were replaced.
        seed: Of every resampling.
        commands: How to repeat it, one shell line each.
    """

    run: RunInfo
    dataset: DatasetInfo
    judged: Candidate
    modes: tuple[Evaluated, ...]
    views: tuple[ModeView, ...]
    policy: Policy | None
    comparison: Comparison | None
    baseline: Comparison | None
    gate: GateOutcome | None
    slices: tuple[SliceFigures, ...]
    errors: tuple[WorstError, ...]
    is_redacted: bool
    seed: int
    commands: tuple[str, ...]

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metrics that these classes have, in reading order."""
        return reported_names(len(self.modes[0].labels))

    @property
    def sentence(self) -> str:
        """What the judged way of deciding does on these rows, in a sentence or two."""
        return f"In this run {_sentence(self.modes[0], self.views[0])}"

    @property
    def gaps(self) -> list[str]:
        """What is missing from the figures, a sentence each."""
        missing, gaps = self.run.rows - self.run.rows_done, []
        if missing:
            gaps.append(
                f"{missing:,} of {self.run.rows:,} rows are not scored yet and count in no figure."
            )
        if self.run.errors:
            gaps.append(f"{self.run.errors:,} rows failed in the model and count in no figure.")
        return gaps

    @property
    def figure_rows(self) -> list[list[str]]:
        """Name and each mode's figure, a line a metric; then what was counted and timed."""
        lines: dict[str, Callable[[Evaluated], str]] = {
            name: lambda mode, name=name: figure_text(name, mode.metrics[name], "line")  # type: ignore[misc]
            for name in self.metric_names
        }
        lines["rows scored / errors"] = lambda mode: f"{mode.n:,} / {mode.errors:,}"
        lines["flagged"] = lambda mode: f"{mode.flagged:,}"
        lines["model asked"] = lambda mode: f"{mode.asked:,}"
        lines["p50 / p95 / p99 ms, n"] = lambda mode: _latency_text(mode.latency)
        return [[name, *map(text, self.modes)] for name, text in lines.items()]

    @property
    def methods(self) -> str:
        """How the intervals of the figures came about."""
        methods = {mode.metrics[name].method for mode in self.modes for name in self.metric_names}
        return "; ".join(sorted(methods - {""})) or "none"

    @property
    def comparisons(self) -> list[tuple[str, Comparison]]:
        """What the judged one is compared with, by what to call it."""
        titled = (
            ("Against the baseline", self.baseline),
            ("Against the run's other modes", self.comparison),
        )
        return [(title, compared) for title, compared in titled if compared and compared.pairs]

    @property
    def policy_file(self) -> str:
        """The policy as `shield.toml`; empty without one."""
        return "" if self.policy is None else write_policies([self.policy])

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "format": 1,
            "verdict": self.sentence,
            "run_id": self.run.run_id,
            "task": self.run.task.value,
            "status": self.run.status,
            "rows": self.run.rows,
            "rows_done": self.run.rows_done,
            "errors": self.run.errors,
            "dataset": {
                "id": self.dataset.dataset_id,
                "title": self.dataset.title,
                "source": self.dataset.source,
                "content_hash": self.dataset.content_hash,
                "rows": self.dataset.rows,
                "labelled": self.dataset.labelled,
                "quarantined": self.dataset.quarantined,
            },
            "settings": dict(self.run.settings),
            "stamp": dict(self.run.stamp),
            "seed": self.seed,
            "judged": self.modes[0].title,
            "policy": None if self.policy is None else self.policy.as_document(),
            "modes": [
                {"title": mode.title, "mode": mode.mode.value}
                | mode.as_dict()
                | {"metrics": _with_methods(mode.metrics)}
                for mode in self.modes
            ],
            "comparison": None if self.comparison is None else self.comparison.as_dict(),
            "baseline": None if self.baseline is None else self.baseline.as_dict(),
            "gate": None if self.gate is None else self.gate.as_dict(),
            "slices": [
                {
                    "column": part.column,
                    "value": part.value,
                    "n": part.n,
                    "metrics": _with_methods(part.metrics),
                }
                for part in self.slices
            ],
            "worst_errors": [asdict(error) | {"rules": list(error.rules)} for error in self.errors],
            "is_redacted": self.is_redacted,
            "commands": list(self.commands),
        }


def build_report(
    store: Store,
    judged: Candidate,
    thresholds: Mapping[str, float],
    *,
    policy: Policy | None = None,
    baseline: Candidate | None = None,
    gate: GateOutcome | None = None,
    redact: bool = False,
    seed: int = 7,
) -> Report:
    """Gather what a report says of a run.

    Args:
        store: Where the run lies.
        judged: What the report is about.
        thresholds: Of the run's other modes; .5 where a mode is not named.
        policy: The one that `judged` came from, to show its evidence.
        baseline: What to compare with, on the same rows.
        gate: Its outcome, if one was judged.
        redact: Replace every text by its hash and length.
        seed: Of every resampling.

    Raises:
        ConfigError: The run lacks a part, or the baseline's rows differ.
        UnknownNameError: A run does not exist.
    """
    run = store.runs.find(judged.run_id)
    dataset = store.datasets.find(run.dataset_id)
    others = [
        candidate_of(run, thresholds, mode=mode)
        for mode in available_modes(run)
        if mode is not judged.mode
    ]
    aligned = align(store, [judged, *others])
    modes = tuple(
        figures_of(
            view, groups=aligned.groups, title=_title(candidate, view, run), seed=seed
        ).by_model_of(run)
        for candidate, view in zip(aligned.candidates, aligned.views, strict=True)
    )
    against = None if baseline is None else compare(align(store, [baseline, judged]), seed=seed)
    view = aligned.views[0]
    return Report(
        run=run,
        dataset=dataset,
        judged=judged,
        modes=modes,
        views=aligned.views,
        policy=policy,
        comparison=compare(aligned, seed=seed, resamples=0) if others else None,
        baseline=against,
        gate=gate,
        slices=_slices(store, dataset, view, aligned.groups),
        errors=_worst(store, run, view, redact=redact),
        is_redacted=redact,
        seed=seed,
        commands=_commands(run, dataset, judged, policy, baseline, seed, redact=redact),
    )


def scored_rows(store: Store, report: Report) -> pa.Table:
    """Return every row's scores and what was decided on it, the run's stamp in the metadata.

    Columns are those of `scores_table`, and `judged_score` (risk; null for three classes),
    `judged_verdict`, `is_right` (null without a label). Texts are not among them.
    """
    import json

    import pyarrow as pa

    table = scores_table(store, report.run.run_id, report.judged.bands)
    view = report.views[0]
    names = np.array([*view.label_names, None], dtype=object)
    labelled = view.counts
    if view.risk is not None:
        risk = pa.array(view.risk, mask=np.isnan(view.risk))
    else:
        risk = pa.nulls(len(table), pa.float64())
    table = table.append_column("judged_score", risk)
    table = table.append_column(
        "judged_verdict", pa.array(names[view.predicted].tolist(), pa.string())
    )
    right = pa.array(view.predicted == view.labels, mask=~labelled)
    table = table.append_column("is_right", right)
    stamp = {
        "run_id": report.run.run_id,
        "judged": report.modes[0].title,
        "threshold": view.threshold,
        "stamp": dict(report.run.stamp),
    }
    return table.replace_schema_metadata({"llm_shield": json.dumps(stamp)})


def leaves(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return (name with dots, value as text) of each value of nested plain JSON."""
    lines: list[tuple[str, str]] = []
    for name, value in document.items():
        if isinstance(value, Mapping):
            lines += leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            lines.append((f"{prefix}{name}", ", ".join(map(str, value))))
        elif value is not None:
            lines.append((f"{prefix}{name}", str(value)))
    return lines


def _title(candidate: Candidate, view: ModeView, run: RunInfo) -> str:
    """Return what a column is called; beside a guard, the mode alone would not say whose."""
    at = "" if view.threshold is None else f" at threshold {view.threshold:g}"
    mode = candidate.mode.value
    if run.stamp.get("guard"):
        mode = candidate_title(candidate.mode, run.scorer or "")
    return f"{candidate.title}: {mode}{at}" if candidate.title else f"{mode}{at}"


def _with_methods(figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {name: figure.as_dict() | {"method": figure.method} for name, figure in figures.items()}


def _sentence(mode: Evaluated, view: ModeView) -> str:
    metrics, times = mode.metrics, mode.latency
    speed = ""
    if times.p50 is not None and times.p95 is not None:
        speed = (
            f" Half of the scans take at most {shown(times.p50, 'ms')}, 95% at most "
            f"{shown(times.p95, 'ms')}."
        )
    if not view.counts.any():
        rate = shown(mode.flag_rate, "share")
        return f"{mode.title} flags {rate} of {mode.n:,} rows; they have no labels.{speed}"
    if view.risk is None:
        return (
            f"{mode.title} gives {figure_text('accuracy', metrics['accuracy'], 'words')} of "
            f"{metrics['accuracy'].n:,} rows the right label; macro F1 is "
            f"{figure_text('macro_f1', metrics['macro_f1'], 'words')}.{speed}"
        )
    parts = []
    for name, kind in (("recall", "risky"), ("fpr", "harmless")):
        figure = metrics[name]
        if figure.value is not None:
            parts.append(f"{figure_text(name, figure, 'words')} of {figure.n:,} {kind} rows")
    return f"{mode.title} flags {' and '.join(parts)}.{speed}"


def _latency_text(times: LatencySummary) -> str:
    if times.p50 is None or times.p95 is None or times.p99 is None:
        return "-"
    return f"{times.p50:.3g} / {times.p95:.3g} / {times.p99:.3g}, n {times.n:,}"


def _slices(
    store: Store, dataset: DatasetInfo, view: ModeView, groups: NDArray[np.int64] | None
) -> tuple[SliceFigures, ...]:
    """Return the figures of each value of each slice column, those with most rows."""
    names = RATES if view.risk is not None else ("accuracy",)
    slices = []
    for column in dataset.slice_columns:
        values = store.datasets.slices(dataset.dataset_id, column)[view.scores.row_index]
        texts, counts = np.unique(values[view.counts].astype(str), return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
        for value in texts[order]:
            rows = view.counts & (values == value)
            metrics = view.metrics(rows, groups, resamples=0)
            chosen = {name: metrics[name] for name in names}
            slices.append(SliceFigures(column, str(value), int(rows.sum()), chosen))
    return tuple(slices)


def _worst(store: Store, run: RunInfo, view: ModeView, *, redact: bool) -> tuple[WorstError, ...]:
    """Return the rows that are farthest on the wrong side, some of each kind."""
    wrong = view.counts & (view.predicted != view.labels)
    places, score, regret = np.flatnonzero(wrong), view.score, view.regret
    picked: list[int] = []
    for kind in np.unique(view.predicted[places]):
        of_kind = places[view.predicted[places] == kind]
        picked += of_kind[np.argsort(-regret[of_kind], kind="stable")][:_WORST].tolist()
    if not picked:
        return ()
    indexes = [int(view.scores.row_index[place]) for place in picked]
    rows = stored_rows(store, run.dataset_id, indexes, run.run_id)
    return tuple(
        WorstError(
            kind=_kind(view, place),
            row_id=row.row_id,
            text=_text(row.text, redact=redact),
            label=view.label_names[view.labels[place]],
            said=view.label_names[view.predicted[place]],
            score=float(score[place]),
            distance=float(regret[place]),
            rules=_rules(row.rules, redact=redact),
        )
        for place, row in zip(picked, rows, strict=True)
    )


def _kind(view: ModeView, place: int) -> str:
    if view.risk is None:
        return "wrong label"
    return "missed" if view.labels[place] == 1 else "false alarm"


def _text(text: str | None, *, redact: bool) -> str:
    if text is None:
        return "(purged)"
    return redacted(text) if redact else text


def _rules(rules: Sequence[str] | None, *, redact: bool) -> tuple[str, ...]:
    """Return the ids of matched rules; a lexicon's ids hold words of the text."""
    return tuple(rule for rule in rules or () if not (redact and rule.startswith("vader.")))


def _commands(
    run: RunInfo,
    dataset: DatasetInfo,
    judged: Candidate,
    policy: Policy | None,
    baseline: Candidate | None,
    seed: int,
    *,
    redact: bool,
) -> tuple[str, ...]:
    """Return the shell lines that score the file anew and write the report again."""
    mapping = dataset.details.get("mapping") or {}
    words = ["shield", "eval", dataset.source, "--task", run.task.value]
    for option, key in (("--text-column", "text"), ("--label-column", "label")):
        if mapping.get(key):
            words += [option, str(mapping[key])]
    guard = run.stamp.get("guard")
    if policy is not None or (guard and guard["kind"] == "cascade"):
        words += ["--policy", "shield.toml"]
    else:
        words += ["--modes", ",".join(mode.value for mode in available_modes(run))]
        if run.is_given:
            words += ScoreColumn(**run.stamp["scores"]).options
        elif guard:
            words += ["--guard", str(run.model_id)]
        elif run.model_id:
            words += ["--model", run.model_id, "--variant", str(run.variant)]
    if run.settings.get("limit"):
        words += ["--limit", str(run.settings["limit"])]
    words += ["--seed", str(seed)]
    again = ["shield", "report", run.run_id, "--out", "report.html"]
    again += ["--policy", "shield.toml"] if policy is not None else ["--mode", judged.mode.value]
    if baseline is not None:
        again += ["--baseline", baseline.run_id]
    if redact:
        again.append("--redact")
    return shlex.join(words), shlex.join([*again, "--seed", str(seed)])
