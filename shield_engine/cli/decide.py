"""`shield gate` and `shield report`: judge a run by requirements, and write down what was found."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from shield_engine.cli.output import console, note, printable
from shield_engine.cli.session import evaluation_store, open_shield, progress_bar
from shield_engine.config import check_task
from shield_engine.errors import ConfigError, UnknownNameError
from shield_engine.policy import Policy, read_policies
from shield_engine.settings import Settings
from shield_engine.types import Mode, Task, Variant

if TYPE_CHECKING:
    from shield_engine.decide.candidates import Candidate
    from shield_engine.engine import Shield
    from shield_engine.gates import Gate, GateOutcome
    from shield_engine.reports import Report
    from shield_engine.store import RunInfo, Store

__all__ = ["gate", "report"]

EXIT_FAILED = 100
EXIT_INCONCLUSIVE = 101

_STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "not applicable": "dim"}

PolicyOption = Annotated[
    Path | None, typer.Option("--policy", help="A shield.toml: judge the run under its policy.")
]
ModeOption = Annotated[
    Mode | None, typer.Option("--mode", help="Judge this mode; hybrid if absent and there.")
]
BaselineOption = Annotated[
    str | None, typer.Option("--baseline", help="Run to compare with, on the same rows.")
]
BaselinePolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--baseline-policy",
        help="A shield.toml: judge the baseline, or the same run, under its policy.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the resampling.")]


def gate(
    gate_file: Annotated[
        Path, typer.Argument(metavar="GATE", help="Requirements in TOML: docs/ci-gates.md.")
    ],
    file: Annotated[
        Path | None, typer.Argument(help="Evaluate this file first; instead of --run.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="A run's id, as `shield runs` shows it.")
    ] = None,
    policy: PolicyOption = None,
    mode: ModeOption = None,
    baseline: BaselineOption = None,
    baseline_policy: BaselinePolicyOption = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="With a file: prompt_injection, toxicity or sentiment."),
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="With a file: column of texts.")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="With a file: column of the labels.")
    ] = None,
    label_map: Annotated[
        str | None, typer.Option(help="With a file: its values to classes: 1=attack,0=benign.")
    ] = None,
    variant: Annotated[
        Variant | None, typer.Option(case_sensitive=False, help="With a file: INT8 if absent.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="With a file: registry id.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With a file: only the first N rows.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With a file: threads that score rows.")
    ] = None,
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="With a file: keep the run.")
    ] = True,
    junit: Annotated[
        Path | None, typer.Option("--junit", help="Write JUnit XML to this file.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="In JUnit XML, inconclusive is a failure, not skipped."),
    ] = False,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", help="Write a Markdown table to this file, - for stdout."),
    ] = None,
    json_out: Annotated[
        Path | None,
        typer.Option("--json", help="Write the outcome to this file, - for standard output."),
    ] = None,
    seed: SeedOption = 7,
) -> None:
    """Judge a run, or a file: exit 0 pass, 100 fail, 101 inconclusive."""
    from shield_engine.gates import Outcome, judge, read_gate

    if (file is None) == (run is None):
        raise typer.BadParameter("name either a file or --run RUN_ID", param_hint="FILE")
    if policy is not None and mode is not None:
        raise typer.BadParameter("the policy decides the mode", param_hint="--mode")
    of_file = {
        "--task": task, "--text-column": text_column, "--label-column": label_column,
        "--label-map": label_map, "--variant": variant, "--model": model, "--limit": limit,
        "--workers": workers,
    }  # fmt: skip
    _check_file_options(file, of_file)
    if policy is not None and (variant is not None or model is not None):
        raise typer.BadParameter("the policy decides the model", param_hint="--policy")
    asked = read_gate(gate_file)
    _check_targets(junit, markdown, json_out)
    shield = open_shield()
    with evaluation_store(shield.settings, keep=store or file is None) as opened:
        _check_opened(opened, run or baseline)
        run_id = run or _evaluated(
            opened, shield, asked, file=file, task=task, policy=policy, mode=mode, options=of_file,
            keep=store, seed=seed,
        )  # fmt: skip
        thresholds_of = _thresholds(shield)
        sides = _sides(opened, thresholds_of, run_id, policy, mode, baseline, baseline_policy)
        outcome = judge(
            opened, asked, sides[0], thresholds_of=thresholds_of, baseline=sides[1], seed=seed
        )
    _write_outcome(outcome, junit, markdown, json_out, strict=strict)
    if outcome.outcome is Outcome.FAIL:
        raise typer.Exit(EXIT_FAILED)
    if outcome.outcome is Outcome.INCONCLUSIVE:
        raise typer.Exit(EXIT_INCONCLUSIVE)


def report(
    run_id: Annotated[str, typer.Argument(help="A run's id, as `shield runs` shows it.")],
    out: Annotated[
        Path, typer.Option("--out", help="File to write: .html, .md, .json or .parquet.")
    ],
    policy: PolicyOption = None,
    mode: ModeOption = None,
    gate_file: Annotated[
        Path | None, typer.Option("--gate", help="Judge these requirements, too.")
    ] = None,
    baseline: BaselineOption = None,
    baseline_policy: BaselinePolicyOption = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Replace texts by their hash and length.")
    ] = False,
    seed: SeedOption = 7,
) -> None:
    """Write what a run found: one self-contained file."""
    from shield_engine.gates import judge, read_gate
    from shield_engine.reports import build_report
    from shield_engine.store import Store

    if out.suffix not in _WRITERS:
        raise ConfigError(
            f"{out.suffix or 'no ending'} is not a report format; use {', '.join(_WRITERS)}"
        )
    if policy is not None and mode is not None:
        raise typer.BadParameter("the policy decides the mode", param_hint="--mode")
    _check_targets(out)
    asked = None if gate_file is None else read_gate(gate_file)
    shield = open_shield()
    thresholds_of = _thresholds(shield)
    with Store.open(Settings.from_env().store_path) as store:
        judged, against = _sides(
            store, thresholds_of, run_id, policy, mode, baseline, baseline_policy
        )
        outcome = None
        if asked is not None:
            outcome = judge(
                store, asked, judged, thresholds_of=thresholds_of, baseline=against, seed=seed
            )
        run = store.runs.find(run_id)
        found = build_report(
            store,
            judged,
            thresholds_of(run),
            policy=None if policy is None else _policy_for(policy, run.task),
            baseline=against,
            gate=outcome,
            redact=redact,
            seed=seed,
        )
        _replace_file(out, _WRITERS[out.suffix](store, found))
    note(f"report of run {run_id} in {out}")


# --- what is judged ---------------------------------------------------------------------------


def _check_file_options(file: Path | None, given: Mapping[str, object]) -> None:
    if file is not None and given["--task"] is None:
        raise typer.BadParameter("a file needs --task", param_hint="--task")
    named = [option for option, value in given.items() if value is not None]
    if file is None and named:
        raise typer.BadParameter(
            f"{', '.join(named)} says how to evaluate a file; a run is scored already",
            param_hint="--run",
        )


def _check_opened(store: Store, run_id: str | None) -> None:
    if store.path is None and run_id is not None:
        raise ConfigError(
            f"run {run_id} lies in the store, which another process holds or --no-store leaves "
            "closed; close the dashboard, or judge without it"
        )


def _thresholds(shield: Shield) -> Callable[[RunInfo], Mapping[str, float]]:
    """Return what gives a run's balanced thresholds; none where its model left the registry."""

    def of_run(run: RunInfo) -> Mapping[str, float]:
        variant = Variant(run.variant) if run.variant else Variant.INT8
        try:
            return shield.thresholds(run.task, variant, run.model_id)
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
    thresholds_of: Callable[[RunInfo], Mapping[str, float]],
    run_id: str,
    policy: Path | None,
    mode: Mode | None,
    baseline: str | None,
    baseline_policy: Path | None,
) -> tuple[Candidate, Candidate | None]:
    """Return what is judged and what it is compared with."""
    from shield_engine.decide.candidates import baseline_of, candidate_of

    run = store.runs.find(run_id)
    judged = candidate_of(
        run,
        thresholds_of(run),
        mode=mode,
        policy=None if policy is None else _policy_for(policy, run.task),
    )
    if baseline is None and baseline_policy is None:
        return judged, None
    other = store.runs.find(baseline or run_id)
    if baseline_policy is not None:
        named = _policy_for(baseline_policy, other.task)
        return judged, candidate_of(other, thresholds_of(other), policy=named)
    return judged, baseline_of(judged, run, other, thresholds_of(other))


def _evaluated(
    store: Store,
    shield: Shield,
    asked: Gate,
    *,
    file: Path | None,
    task: str | None,
    policy: Path | None,
    mode: Mode | None,
    options: Mapping[str, Any],
    keep: bool,
    seed: int,
) -> str:
    """Score a file with what the gate needs, and return the run's id."""
    from shield_engine.datasets import parse_label_map
    from shield_engine.evaluate import EvaluationSpec, SuiteItem, evaluate_file
    from shield_engine.runs.bundle import write_bundle

    assert file is not None and task is not None  # noqa: S101, PT018 - checked as usage
    chosen = check_task(task)
    item = SuiteItem(
        path=str(file),
        file=file,
        task=chosen,
        text=options["--text-column"],
        label=options["--label-column"],
        label_map=parse_label_map(options["--label-map"], chosen) if options["--label-map"] else None,
        also_slices=tuple(asked.slice_columns),
    )  # fmt: skip
    spec = EvaluationSpec(
        variant=options["--variant"] or Variant.INT8,
        model_id=options["--model"],
        limit=options["--limit"],
        workers=options["--workers"],
        seed=seed,
    )
    if policy is not None:
        found = _policy_for(policy, chosen)
        for warning in shield.check_policy(found):
            note(f"warning: {printable(warning)}")
        spec, mode = spec.under_policy(found), found.mode
    named = [one.mode for one in asked.requirements if one.mode is not None]
    spec = replace(spec, modes=tuple(dict.fromkeys([mode or Mode.HYBRID, *named])))
    with progress_bar("scoring") as advance:
        result = evaluate_file(
            store, shield, item, spec,
            on_progress=lambda p: advance(f"{p.rows_per_s:,.0f} rows/s", p.rows_done / p.rows),
        )  # fmt: skip
    for warning in result.warnings:
        note(f"warning: {printable(warning)}")
    assert result.run_id is not None  # noqa: S101 - evaluate_file raises instead
    if keep and store.path is None:
        bundle = write_bundle(store, result.run_id, shield.settings.bundles)
        note(f"the store is held by another process; the run waits in {bundle}")
    return result.run_id


# --- what is written --------------------------------------------------------------------------


def _write_outcome(
    outcome: GateOutcome,
    junit: Path | None,
    markdown: Path | None,
    json_out: Path | None,
    *,
    strict: bool,
) -> None:
    from shield_engine.reports import gate_junit, gate_markdown

    if junit is not None:
        _replace_file(junit, gate_junit(outcome, strict=strict).encode())
    texts = []
    if markdown is not None:
        texts.append((markdown, gate_markdown(outcome)))
    if json_out is not None:
        texts.append((json_out, _json_text(outcome.as_dict())))
    for target, text in texts:
        if str(target) == "-":
            sys.stdout.write(text)
        else:
            _replace_file(target, text.encode())
    if not any(str(target) == "-" for target, _ in texts):
        _print_outcome(outcome)


def _print_outcome(outcome: GateOutcome) -> None:
    judged = f"{outcome.candidate}, run {outcome.run_id}"
    if outcome.baseline_run_id is not None:
        judged += f"; baseline {outcome.baseline}, run {outcome.baseline_run_id}"
    table = Table(
        "outcome", "requirement", "numbers", "what would settle it",
        title=Text(printable(judged)), title_justify="left",
    )  # fmt: skip
    for one in outcome.judgements:
        table.add_row(
            Text(one.outcome.value, _STYLES[one.outcome.value]),
            printable(one.requirement.title),
            printable(one.reason),
            printable(one.advice),
        )
    console.print(table)
    console.print(Text(printable(outcome.sentence), _STYLES[outcome.outcome.value]), soft_wrap=True)


def _json_text(document: Any) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _html(store: Store, found: Report) -> bytes:
    from shield_engine.reports import as_html

    return as_html(found).encode()


def _markdown(store: Store, found: Report) -> bytes:
    from shield_engine.reports import as_markdown

    return as_markdown(found).encode()


def _json(store: Store, found: Report) -> bytes:
    return _json_text(found.as_dict()).encode()


def _parquet(store: Store, found: Report) -> bytes:
    import io

    import pyarrow.parquet as pq

    from shield_engine.reports import scored_rows

    buffer = io.BytesIO()
    pq.write_table(scored_rows(store, found), buffer)
    return buffer.getvalue()


_WRITERS: Mapping[str, Callable[[Store, Report], bytes]] = {
    ".html": _html,
    ".md": _markdown,
    ".json": _json,
    ".parquet": _parquet,
}


def _check_targets(*targets: Path | None) -> None:
    """Refuse what cannot be written before anything is computed."""
    for target in targets:
        if target is None or str(target) == "-":
            continue
        if not target.absolute().parent.is_dir():
            raise ConfigError(
                f"{target} cannot be written: {target.absolute().parent} is not a folder"
            )
        if target.is_dir():
            raise ConfigError(f"{target} is a folder; name a file")


def _replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
