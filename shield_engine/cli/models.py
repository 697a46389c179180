"""`shield models` and `shield train`: the registry's files, and new ones from your rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shield_engine.cli.output import note, print_table, size
from shield_engine.cli.session import open_shield, option, progress_bar, with_options
from shield_engine.config import check_task
from shield_engine.metrics.table import percent

if TYPE_CHECKING:
    from shield_engine.engine import Shield
    from shield_engine.ml import ModelEntry
    from shield_engine.training import TrainingReport

__all__ = ["models", "train"]


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
    if action == "build":
        _build(shield)
    if fetch is not None:
        _fetch(shield, fetch)

    def state(entry: ModelEntry) -> str:
        if not shield.loader.artifacts.is_present(entry):
            return "not built yet" if _is_built(entry) else "not fetched"
        if not verify:
            return "present"
        shield.loader.artifacts.fetch(entry)
        return "verified"

    columns: Mapping[str, Callable[[ModelEntry], str]] = {
        "id": lambda entry: entry.id,
        "task": lambda entry: entry.task.value,
        "variant": lambda entry: entry.variant.value,
        "size": lambda entry: size(entry.size_bytes),
        "SHA-256": lambda entry: entry.sha256[:12],
        "licence": lambda entry: entry.licence,
        "window": lambda entry: str(entry.max_length),
        "balanced": lambda e: ", ".join(f"{mode} {cut:g}" for mode, cut in e.thresholds.items()),
        "state": state,
    }
    print_table(columns, shield.registry.entries)


def _is_built(entry: ModelEntry) -> bool:
    return any(source.startswith("build:") for source in entry.sources)


def _build(shield: Shield) -> None:
    from shield_engine.ml.variants import build_fp32

    entries = [entry for entry in shield.registry.entries if _is_built(entry)]
    for entry in entries:
        _, path = build_fp32(shield.registry, shield.loader.artifacts, entry.id)
        note(f"{entry.id} {entry.variant}: {path}")
    if not entries:
        note("no model of this registry is built here")


def _fetch(shield: Shield, model_id: str) -> None:
    entries = [entry for entry in shield.registry.entries if entry.id == model_id]
    if not entries:
        shield.registry.get(model_id)  # says which are known
    for entry in entries:
        with progress_bar(f"{entry.id} {entry.variant}") as advance:
            files = shield.loader.artifacts.fetch(
                entry, lambda done, total: advance("bytes", done / total if total else 0.0)
            )
        note(f"{files.model}: SHA-256 is as the registry says")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What may differ from the task's recipe."""

    start: str | None = option(
        None,
        "Id of the model to go on from; the task's default if not given, `encoder` for the bare "
        "encoder.",
    )
    epochs: int | None = option(None, "Passes over the rows.", min=1)
    max_length: int | None = option(None, "Tokens a text is cut to.", min=8, max=512)
    learning_rate: float | None = option(None, "Of the encoder; the head takes five times as much.")
    replay: float | None = option(
        None, "Replayed texts per row of yours, against forgetting.", min=0
    )
    hold_out: list[str] | None = option(
        None, "A source to judge by instead of a fifth of the rows; repeatable."
    )
    seed: int = option(7, "Decides the split and the order.")

    def changes(self) -> dict[str, Any]:
        """Return the recipe's fields that were given."""
        rate = self.learning_rate
        given = {
            "start": self.start,
            "epochs": self.epochs,
            "max_length": self.max_length,
            "learning_rate": rate,
            "head_learning_rate": None if rate is None else 5 * rate,
            "replay": self.replay,
            "validation_sources": tuple(self.hold_out) if self.hold_out else None,
            "seed": self.seed,
        }
        return {name: value for name, value in given.items() if value is not None}


@with_options
def train(
    task: Annotated[str, typer.Option(help="prompt_injection, toxicity or sentiment.")],
    data: Annotated[
        Path,
        typer.Option(help="JSON Lines or CSV with text, label and, if known, source; may be .gz."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the model and its report.")],
    options: TrainingOptions,
) -> None:
    """Fine-tune a bundled model on your labels and compare before and after (extra: train)."""
    import logging

    from shield_engine.training import Recipe
    from shield_engine.training import train as train_model

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    shield = open_shield()
    recipe = Recipe.for_task(check_task(task), **options.changes())
    artifacts = shield.loader.artifacts
    _tell(train_model(recipe, data, out, registry=shield.registry, artifacts=artifacts))


def _tell(report: TrainingReport) -> None:
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
