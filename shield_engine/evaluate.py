"""Evaluate files: import, run, figures, in one call; one file or a suite of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from shield_engine.config import Bands
from shield_engine.datasets import (
    ColumnMapping,
    GivenScores,
    ImportedDataset,
    ScoreColumn,
    SourceFile,
    dataset_name,
    parse_label_map,
    parse_scores,
)
from shield_engine.decide.column import label_policy_figures
from shield_engine.decide.figures import Evaluated, evaluate_run, scores_table
from shield_engine.decide.views import row_groups
from shield_engine.documents import Constraint, Shape
from shield_engine.engine import Shield
from shield_engine.errors import ConfigError, DatasetError, ShieldError
from shield_engine.guards.adapters import installed_peers
from shield_engine.policy import Policy
from shield_engine.runs.execution import Progress, RunSpec, execute, parts_for, start
from shield_engine.runs.given import find_dataset, join_scores, store_given_scores
from shield_engine.statistics import Figure
from shield_engine.store import DatasetInfo, RunInfo, Store
from shield_engine.types import Mode, Task, Variant

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "DatasetEvaluation",
    "EvaluationSpec",
    "SuiteItem",
    "evaluate_file",
    "evaluate_suite",
    "load_suite",
    "store_rows",
]


_COLUMN = Constraint("must be a column name, got {value!r}")
_DATASET = Constraint("must be a stored dataset's id or name, got {value!r}")
_COLUMNS = Constraint("must be a column name or a list of them, got {value!r}")


@dataclass(frozen=True, slots=True)
class SuiteItem:
    """One file to evaluate; `path` is kept as given, `file` is where it lies.

    Without `slices` those that the file suggests are read, and `also_slices` beside them. `scores`
    are columns with what other guards said. With `join`, a stored dataset (its id, title or name),
    the file holds only those: its rows are known by the column `id`, or `text_sha256`.
    """

    path: str
    file: Path
    task: Task
    text: Annotated[str | None, _COLUMN] = None
    label: Annotated[str | None, _COLUMN] = None
    label_map: Mapping[str, int] | None = None
    slices: Annotated[tuple[str, ...], _COLUMNS] = ()
    also_slices: tuple[str, ...] = ()
    scores: tuple[ScoreColumn, ...] = ()
    join: Annotated[str | None, _DATASET] = None
    id: Annotated[str | None, _COLUMN] = None
    text_sha256: Annotated[str | None, _COLUMN] = None


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """What to evaluate files with; the same for every file of a suite.

    Where `policies` are given, each file is judged by its task's: that decides mode, model,
    threshold and bands instead of the other fields. `guards` score the same rows, each in a run of
    its own and at its own threshold; those of another task are left out. With `peers` so does
    every known package of other makers that is installed.
    """

    modes: tuple[Mode, ...] = tuple(Mode)
    variant: Variant = Variant.INT8
    model_id: str | None = None
    threshold: float | None = None
    bands: Bands = field(default_factory=Bands)
    limit: int | None = None
    workers: int | None = None
    seed: int = 7
    policies: Mapping[Task, Policy] | None = None
    reuse: bool = False
    guards: tuple[str, ...] = ()
    peers: bool = False

    @property
    def run_spec(self) -> RunSpec:
        """What a file has to be scored with."""
        return RunSpec(
            parts=parts_for(self.modes),
            variant=self.variant,
            model_id=self.model_id,
            limit=self.limit,
            workers=self.workers,
            reuse=self.reuse,
        )

    def under_policy(self, policy: Policy) -> EvaluationSpec:
        """Return the settings under which `policy` is judged."""
        return replace(
            self,
            modes=(policy.mode,),
            variant=policy.variant or self.variant,
            model_id=policy.scorer_id,
            threshold=policy.threshold,
            bands=policy.bands,
            policies=None,
        )


@dataclass(frozen=True, slots=True)
class DatasetEvaluation:
    """One file's figures, or why it has none."""

    item: SuiteItem
    rows: int = 0
    quarantined: int = 0
    modes: Mapping[Mode, Evaluated] = field(default_factory=dict)
    run_id: str | None = None
    scores: pa.Table | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    policy: Policy | None = None
    label_policy: Mapping[str, Figure] | None = None
    guards: Mapping[str, Mapping[Mode, Evaluated]] = field(default_factory=dict)
    guard_run_ids: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the file as the evaluation output writes it."""
        head: dict[str, Any] = {"path": self.item.path, "task": self.item.task.value}
        if self.error is not None:
            return head | {"error": self.error}
        if self.policy is not None:
            head["policy"] = self.policy.title
        if self.policy is not None and self.label_policy is not None:
            head["label_policy"] = {
                "allowed": list(self.policy.allowed_labels),
                "metrics": {name: f.as_dict() for name, f in self.label_policy.items()},
            }
        if self.guards:
            head["guards"] = {name: {"modes": _plain_modes(of)} for name, of in self.guards.items()}
        return head | {
            "rows": self.rows,
            "quarantined": self.quarantined,
            "modes": _plain_modes(self.modes),
        }


def load_suite(path: Path) -> list[SuiteItem]:
    """Read a suite file; paths in it are relative to it.

    Raises:
        ConfigError: The file is missing, no JSON, or an entry lacks what it needs.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = list(document["datasets"])
    except OSError as error:
        raise ConfigError(f"suite {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f'suite {path} is not JSON of the form {{"datasets": [{{"path", "task"}}]}}: {error}'
        ) from error
    return [_suite_item(path, number, entry) for number, entry in enumerate(entries, start=1)]


def store_rows(
    store: Store, name: str, task: Task, path: Path, imported: ImportedDataset
) -> DatasetInfo:
    """Keep imported rows as a dataset version, with its mapping's outcome and quarantine report."""
    return store.datasets.add(
        name,
        task,
        imported.table,
        content_hash=imported.content_hash,
        source=path.name,
        quarantined=imported.quarantined_count,
        details={
            "rows_read": imported.rows_read,
            "profile": _plain(imported.profile),
            "mapping": asdict(imported.mapping),
            "quarantine": [asdict(row) for row in imported.quarantined],
        },
    )


def evaluate_file(
    store: Store,
    shield: Shield,
    item: SuiteItem,
    spec: EvaluationSpec,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    keep_scores: bool = False,
) -> DatasetEvaluation:
    """Import one file, score it once, and give every mode's figures.

    Raises:
        ShieldError: The file, the model or the store is at fault.
    """
    policy: Policy | None = None
    warnings: tuple[str, ...] = ()
    if spec.policies is not None:
        policy = spec.policies.get(item.task)
        if policy is None:
            raise ConfigError(f"{item.path}: the policy file has no policy for {item.task.value}")
        warnings = shield.check_policy(policy)
        spec = spec.under_policy(policy)
    thresholds = _thresholds(shield, item.task, spec)
    source = _stored(store, item)
    given_runs = store_given_scores(
        store,
        shield,
        source.dataset,
        source.scores,
        rules="heuristic" in spec.run_spec.parts,
        limit=spec.limit,
        on_progress=on_progress,
    )
    run = start(store, shield, source.dataset.dataset_id, spec.run_spec)
    run = execute(store, shield, run.run_id, on_progress=on_progress, cancel=cancel)
    modes = _figures(store, run, item, spec, thresholds)
    beside = [
        execute(store, shield, started.run_id, on_progress=on_progress, cancel=cancel)
        for started in _started_guards(store, shield, run, spec)
    ]
    guards: dict[str, Mapping[Mode, Evaluated]] = {}
    for guard_run in (*beside, *given_runs):
        own = shield.run_thresholds(guard_run)
        guards[guard_run.model_id or ""] = _figures(store, guard_run, item, spec, own)
        warnings += _failures(store, guard_run)
    return DatasetEvaluation(
        item=item,
        rows=source.dataset.rows,
        quarantined=source.quarantined,
        modes=modes,
        run_id=run.run_id,
        scores=scores_table(store, run.run_id, spec.bands) if keep_scores else None,
        warnings=(*warnings, *source.warnings, *_reused(run), *_failures(store, run)),
        policy=policy,
        label_policy=_label_policy(store, run, policy, spec.seed),
        guards=guards,
        guard_run_ids=tuple(guard_run.run_id for guard_run in (*beside, *given_runs)),
    )


def evaluate_suite(
    store: Store,
    shield: Shield,
    items: Sequence[SuiteItem],
    spec: EvaluationSpec,
    *,
    on_item: Callable[[DatasetEvaluation], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    keep_scores: bool = False,
) -> list[DatasetEvaluation]:
    """Evaluate each file; one that fails is reported in its place and does not stop the others."""
    results = []
    for item in items:
        try:
            result = evaluate_file(
                store, shield, item, spec, on_progress=on_progress, keep_scores=keep_scores
            )
        except ShieldError as error:
            result = DatasetEvaluation(item, error=str(error))
        results.append(result)
        if on_item is not None:
            on_item(result)
    return results


def _plain_modes(modes: Mapping[Mode, Evaluated]) -> dict[str, Any]:
    return {mode.value: result.as_dict() for mode, result in modes.items()}


def _figures(
    store: Store,
    run: RunInfo,
    item: SuiteItem,
    spec: EvaluationSpec,
    thresholds: Mapping[str, float],
) -> dict[Mode, Evaluated]:
    return evaluate_run(
        store,
        run.run_id,
        modes=spec.modes,
        thresholds=thresholds,
        bands=spec.bands,
        slice_names=item.slices,
        seed=spec.seed,
    )


def _started_guards(
    store: Store, shield: Shield, run: RunInfo, spec: EvaluationSpec
) -> Iterator[RunInfo]:
    """Start a run over the rows of `run` for each guard of its task, each once."""
    task = run.task
    chosen = [name for name in spec.guards if shield.guards[name].task is task]
    peers = [peer.name for peer in installed_peers(task)] if spec.peers else []
    if spec.peers and not peers:
        raise ConfigError(
            f"no peer for {task.value} is installed; install the extra: "
            "pip install '.[peers]' in the checkout"
        )
    for name in dict.fromkeys((*chosen, *peers)):
        guarded = replace(spec.run_spec, model_id=name, reuse=False)
        yield start(store, shield, run.dataset_id, guarded)


def _label_policy(
    store: Store, run: RunInfo, policy: Policy | None, seed: int
) -> dict[str, Figure] | None:
    """Return how often a sentiment policy's allowed labels are right, `None` for other tasks."""
    if policy is None or policy.task is not Task.SENTIMENT:
        return None
    scores = store.runs.scores(run.run_id)
    groups = row_groups(store, run.dataset_id, scores)
    return label_policy_figures(
        scores, policy.mode, policy.allowed_labels, bands=policy.bands, groups=groups, seed=seed
    )


def _thresholds(shield: Shield, task: Task, spec: EvaluationSpec) -> dict[str, float]:
    """Return the threshold of each mode: the given one, else the balanced one of the model."""
    if spec.threshold is not None:
        return dict.fromkeys([mode.value for mode in Mode], spec.threshold)
    if "ml" in spec.run_spec.parts:
        return shield.thresholds(task, spec.variant, spec.model_id)
    return dict(shield.registry.default_for(task).thresholds)


@dataclass(frozen=True, slots=True)
class _Source:
    """The stored rows that an item means, and what its file said of them."""

    dataset: DatasetInfo
    scores: tuple[GivenScores, ...]
    quarantined: int
    warnings: tuple[str, ...]


def _stored(store: Store, item: SuiteItem) -> _Source:
    """Import a file, or join its scores to the stored version it names.

    Raises:
        DatasetError: It cannot be read, or holds no readable row.
        ConfigError: Columns are named that do not belong together.
    """
    if item.join is None and item.text_sha256 is not None:
        raise ConfigError(f"{item.path}: text_sha256 joins scores to a stored dataset: name it")
    if item.join is not None:
        if item.text or item.label or item.label_map:
            raise ConfigError(
                f"{item.path}: texts and labels are those of the joined dataset; name only id or "
                "text_sha256, and scores"
            )
        dataset = find_dataset(store, item.join, item.task)
        mapping = ColumnMapping("", id=item.id, scores=item.scores, text_sha256=item.text_sha256)
        joined = join_scores(store, dataset.dataset_id, item.file, mapping)
        return _Source(dataset, joined.scores, len(joined.quarantined), joined.warnings)
    imported = _imported(item)
    name = dataset_name(item.file.name)
    dataset = store_rows(store, name, item.task, item.file, imported)
    warnings = list(imported.profile.warnings)
    if imported.quarantined:
        first = imported.quarantined[0]
        warnings.append(
            f"{imported.quarantined_count:,} rows were quarantined; the first, line {first.line}: "
            f"{first.reason}"
        )
    return _Source(dataset, imported.scores, imported.quarantined_count, tuple(warnings))


def _imported(item: SuiteItem) -> ImportedDataset:
    """Read a file by its suggested mapping, with what the item says otherwise.

    Raises:
        DatasetError: It cannot be read, or holds no readable row.
    """
    source = SourceFile.open(item.file)
    mapping: ColumnMapping | None = None
    suggested = source.sniffed.suggested
    others = tuple(name for name in item.also_slices if name not in suggested.slices)
    if any((item.text, item.label, item.id, item.slices, others, item.scores)):
        mapping = replace(
            suggested,
            text=item.text or suggested.text,
            label=item.label or suggested.label,
            id=item.id or suggested.id,
            slices=item.slices or suggested.slices + others,
            scores=item.scores,
        )
    imported = source.read(item.task, mapping, item.label_map)
    if not len(imported.table):
        raise DatasetError(
            f"{item.path} holds no readable row; {imported.quarantined_count} were quarantined"
        )
    return imported


def _reused(run: RunInfo) -> tuple[str, ...]:
    """Return that a run's scores are an earlier one's, if so."""
    if "reused_run" not in run.stamp:
        return ()
    return (
        f"scores of the model were reused from run {run.stamp['reused_run']}: no latency was "
        "measured for them",
    )


def _failures(store: Store, run: RunInfo) -> tuple[str, ...]:
    """Return how many rows failed, and why the first did."""
    if not run.errors:
        return ()
    what = f"guard {run.model_id}" if run.stamp.get("guard") else "the model"
    reason = store.runs.first_error(run.run_id)
    return (f"{run.errors:,} rows failed in {what}; the first: {reason}",)


def _plain(record: Any) -> dict[str, Any]:
    """Return a dataclass as JSON-ready values (its mappings may be read-only views)."""
    values = {item.name: getattr(record, item.name) for item in fields(record)}
    return {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()
    }


_SUITE_ITEM = Shape(
    SuiteItem,
    names={"slices": "slice"},
    unknown="unknown key {keys}",
    missing='needs a "{keys}"',
)


def _suite_item(suite: Path, number: int, entry: Any) -> SuiteItem:
    where = f"suite {suite}, dataset {number}"
    if not isinstance(entry, dict) or not isinstance(path := entry.get("path"), str):
        raise ConfigError(f'{where}: needs a "path"')

    def fail(_: str | None, sentence: str) -> ConfigError:
        return ConfigError(f"{where} ({path}): {sentence}")

    columns, classes = entry.get("slice") or [], entry.get("label_map")
    if not isinstance(classes, dict | None):
        raise fail("label_map", f"label_map must be an object of value to class, got {classes!r}")
    options = {key: _strings(entry.get(key), key, fail) for key in ("score", "verdict", "latency")}
    values = {key: value for key, value in entry.items() if key not in options} | {
        "slice": [columns] if isinstance(columns, str) else columns,
        "label_map": None,
    }
    item = _SUITE_ITEM.read(values, fail, file=suite.parent / path, also_slices=(), scores=())
    try:
        scores = parse_scores(*options.values())
    except ConfigError as error:
        raise fail(None, str(error)) from error
    label_map = parse_label_map(classes, item.task) if classes else None
    return replace(item, label_map=label_map, scores=scores)


def _strings(
    value: Any, key: str, fail: Callable[[str | None, str], ConfigError]
) -> tuple[str, ...]:
    """Return a suite's option that may be given once or as a list."""
    values = [value] if isinstance(value, str) else value or []
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise fail(key, f"{key} must be text or a list of it, as on the command line")
    return tuple(values)
