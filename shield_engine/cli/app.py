"""The command's tree: what each subcommand takes, and what it calls."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from shield_engine.cli.decide import gate, report
from shield_engine.cli.output import (
    console,
    note,
    print_evaluation,
    print_scan,
    printable,
    size,
)
from shield_engine.cli.policies import policies as policies_command
from shield_engine.cli.session import (
    evaluation_store,
    free_port,
    open_shield,
    progress_bar,
    read_text,
)
from shield_engine.config import SAFE_BAND, Bands, ScannerConfig, check_task
from shield_engine.errors import ConfigError
from shield_engine.metrics.table import percent
from shield_engine.policy import Policy, read_policies
from shield_engine.settings import Settings
from shield_engine.types import Mode, Task, Variant

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Evaluate, tune and watch the scanners that guard language models.",
)

EXIT_FLAGGED = 100

TaskOption = Annotated[
    str | None, typer.Option("--task", help="prompt_injection, toxicity or sentiment.")
]
VariantOption = Annotated[
    Variant, typer.Option(case_sensitive=False, help="Precision of the model's weights.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Registry id; the task's default if absent.")
]
ModesOption = Annotated[
    str, typer.Option("--modes", help="Comma-separated: heuristic, ml, hybrid, both.")
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Instead of the registry's balanced threshold."),
]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", help="Write the figures to this file, - for standard output."),
]
ScoresOption = Annotated[
    Path | None, typer.Option("--scores", help="Write every row's scores to this Parquet file.")
]
StoreOption = Annotated[
    bool, typer.Option("--store/--no-store", help="Keep datasets and runs for the dashboard.")
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the first N rows.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Threads that score rows.")]
ReuseOption = Annotated[
    bool,
    typer.Option(
        "--reuse", help="Take the model's scores from an earlier run of the same file and model."
    ),
]
UpperOption = Annotated[
    float,
    typer.Option(
        "--hybrid-upper", min=0.0, max=1.0, help="Heuristic score that ends a hybrid scan as risky."
    ),
]
LowerOption = Annotated[
    float | None,
    typer.Option(
        "--hybrid-lower",
        min=0.0,
        max=1.0,
        help="Heuristic score that ends it as safe; off if absent.",
    ),
]
SafeOption = Annotated[
    float,
    typer.Option(
        "--hybrid-safe",
        min=0.0,
        max=1.0,
        help="Where no rule matched, score of the linear tier that ends it as safe; 0 is off.",
    ),
]
PolicyOption = Annotated[
    Path | None,
    typer.Option("--policy", help="A shield.toml: decides mode, model, threshold and bands."),
]
PeersOption = Annotated[
    bool,
    typer.Option(
        "--peers", help="Score the same rows with the installed scanners of other makers, too."
    ),
]
SeedOption = Annotated[int, typer.Option(help="Of the bootstrap intervals.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        console.print(f"llm-shield {metadata.version('llm-shield')}", highlight=False)
        raise typer.Exit


@app.command()
def dashboard(
    port: Annotated[
        int | None, typer.Option(help="Port; 8501 or the next free one if absent.")
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser window.")
    ] = False,
    host: Annotated[
        list[str] | None,
        typer.Option(help="A further name it may be asked for by, as a tunnel's; repeatable."),
    ] = None,
) -> None:
    """Serve the dashboard on 127.0.0.1."""
    package = util.find_spec("dashboard")
    if package is None or package.origin is None:
        raise ConfigError("the package dashboard is not installed beside shield_engine")
    chosen = port or free_port(8501)
    home = Settings.from_env().home
    note(f"LLM Shield on http://127.0.0.1:{chosen}  (store: {home}; stop with Ctrl+C)")
    # -P: a file of the current folder must not stand in for a package.
    command = [sys.executable, "-P", "-m", "dashboard.server", "--port", str(chosen)]
    command += [word for name in host or () for word in ("--host", name)]
    command += ["--browser"] if open_browser else []
    # One process, so that whoever stops `shield dashboard` stops the server and frees the store.
    os.execv(sys.executable, command)  # noqa: S606 - a fixed argument list, no shell


@app.command()
def scan(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="The text, or - to read standard input.")],
    task: TaskOption = None,
    mode: Annotated[Mode, typer.Option(help="Which parts decide.")] = Mode.HYBRID,
    variant: VariantOption = Variant.INT8,
    threshold: ThresholdOption = None,
    policy: PolicyOption = None,
    json_out: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help=f"Exit with {EXIT_FLAGGED} if a scanner flags the text."),
    ] = False,
) -> None:
    """Judge one text with one scanner, or with all three."""
    from dataclasses import asdict, replace

    policies = _policies(context, policy, ("mode", "variant", "threshold"))
    shield = open_shield(policies=policies)
    content = read_text(text)
    tasks = [check_task(task)] if task else list(policies or Task)
    config = None
    if policies is None:
        config = replace(ScannerConfig.for_mode(mode, variant), threshold=threshold)
    else:
        _check_covered(policies, tasks)
    results = {one: shield.scanner(one, config).scan(content) for one in tasks}
    if json_out:
        document = {one.value: asdict(result) for one, result in results.items()}
        print(json.dumps(document, indent=2))  # noqa: T201 - the command's output
    else:
        print_scan(results)
    if exit_code and not all(result.is_valid for result in results.values()):
        raise typer.Exit(EXIT_FLAGGED)


@app.command("eval")
def evaluate(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, JSON or Parquet, plain or .gz.")],
    task: Annotated[str, typer.Option(help="prompt_injection, toxicity or sentiment.")],
    modes: ModesOption = "heuristic,ml,hybrid,both",
    variant: VariantOption = Variant.INT8,
    model: ModelOption = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the texts.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels.")] = None,
    label_map: Annotated[
        str | None, typer.Option(help="File's values to classes: 1=attack,0=benign.")
    ] = None,
    slice_column: Annotated[
        list[str] | None,
        typer.Option(help="Give the figures by value of this column, too; may be repeated."),
    ] = None,
    threshold: ThresholdOption = None,
    hybrid_upper: UpperOption = 0.9,
    hybrid_lower: LowerOption = None,
    hybrid_safe: SafeOption = SAFE_BAND,
    policy: PolicyOption = None,
    limit: LimitOption = None,
    workers: WorkersOption = None,
    reuse: ReuseOption = False,
    peers: PeersOption = False,
    seed: SeedOption = 7,
    json_out: JsonOption = None,
    scores: ScoresOption = None,
    store: StoreOption = True,
) -> None:
    """Score a file once and give the figures of every mode."""
    from shield_engine.datasets import parse_label_map
    from shield_engine.evaluate import SuiteItem

    chosen = check_task(task)
    item = SuiteItem(
        path=str(file),
        file=file,
        task=chosen,
        text=text_column,
        label=label_column,
        label_map=parse_label_map(label_map, chosen) if label_map else None,
        slices=tuple(slice_column or ()),
    )
    policies = _policies(context, policy, _POLICY_DECIDES)
    spec = _spec(
        modes,
        variant,
        model,
        threshold,
        hybrid_upper,
        hybrid_lower,
        hybrid_safe,
        limit,
        workers,
        seed,
        policies,
        reuse,
        peers,
    )
    _evaluate([item], spec, json_out, scores, store)


@app.command()
def suite(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help='JSON: {"datasets": [{"path", "task", ...}]}.')],
    task: TaskOption = None,
    modes: ModesOption = "heuristic,ml,hybrid,both",
    variant: VariantOption = Variant.INT8,
    model: ModelOption = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of the texts where the suite names none.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of the labels where the suite names none.")
    ] = None,
    label_map: Annotated[
        str | None, typer.Option(help="File's values to classes where the suite has none.")
    ] = None,
    slice_column: Annotated[
        list[str] | None, typer.Option(help="Slice column where the suite names none.")
    ] = None,
    threshold: ThresholdOption = None,
    hybrid_upper: UpperOption = 0.9,
    hybrid_lower: LowerOption = None,
    hybrid_safe: SafeOption = SAFE_BAND,
    policy: PolicyOption = None,
    limit: LimitOption = None,
    workers: WorkersOption = None,
    reuse: ReuseOption = False,
    peers: PeersOption = False,
    seed: SeedOption = 7,
    json_out: JsonOption = None,
    scores: ScoresOption = None,
    store: StoreOption = True,
) -> None:
    """Evaluate every file of a suite; --task keeps only that task's files."""
    from dataclasses import replace

    from shield_engine.datasets import parse_label_map
    from shield_engine.evaluate import load_suite

    items = [item for item in load_suite(file) if task is None or item.task is check_task(task)]
    items = [
        replace(
            item,
            text=item.text or text_column,
            label=item.label or label_column,
            label_map=item.label_map
            or (parse_label_map(label_map, item.task) if label_map else None),
            slices=item.slices or tuple(slice_column or ()),
        )
        for item in items
    ]
    if not items:
        raise ConfigError(
            f"suite {file} names no dataset of task {task}" if task else f"suite {file} is empty"
        )
    policies = _policies(context, policy, _POLICY_DECIDES)
    spec = _spec(
        modes,
        variant,
        model,
        threshold,
        hybrid_upper,
        hybrid_lower,
        hybrid_safe,
        limit,
        workers,
        seed,
        policies,
        reuse,
        peers,
    )
    _evaluate(items, spec, json_out, scores, store)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer calls: under a minute.")] = False,
    workbench: Annotated[
        bool,
        typer.Option("--workbench", help="Time the pages' questions to a large synthetic run."),
    ] = False,
    rows: Annotated[
        int | None, typer.Option(min=1_000, help="Of that run: 1,000,000, with --quick 100,000.")
    ] = None,
    soak: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Scan for so many minutes instead; are scores and memory steady?"
        ),
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option("--compare", help="Name what changed since this file of `bench --json`."),
    ] = None,
    markdown_out: Annotated[
        Path | None,
        typer.Option("--markdown", help="Write the tables to this file, or between its marks."),
    ] = None,
    json_out: JsonOption = None,
    store: StoreOption = True,
) -> None:
    """Measure this machine: loading, tokenizing, inference, cache, end to end; or the workbench."""
    from shield_engine.benchmark import (
        as_markdown,
        compare,
        comparison_markdown,
        read_document,
        run_benchmark,
        run_workbench,
    )

    if rows is not None and not workbench:
        raise typer.BadParameter("goes with --workbench", param_hint="--rows")
    if soak is not None and (workbench or before or markdown_out):
        raise typer.BadParameter("goes with --json only", param_hint="--soak")
    earlier = read_document(_read_bytes(before)) if before else None
    if soak is not None:
        _soak(soak, json_out or Path("-"))
        return
    shield = open_shield()
    with progress_bar("measuring") as advance:
        if workbench:
            document = run_workbench(rows or (100_000 if quick else 1_000_000), on_progress=advance)
        else:
            document = run_benchmark(shield, quick=quick, on_progress=advance)
    if json_out is not None:
        _write_json(json_out, document)
    if markdown_out is not None:
        _write_between_marks(markdown_out, as_markdown(document))
    if json_out is None or str(json_out) != "-":
        console.print(as_markdown(document), markup=False, highlight=False, soft_wrap=True)
        if earlier is not None:
            told = comparison_markdown(compare(earlier, document))
            console.print(told, markup=False, highlight=False, soft_wrap=True)
    if store and not workbench:
        with evaluation_store(shield.settings) as opened:
            if opened.path is None:
                note(
                    "the store is held by another process; this benchmark was not kept (use --json)"
                )
            else:
                from shield_engine.store.library import save_benchmark

                save_benchmark(opened, document)


@app.command()
def datasets() -> None:
    """List stored datasets, bundled samples and public benchmark sets."""
    from shield_engine.settings import bundled

    with evaluation_store(Settings.from_env()) as opened:
        table = Table(
            "id",
            "dataset",
            "task",
            "rows",
            "labelled",
            "quarantined",
            "imported (UTC)",
            title="Stored",
        )
        for info in opened.datasets.all():
            table.add_row(
                info.dataset_id, printable(info.title), info.task.value, f"{info.rows:,}", f"{info.labelled:,}",
                f"{info.quarantined:,}", f"{info.created_at:%Y-%m-%d %H:%M}",
            )  # fmt: skip
        if opened.path is None:
            note("the store is held by another process; stored datasets are not listed")
    console.print(
        table if table.row_count else "No dataset is stored yet: shield eval FILE --task ..."
    )
    samples = Table("bundled sample", "size", title="Samples")
    for path in sorted(bundled("datasets").glob("*.jsonl")):
        samples.add_row(str(path), size(path.stat().st_size))
    console.print(samples)
    catalogue = Table(
        "public set",
        "task",
        "rows",
        "licence",
        "home",
        title="Public benchmark sets (fetch them yourself)",
    )
    for entry in json.loads(bundled("datasets", "catalogue.json").read_text(encoding="utf-8")):
        catalogue.add_row(
            entry["name"],
            entry["task"],
            str(entry.get("rows") or ""),
            entry["licence"],
            entry["home"],
        )
    console.print(catalogue)


@app.command()
def models(
    action: Annotated[
        Literal["list", "build"],
        typer.Argument(help="`build` makes the FP32 file of each model from its FP16 file."),
    ] = "list",
    fetch: Annotated[
        str | None, typer.Option(help="Fetch and verify the model of this id.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file that is here.")] = False,
) -> None:
    """List the registry; fetch, verify or build model files."""
    shield = open_shield()
    artifacts = shield.loader.artifacts
    if action == "build":
        from shield_engine.ml.variants import build_fp32

        built = [
            entry for entry in shield.registry.entries
            if any(source.startswith("build:") for source in entry.sources)
        ]  # fmt: skip
        for entry in built:
            _, path = build_fp32(shield.registry, artifacts, entry.id)
            note(f"{entry.id} {entry.variant}: {path}")
        if not built:
            note("no model of this registry is built here")
    if fetch is not None:
        chosen = [entry for entry in shield.registry.entries if entry.id == fetch]
        if not chosen:
            shield.registry.get(fetch)
        for entry in chosen:
            with progress_bar(f"{entry.id} {entry.variant}") as advance:
                files = artifacts.fetch(
                    entry,
                    lambda done, total: advance("bytes", done / total if total else 0.0),
                )
            note(f"{files.model}: SHA-256 is as the registry says")
    table = Table(
        "id", "task", "variant", "size", "SHA-256", "licence", "window", "balanced", "state"
    )
    for entry in shield.registry.entries:
        is_built = any(source.startswith("build:") for source in entry.sources)
        absent = "not built yet" if is_built else "not fetched"
        state = "present" if artifacts.is_present(entry) else absent
        if verify and state == "present":
            artifacts.fetch(entry)
            state = "verified"
        table.add_row(
            entry.id, entry.task.value, entry.variant.value, size(entry.size_bytes), entry.sha256[:12],
            entry.licence, str(entry.max_length),
            ", ".join(f"{mode} {value:g}" for mode, value in entry.thresholds.items()), state,
        )  # fmt: skip
    console.print(table)


@app.command()
def runs(
    resume: Annotated[str | None, typer.Option(help="Go on with the run of this id.")] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="With --resume: score failed rows again.")
    ] = False,
    delete: Annotated[
        str | None, typer.Option(help="Drop the run of this id and its scores.")
    ] = None,
) -> None:
    """List stored runs; resume or delete one."""
    from shield_engine.runs.execution import execute
    from shield_engine.store import Store

    settings = Settings.from_env()
    with Store.open(settings.store_path) as store:
        if delete is not None:
            store.runs.delete(delete)
            note(f"run {delete} is gone")
        if resume is not None:
            shield = open_shield(settings)
            with progress_bar(f"run {resume}") as advance:
                execute(
                    store, shield, resume, retry_errors=retry_errors,
                    on_progress=lambda p: advance(f"{p.rows_per_s:,.0f} rows/s", p.rows_done / p.rows),
                )  # fmt: skip
        table = Table(
            "run",
            "dataset",
            "task",
            "parts",
            "model",
            "status",
            "rows",
            "errors",
            "seconds",
            "started (UTC)",
        )
        names = {info.dataset_id: info.title for info in store.datasets.all()}
        for run in store.runs.all():
            table.add_row(
                run.run_id, printable(names.get(run.dataset_id, "")), run.task.value, "+".join(run.parts),
                f"{run.model_id} {run.variant}" if run.model_id else "", run.status,
                f"{run.rows_done:,}/{run.rows:,}", str(run.errors), f"{run.seconds:.1f}",
                f"{run.started_at:%Y-%m-%d %H:%M}",
            )  # fmt: skip
    console.print(table if table.row_count else "No run is stored yet: shield eval FILE --task ...")


@app.command()
def export(
    run_id: Annotated[str, typer.Argument(help="A run's id, as `shield runs` shows it.")],
    out: Annotated[Path, typer.Argument(help="File to write: .parquet or .csv.")],
) -> None:
    """Write every row's scores of a run to a new file."""
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    from shield_engine.decide.figures import scores_table
    from shield_engine.store import Store

    if out.exists():
        raise ConfigError(f"{out} exists already; nothing is overwritten")
    with Store.open(Settings.from_env().store_path) as store:
        table = scores_table(store, run_id)
    if out.suffix == ".parquet":
        pq.write_table(table, out)
    elif out.suffix == ".csv":
        from shield_engine.hostile_text import neutralised

        pa_csv.write_csv(neutralised(table), out)
    else:
        raise ConfigError(
            f"{out.suffix or 'no ending'} is not a format to export to; use .parquet or .csv"
        )
    note(f"{len(table):,} rows in {out}")


@app.command()
def train(
    task: Annotated[str, typer.Option(help="prompt_injection, toxicity or sentiment.")],
    data: Annotated[
        Path,
        typer.Option(help="JSON Lines or CSV with text, label and, if known, source; may be .gz."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the model and its report.")],
    start: Annotated[
        str | None,
        typer.Option(
            help="Id of the model to go on from; the task's default if not given, `encoder` for "
            "the bare encoder."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the rows.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=8, max=512, help="Tokens a text is cut to.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the encoder; the head takes five times as much.")
    ] = None,
    replay: Annotated[
        float | None,
        typer.Option(min=0, help="Replayed texts per row of yours, against forgetting."),
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(help="A source to judge by instead of a fifth of the rows; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides the split and the order.")] = 7,
) -> None:
    """Fine-tune a bundled model on your labels and compare before and after (extra: train)."""
    import logging

    from shield_engine.training import Recipe
    from shield_engine.training import train as train_model

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given: dict[str, Any] = {
        "start": start,
        "epochs": epochs,
        "max_length": max_length,
        "learning_rate": learning_rate,
        "head_learning_rate": 5 * learning_rate if learning_rate is not None else None,
        "replay": replay,
        "validation_sources": tuple(hold_out) if hold_out else None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    shield = open_shield()
    report = train_model(
        Recipe.for_task(check_task(task), seed=seed, **changes),
        data,
        out,
        registry=shield.registry,
        artifacts=shield.loader.artifacts,
    )
    note(
        f"{report.rows:,} rows, going on from {report.started_from}, in {report.seconds:,.0f} s: "
        f"{report.model_path}"
    )
    for name, value in report.validation.items():
        note(f"  {name} on {report.validation_rows:,} held-out rows: {percent(value)}")
    for comparison in report.comparisons:
        note(
            f"  {comparison.name} ({comparison.n:,}): accuracy {percent(comparison.before)} before, "
            f"{percent(comparison.after)} after; {comparison.verdict} (p {comparison.p_value:.3f})"
        )
    note(f"use it: export SHIELD_REGISTRY={report.registry_path}")


@app.command()
def doctor() -> None:
    """Check the installation: packages, store, models, a scan; exit 1 if something is wrong."""
    from shield_engine.cli.doctor import checks

    failed = False
    for name, outcome, detail in checks():
        failed |= outcome == "wrong"
        console.print(
            f"{outcome:>7}  {name}: {detail}", markup=False, highlight=False, soft_wrap=True
        )
    raise typer.Exit(int(failed))


app.command("policies")(policies_command)
app.command("gate")(gate)
app.command("report")(report)


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


def _spec(
    modes: str,
    variant: Variant,
    model: str | None,
    threshold: float | None,
    upper: float,
    lower: float | None,
    safe: float,
    limit: int | None,
    workers: int | None,
    seed: int,
    policies: Mapping[Task, Policy] | None,
    reuse: bool,
    peers: bool,
) -> Any:
    from shield_engine.evaluate import EvaluationSpec

    return EvaluationSpec(
        modes=_modes(modes),
        variant=variant,
        model_id=model,
        threshold=threshold,
        bands=Bands(upper, lower, safe or None),
        limit=limit,
        workers=workers,
        seed=seed,
        policies=policies,
        reuse=reuse,
        peers=peers,
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


def _policies(
    context: typer.Context, file: Path | None, decided: Sequence[str]
) -> dict[Task, Policy] | None:
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


def _check_covered(policies: Mapping[Task, Policy], tasks: Sequence[Task]) -> None:
    missing = [task.value for task in tasks if task not in policies]
    if missing:
        raise ConfigError(f"the policy file has no policy for {', '.join(missing)}")


def _evaluate(
    items: list[Any], spec: Any, json_out: Path | None, scores_out: Path | None, keep: bool
) -> None:
    """Evaluate and print; write the figures and scores asked for; exit 1 if a file failed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shield_engine.evaluate import evaluate_suite
    from shield_engine.runs.bundle import write_bundle

    to_stdout = json_out is not None and str(json_out) == "-"
    for target in (json_out, scores_out):
        if target is not None and str(target) != "-" and not target.absolute().parent.is_dir():
            raise ConfigError(
                f"{target} cannot be written: {target.absolute().parent} is not a folder"
            )
        if target is not None and target.is_dir():
            raise ConfigError(f"{target} is a folder; name a file")
    shield = open_shield()
    with evaluation_store(shield.settings, keep=keep) as store, progress_bar("scoring") as advance:
        results = evaluate_suite(
            store, shield, items, spec,
            on_progress=lambda p: advance(f"{p.rows_per_s:,.0f} rows/s", p.rows_done / p.rows),
            on_item=lambda result: None if to_stdout else print_evaluation(result),
            keep_scores=scores_out is not None,
        )  # fmt: skip
        if keep and store.path is None:
            for result in results:
                if result.run_id is not None:
                    bundle = write_bundle(store, result.run_id, shield.settings.bundles)
                    note(f"the store is held by another process; the run waits in {bundle}")
    if json_out is not None:
        _write_json(json_out, {"datasets": [result.as_dict() for result in results]})
    if scores_out is not None:
        tables = [
            result.scores.add_column(0, "path", pa.array([result.item.path] * len(result.scores)))
            for result in results
            if result.scores is not None
        ]
        if tables:
            pq.write_table(pa.concat_tables(tables, promote_options="default"), scores_out)
    if any(result.error for result in results):
        raise typer.Exit(1)


def _soak(minutes: float, out: Path) -> None:
    from shield_engine.benchmark import run_soak

    with progress_bar("soaking") as advance:
        outcome = run_soak(open_shield(), minutes=minutes, on_progress=advance)
    _write_json(out, outcome)
    if outcome["wrong_scores"]:
        raise typer.Exit(1)


def _write_between_marks(path: Path, tables: str) -> None:
    """Replace what a page holds between its marks; a file that is not there gets the tables alone."""
    from shield_engine.reports.markdown import replace_figures

    if path.exists():
        replace_figures(path, tables.partition("\n\n")[2])  # the page has a title of its own
    else:
        path.write_text(tables, encoding="utf-8")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _write_json(path: Path, document: Any) -> None:
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
