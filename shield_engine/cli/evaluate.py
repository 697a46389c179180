"""`shield scan`, `shield eval` and `shield suite`: judge a text, a file or many files."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shield_engine.cli.guards import settings_with
from shield_engine.cli.output import (
    check_targets,
    json_text,
    print_evaluation,
    print_scan,
    write_out,
)
from shield_engine.cli.session import (
    evaluation_store,
    leave_bundle,
    open_shield,
    option,
    read_text,
    rows_bar,
    with_options,
)
from shield_engine.config import SAFE_BAND, Bands, ScannerConfig, check_task
from shield_engine.errors import ConfigError
from shield_engine.policy import Policy, read_policies
from shield_engine.settings import replacing
from shield_engine.types import Mode, Task, Variant

if TYPE_CHECKING:
    from shield_engine.evaluate import DatasetEvaluation, EvaluationSpec, SuiteItem

__all__ = ["evaluate", "scan", "suite"]

EXIT_FLAGGED = 100

_TASK = "prompt_injection, toxicity or sentiment."
_VARIANT = "Precision of the model's weights."
_THRESHOLD = "Instead of the registry's balanced threshold."
_GUARDS = "Another file than guards.toml in SHIELD_HOME."
_POLICY = "A shield.toml: decides mode, model, threshold and bands."


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """The options of `shield eval`."""

    modes: str = option("heuristic,ml,hybrid,both", "Comma-separated: heuristic, ml, hybrid, both.")
    variant: Variant = option(Variant.INT8, _VARIANT, case_sensitive=False)
    model: str | None = option(None, "Registry id; the task's default if absent.")
    text_column: str | None = option(None, "Column of the texts.")
    label_column: str | None = option(None, "Column of the labels.")
    label_map: str | None = option(None, "File's values to classes: 1=attack,0=benign.")
    slice_column: list[str] | None = option(
        None, "Give the figures by value of this column, too; may be repeated."
    )
    score: list[str] | None = option(
        None, "COLUMN[=NAME] with a guard's scores of the rows, 0 to 1; repeatable."
    )
    verdict: list[str] | None = option(
        None, "COLUMN=FLAGGED|FLAGGED[:NAME] with its verdicts instead; repeatable."
    )
    latency: list[str] | None = option(
        None, "COLUMN[=NAME] with the milliseconds of that guard; repeatable."
    )
    join: str | None = option(
        None,
        "FILE has no texts: its scores belong to this stored dataset (id, NAME, NAME@VERSION).",
    )
    id_column: str | None = option(None, "Column of your own row ids; --join meets rows by it.")
    hash_column: str | None = option(
        None, "With --join: column of each text's SHA-256, instead of ids."
    )
    threshold: float | None = option(None, _THRESHOLD, min=0.0, max=1.0)
    hybrid_upper: float = option(
        0.9, "Heuristic score that ends a hybrid scan as risky.", min=0.0, max=1.0
    )
    hybrid_lower: float | None = option(
        None, "Heuristic score that ends it as safe; off if absent.", min=0.0, max=1.0
    )
    hybrid_safe: float = option(
        SAFE_BAND,
        "Where no rule matched, score of the linear tier that ends it as safe; 0 is off.",
        min=0.0,
        max=1.0,
    )
    policy: Path | None = option(None, _POLICY)
    limit: int | None = option(None, "Only the first N rows.", min=1)
    workers: int | None = option(None, "Threads that score rows.", min=1)
    reuse: bool = option(
        False, "Take the model's scores from an earlier run of the same file and model.", "--reuse"
    )
    guard: list[str] | None = option(
        None, "Score the same rows with this guard, too; repeatable (shield guards)."
    )
    guards: Path | None = option(None, _GUARDS)
    peers: bool = option(
        False, "Score the same rows with the installed scanners of other makers, too.", "--peers"
    )
    seed: int = option(7, "Of the bootstrap intervals.")
    json_out: Path | None = option(
        None, "Write the figures to this file, - for standard output.", "--json"
    )
    scores: Path | None = option(None, "Write every row's scores to this Parquet file.")
    store: bool = option(True, "Keep datasets and runs for the dashboard.", "--store/--no-store")

    def completed(self, item: SuiteItem) -> SuiteItem:
        """Return the item with the columns and classes of the options where it names none."""
        from shield_engine.datasets import parse_label_map, parse_scores

        scores = parse_scores(self.score or (), self.verdict or (), self.latency or ())
        label_map = item.label_map
        if not label_map and self.label_map:
            label_map = parse_label_map(self.label_map, item.task)
        return replace(
            item,
            text=item.text or self.text_column,
            label=item.label or self.label_column,
            label_map=label_map,
            slices=item.slices or tuple(self.slice_column or ()),
            scores=item.scores or scores,
            join=item.join or self.join,
            id=item.id or self.id_column,
            text_sha256=item.text_sha256 or self.hash_column,
        )

    def spec(self, context: typer.Context) -> EvaluationSpec:
        """Return what the files are evaluated with."""
        from shield_engine.evaluate import EvaluationSpec

        return EvaluationSpec(
            policies=_policies(context, self.policy, _POLICY_DECIDES),
            modes=_modes(self.modes),
            variant=self.variant,
            model_id=self.model,
            threshold=self.threshold,
            bands=Bands(self.hybrid_upper, self.hybrid_lower, self.hybrid_safe or None),
            limit=self.limit,
            workers=self.workers,
            seed=self.seed,
            reuse=self.reuse,
            guards=tuple(self.guard or ()),
            peers=self.peers,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOptions(EvaluationOptions):
    """The options of `shield suite`: the same, for what the suite leaves open."""

    text_column: str | None = option(None, "Column of the texts where the suite names none.")
    label_column: str | None = option(None, "Column of the labels where the suite names none.")
    label_map: str | None = option(None, "File's values to classes where the suite has none.")
    slice_column: list[str] | None = option(None, "Slice column where the suite names none.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """The options of `shield scan`."""

    task: str | None = option(None, _TASK)
    mode: Mode = option(Mode.HYBRID, "Which parts decide.")
    variant: Variant = option(Variant.INT8, _VARIANT, case_sensitive=False)
    threshold: float | None = option(None, _THRESHOLD, min=0.0, max=1.0)
    policy: Path | None = option(None, _POLICY)
    guard: str | None = option(None, "Ask this guard instead of the bundled model.")
    guards: Path | None = option(None, _GUARDS)
    json_out: bool = option(False, "Print the results as JSON.", "--json")
    exit_code: bool = option(
        False, f"Exit with {EXIT_FLAGGED} if a scanner flags the text.", "--exit-code"
    )


_POLICY_DECIDES = (
    "modes",
    "variant",
    "model",
    "threshold",
    "hybrid_upper",
    "hybrid_lower",
    "hybrid_safe",
)


@with_options
def scan(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="The text, or - to read standard input.")],
    options: ScanOptions,
) -> None:
    """Judge one text with one scanner, or with all three."""
    from shield_engine.guards import find_guard

    policies = _policies(context, options.policy, ("mode", "variant", "threshold", "guard"))
    shield = open_shield(settings_with(options.guards), policies)
    content = read_text(text)
    tasks = [check_task(options.task)] if options.task else list(policies or Task)
    config = None
    if policies is None:
        config = replace(
            ScannerConfig.for_mode(options.mode, options.variant), threshold=options.threshold
        )
        if options.guard is not None:
            tasks = [find_guard(tuple(shield.guards.values()), options.guard).task]
            ml = replace(config.ml, model_id=options.guard, variant=None, use_fallback=False)
            config = replace(config, ml=ml)
    elif missing := [task.value for task in tasks if task not in policies]:
        raise ConfigError(f"the policy file has no policy for {', '.join(missing)}")
    with closing(shield):  # and with it the connections of a guard
        results = {task: shield.scanner(task, config).scan(content) for task in tasks}
    if options.json_out:
        document = {task.value: asdict(result) for task, result in results.items()}
        print(json.dumps(document, indent=2))  # noqa: T201 - the command's output
    else:
        print_scan(results)
    if options.exit_code and not all(result.is_valid for result in results.values()):
        raise typer.Exit(EXIT_FLAGGED)


@with_options
def evaluate(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, JSON or Parquet, plain or .gz.")],
    task: Annotated[str, typer.Option(help=_TASK)],
    options: EvaluationOptions,
) -> None:
    """Score a file once and give the figures of every mode."""
    from shield_engine.evaluate import SuiteItem

    item = SuiteItem(path=str(file), file=file, task=check_task(task))
    _evaluate([options.completed(item)], options.spec(context), options)


@with_options
def suite(
    *,
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help='JSON: {"datasets": [{"path", "task", ...}]}.')],
    task: Annotated[str | None, typer.Option(help=_TASK)] = None,
    options: SuiteOptions,
) -> None:
    """Evaluate every file of a suite; --task keeps only that task's files."""
    from shield_engine.evaluate import load_suite

    items = [
        options.completed(item)
        for item in load_suite(file)
        if task is None or item.task is check_task(task)
    ]
    if not items:
        raise ConfigError(
            f"suite {file} names no dataset of task {task}" if task else f"suite {file} is empty"
        )
    _evaluate(items, options.spec(context), options)


def _modes(text: str) -> tuple[Mode, ...]:
    try:
        modes = tuple(dict.fromkeys(Mode(name.strip()) for name in text.split(",") if name.strip()))
    except ValueError as error:
        raise typer.BadParameter(
            f"{error}; choose among {', '.join(Mode)}", param_hint="--modes"
        ) from error
    if not modes:
        raise typer.BadParameter("names no mode", param_hint="--modes")
    return modes


def _policies(
    context: typer.Context, file: Path | None, decided: Sequence[str]
) -> Mapping[Task, Policy] | None:
    """Read a policy file; refuse options that say what the policy already does."""
    if file is None:
        return None
    given = [
        name
        for name in decided
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(f"the policy decides what {options} says", param_hint="--policy")
    return read_policies(file)


def _evaluate(items: Sequence[SuiteItem], spec: EvaluationSpec, options: EvaluationOptions) -> None:
    """Evaluate and print; write the figures and scores asked for; exit 1 if a file failed."""
    from shield_engine.evaluate import evaluate_suite
    from shield_engine.guards import find_guard

    def show(result: DatasetEvaluation) -> None:
        if str(options.json_out) != "-":
            print_evaluation(result)

    check_targets(options.json_out, options.scores)
    shield = open_shield(settings_with(options.guards))
    for name in spec.guards:
        find_guard(tuple(shield.guards.values()), name)
    with (
        # A guard may print; what it prints is no part of the JSON.
        redirect_stdout(sys.stderr) if str(options.json_out) == "-" else nullcontext(),
        evaluation_store(shield.settings, keep=options.store) as store,
        rows_bar("scoring") as advance,
    ):
        results = evaluate_suite(
            store,
            shield,
            items,
            spec,
            on_progress=advance,
            on_item=show,
            keep_scores=options.scores is not None,
        )
        for result in results:
            for run_id in (result.run_id, *result.guard_run_ids):
                if options.store and run_id is not None:
                    leave_bundle(store, shield, run_id)
    if options.json_out is not None:
        document = {"datasets": [result.as_dict() for result in results]}
        write_out(options.json_out, json_text(document))
    if options.scores is not None:
        _write_scores(options.scores, results)
    if any(result.error for result in results):
        raise typer.Exit(1)


def _write_scores(target: Path, results: Sequence[DatasetEvaluation]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [
        result.scores.add_column(0, "path", pa.array([result.item.path] * len(result.scores)))
        for result in results
        if result.scores is not None
    ]
    if tables:
        with replacing(target) as partial:
            pq.write_table(pa.concat_tables(tables, promote_options="default"), partial)
