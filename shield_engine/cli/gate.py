"""`shield gate` and `shield report`: judge a run by requirements, and write down what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from shield_engine.cli.output import (
    EXIT_FAILED,
    check_targets,
    console,
    json_text,
    note,
    printable,
    write_out,
)
from shield_engine.cli.session import (
    evaluation_store,
    leave_bundle,
    open_shield,
    option,
    rows_bar,
    with_options,
)
from shield_engine.config import check_task
from shield_engine.errors import ConfigError, UnknownNameError
from shield_engine.policy import Policy, read_policies
from shield_engine.settings import Settings, replacing, write_file
from shield_engine.types import Mode, Task, Variant

if TYPE_CHECKING:
    from shield_engine.decide.candidates import Candidate
    from shield_engine.engine import Shield
    from shield_engine.evaluate import EvaluationSpec, SuiteItem
    from shield_engine.gates import Gate, GateOutcome
    from shield_engine.gates.judge import ThresholdsOf
    from shield_engine.reports import Report
    from shield_engine.store import RunInfo, Store

__all__ = ["gate", "report"]

EXIT_INCONCLUSIVE = 101

_FORMATS = (".html", ".md", ".json", ".parquet")
_STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "not applicable": "dim"}

SeedOption = Annotated[int, typer.Option("--seed", help="Of the resampling.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedOptions:
    """By what settings a run is judged."""

    policy: Path | None = option(None, "A shield.toml: judge the run under its policy.")
    mode: Mode | None = option(None, "Judge this mode; hybrid if absent and there.")

    def __post_init__(self) -> None:
        if self.policy is not None and self.mode is not None:
            raise typer.BadParameter("the policy decides the mode", param_hint="--mode")

    def policy_for(self, task: Task) -> Policy | None:
        """Return the file's policy of this task."""
        return None if self.policy is None else _policy_for(self.policy, task)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineOptions:
    """What a run is compared with."""

    baseline: str | None = option(None, "Run to compare with, on the same rows.")
    baseline_policy: Path | None = option(
        None, "A shield.toml: judge the baseline, or the same run, under its policy."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How a file is evaluated first."""

    task: str | None = option(None, "With a file: prompt_injection, toxicity or sentiment.")
    text_column: str | None = option(None, "With a file: column of texts.")
    label_column: str | None = option(None, "With a file: column of the labels.")
    label_map: str | None = option(None, "With a file: its values to classes: 1=attack,0=benign.")
    variant: Variant | None = option(None, "With a file: INT8 if absent.", case_sensitive=False)
    model: str | None = option(None, "With a file: registry id.")
    limit: int | None = option(None, "With a file: only the first N rows.", min=1)
    workers: int | None = option(None, "With a file: threads that score rows.", min=1)
    store: bool = option(True, "With a file: keep the run.", "--store/--no-store")

    def refuse(self) -> None:
        """Refuse what says how to evaluate a file where there is none."""
        given = [
            f"--{field.name.replace('_', '-')}"
            for field in fields(self)
            if field.name != "store" and getattr(self, field.name) is not None
        ]
        if given:
            raise typer.BadParameter(
                f"{', '.join(given)} says how to evaluate a file; a run is scored already",
                param_hint="--run",
            )

    def item(self, file: Path) -> SuiteItem:
        """Return the file as it is to be evaluated."""
        from shield_engine.datasets import parse_label_map
        from shield_engine.evaluate import SuiteItem

        if self.task is None:
            raise typer.BadParameter("a file needs --task", param_hint="--task")
        task = check_task(self.task)
        return SuiteItem(
            path=str(file),
            file=file,
            task=task,
            text=self.text_column,
            label=self.label_column,
            label_map=parse_label_map(self.label_map, task) if self.label_map else None,
        )

    def spec(self, seed: int) -> EvaluationSpec:
        """Return what the file is evaluated with."""
        from shield_engine.evaluate import EvaluationSpec

        return EvaluationSpec(
            variant=self.variant or Variant.INT8,
            model_id=self.model,
            limit=self.limit,
            workers=self.workers,
            seed=seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeOptions:
    """Where a gate's outcome is written."""

    junit: Path | None = option(None, "Write JUnit XML to this file.")
    strict: bool = option(
        False, "In JUnit XML, inconclusive is a failure, not skipped.", "--strict"
    )
    markdown: Path | None = option(None, "Write a Markdown table to this file, - for stdout.")
    json_out: Path | None = option(
        None, "Write the outcome to this file, - for standard output.", "--json"
    )

    def write(self, outcome: GateOutcome) -> None:
        """Write the files asked for; print the outcome unless one goes to standard output."""
        from shield_engine.reports import gate_junit, gate_markdown

        if self.junit is not None:
            write_file(self.junit, gate_junit(outcome, strict=self.strict))
        if self.markdown is not None:
            write_out(self.markdown, gate_markdown(outcome))
        if self.json_out is not None:
            write_out(self.json_out, json_text(outcome.as_dict()))
        if "-" not in (str(self.markdown), str(self.json_out)):
            _print_outcome(outcome)


@with_options
def gate(
    *,
    gate_file: Annotated[
        Path, typer.Argument(metavar="GATE", help="Requirements in TOML: docs/ci-gates.md.")
    ],
    file: Annotated[
        Path | None, typer.Argument(help="Evaluate this file first; instead of --run.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="A run's id, as `shield runs` shows it.")
    ] = None,
    judged: JudgedOptions,
    against: BaselineOptions,
    of_file: FileOptions,
    targets: OutcomeOptions,
    seed: SeedOption = 7,
) -> None:
    """Judge a run, or a file: exit 0 pass, 100 fail, 101 inconclusive."""
    from shield_engine.gates import Outcome, judge, read_gate

    subject = _subject(file, run, of_file)
    if judged.policy is not None and (of_file.variant is not None or of_file.model is not None):
        raise typer.BadParameter("the policy decides the model", param_hint="--policy")
    asked = read_gate(gate_file)
    check_targets(targets.junit, targets.markdown, targets.json_out)
    shield = open_shield()
    with evaluation_store(shield.settings, keep=of_file.store or file is None) as store:
        _check_opened(store, run or against.baseline)
        run_id = subject
        if not isinstance(run_id, str):
            item = replace(run_id, also_slices=tuple(asked.slice_columns))
            run_id = _evaluated(store, shield, item, judged, of_file.spec(seed), asked)
            if of_file.store:
                leave_bundle(store, shield, run_id)
        thresholds_of = _thresholds(shield)
        candidate, baseline = _sides(store, thresholds_of, run_id, judged, against)
        outcome = judge(
            store, asked, candidate, thresholds_of=thresholds_of, baseline=baseline, seed=seed
        )
    targets.write(outcome)
    if outcome.outcome is Outcome.FAIL:
        raise typer.Exit(EXIT_FAILED)
    if outcome.outcome is Outcome.INCONCLUSIVE:
        raise typer.Exit(EXIT_INCONCLUSIVE)


@with_options
def report(
    *,
    run_id: Annotated[str, typer.Argument(help="A run's id, as `shield runs` shows it.")],
    out: Annotated[
        Path, typer.Option("--out", help="File to write: .html, .md, .json or .parquet.")
    ],
    judged: JudgedOptions,
    gate_file: Annotated[
        Path | None, typer.Option("--gate", help="Judge these requirements, too.")
    ] = None,
    against: BaselineOptions,
    redact: Annotated[
        bool, typer.Option("--redact", help="Replace texts by their hash and length.")
    ] = False,
    seed: SeedOption = 7,
) -> None:
    """Write what a run found: one self-contained file."""
    from shield_engine.gates import judge, read_gate
    from shield_engine.reports import build_report
    from shield_engine.store import Store

    if out.suffix not in _FORMATS:
        raise ConfigError(
            f"{out.suffix or 'no ending'} is not a report format; use {', '.join(_FORMATS)}"
        )
    check_targets(out)
    asked = None if gate_file is None else read_gate(gate_file)
    thresholds_of = _thresholds(open_shield())
    with Store.open(Settings.from_env().store_path) as store:
        candidate, baseline = _sides(store, thresholds_of, run_id, judged, against)
        outcome = None
        if asked is not None:
            outcome = judge(
                store, asked, candidate, thresholds_of=thresholds_of, baseline=baseline, seed=seed
            )
        run = store.runs.find(run_id)
        document = build_report(
            store,
            candidate,
            thresholds_of(run),
            policy=judged.policy_for(run.task),
            baseline=baseline,
            gate=outcome,
            redact=redact,
            seed=seed,
        )
        _write_report(store, document, out)
    note(f"report of run {run_id} in {out}")


# --- what is judged ---------------------------------------------------------------------------


def _subject(file: Path | None, run: str | None, of_file: FileOptions) -> str | SuiteItem:
    """Return the id of the run to judge, or the file to evaluate first; refuse what is neither."""
    if file is not None and run is None:
        return of_file.item(file)
    if run is None or file is not None:
        raise typer.BadParameter("name either a file or --run RUN_ID", param_hint="FILE")
    of_file.refuse()
    return run


def _check_opened(store: Store, run_id: str | None) -> None:
    if store.path is None and run_id is not None:
        raise ConfigError(
            f"run {run_id} lies in the store, which another process holds or --no-store leaves "
            "closed; close the dashboard, or judge without it"
        )


def _thresholds(shield: Shield) -> ThresholdsOf:
    """Return what gives a run's balanced thresholds; none where its model left the registry."""

    def of_run(run: RunInfo) -> Mapping[str, float]:
        try:
            return shield.run_thresholds(run)
        except UnknownNameError:
            note(f"model {run.model_id} of run {run.run_id} is in no registry: threshold 0.5")
            return {}

    return of_run


def _policy_for(path: Path, task: Task) -> Policy:
    policies = read_policies(path)
    if task not in policies:
        raise ConfigError(f"policy file {path} has no policy for {task.value}")
    return policies[task]


def _sides(
    store: Store,
    thresholds_of: ThresholdsOf,
    run_id: str,
    judged: JudgedOptions,
    against: BaselineOptions,
) -> tuple[Candidate, Candidate | None]:
    """Return what is judged and what it is compared with."""
    from shield_engine.decide.candidates import baseline_of, candidate_of

    run = store.runs.find(run_id)
    candidate = candidate_of(
        run, thresholds_of(run), mode=judged.mode, policy=judged.policy_for(run.task)
    )
    if against.baseline is None and against.baseline_policy is None:
        return candidate, None
    other = store.runs.find(against.baseline or run_id)
    if against.baseline_policy is not None:
        policy = _policy_for(against.baseline_policy, other.task)
        return candidate, candidate_of(other, thresholds_of(other), policy=policy)
    return candidate, baseline_of(candidate, run, other, thresholds_of(other))


def _evaluated(
    store: Store,
    shield: Shield,
    item: SuiteItem,
    judged: JudgedOptions,
    spec: EvaluationSpec,
    asked: Gate,
) -> str:
    """Score a file with what the gate needs, and return the run's id."""
    from shield_engine.evaluate import evaluate_file

    mode = judged.mode
    if (policy := judged.policy_for(item.task)) is not None:
        for warning in shield.check_policy(policy):
            note(f"warning: {printable(warning)}")
        spec, mode = spec.under_policy(policy), policy.mode
    required = [need.mode for need in asked.requirements if need.mode is not None]
    spec = replace(spec, modes=tuple(dict.fromkeys([mode or Mode.HYBRID, *required])))
    with rows_bar("scoring") as advance:
        result = evaluate_file(store, shield, item, spec, on_progress=advance)
    for warning in result.warnings:
        note(f"warning: {printable(warning)}")
    if result.run_id is None:
        raise ConfigError(result.error or f"{item.path} gave no run to judge")
    return result.run_id


# --- what is written --------------------------------------------------------------------------


def _print_outcome(outcome: GateOutcome) -> None:
    judged = f"{outcome.candidate}, run {outcome.run_id}"
    if outcome.baseline_run_id is not None:
        judged += f"; baseline {outcome.baseline}, run {outcome.baseline_run_id}"
    columns = ("outcome", "requirement", "numbers", "what would settle it")
    table = Table(*columns, title=Text(printable(judged)), title_justify="left")
    for judgement in outcome.judgements:
        table.add_row(
            Text(judgement.outcome.value, _STYLES[judgement.outcome.value]),
            printable(judgement.requirement.title),
            printable(judgement.reason),
            printable(judgement.advice),
        )
    console.print(table)
    console.print(Text(printable(outcome.sentence), _STYLES[outcome.outcome.value]), soft_wrap=True)


def _write_report(store: Store, report: Report, out: Path) -> None:
    import pyarrow.parquet as pq

    from shield_engine.reports import as_html, as_markdown, scored_rows

    texts: Mapping[str, Callable[[Report], str]] = {
        ".html": as_html,
        ".md": as_markdown,
        ".json": lambda document: json_text(document.as_dict()),
    }
    with replacing(out) as partial:
        if out.suffix in texts:
            partial.write_text(texts[out.suffix](report), encoding="utf-8")
        else:
            pq.write_table(scored_rows(store, report), partial)
