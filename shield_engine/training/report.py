"""What a training run made and how it did: for the caller, as JSON and as a model card."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from shield_engine.settings import file_sha256, write_file
from shield_engine.training.recipe import Recipe

__all__ = ["ModelComparison", "TrainingReport", "write_report"]


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """Old and new model on the same rows.

    Attributes:
        name: What the rows are.
        n: Rows.
        before: Accuracy of the old model at threshold .5 (or by the most probable class).
        after: Accuracy of the new one.
        after_low: Lower end of its 95% Wilson interval.
        after_high: Upper end.
        only_before: Rows that only the old model has right.
        only_after: Rows that only the new one has right.
        p_value: Exact McNemar test, two-sided, Holm-adjusted over the comparisons of the report.
    """

    name: str
    n: int
    before: float
    after: float
    after_low: float
    after_high: float
    only_before: int
    only_after: int
    p_value: float

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `undecided` at 95% confidence."""
        if self.p_value > 0.05:
            return "undecided"
        return "better" if self.only_after > self.only_before else "worse"


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training run made and how it did on rows it never saw.

    Attributes:
        model_path: The INT8 file.
        half_model_path: The FP16 file, which a later run can go on from.
        tokenizer_path: The tokenizer beside them.
        registry_path: A registry with both, for `SHIELD_REGISTRY`.
        model_id: Id of the new model.
        started_from: Id of the model it went on from, or `encoder`.
        recipe: Hyper-parameters.
        rows: Rows trained on.
        validation_rows: Rows held out.
        replay_rows: Texts of the project's own that were replayed.
        seconds: Wall time.
        sources: Rows trained on, by source.
        validation: Accuracy, balanced accuracy and macro F1 on the held-out rows, FP32.
        comparisons: Old against new; empty where there is no old model.
        bias_shift: What was taken from each logit; zeros where a model was gone on from.
    """

    model_path: Path
    half_model_path: Path
    tokenizer_path: Path
    registry_path: Path
    model_id: str
    started_from: str
    recipe: Recipe
    rows: int
    validation_rows: int
    replay_rows: int
    seconds: float
    sources: dict[str, int]
    validation: dict[str, float] = field(default_factory=dict)
    comparisons: tuple[ModelComparison, ...] = ()
    bias_shift: tuple[float, ...] = ()


def write_report(report: TrainingReport, out: Path) -> None:
    """Write `training.json` for programs and `README.md` for readers."""
    document = asdict(report) | {
        name: getattr(report, name).name
        for name in ("model_path", "half_model_path", "tokenizer_path", "registry_path")
    }
    document["model_sha256"] = file_sha256(report.model_path)
    write_file(out / "training.json", json.dumps(document, indent=2) + "\n")
    write_file(out / "README.md", _card(report))


def _card(report: TrainingReport) -> str:
    recipe = report.recipe
    lines = [
        f"# {report.model_id}",
        "",
        f"A {recipe.task.value} classifier, made from {report.rows:,} rows, going on from "
        f"{report.started_from}; {report.validation_rows:,} rows were held out.",
        "",
        "| setting | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in asdict(recipe).items()),
        f"| replayed texts | {report.replay_rows:,} |",
        f"| seconds | {report.seconds:,.0f} |",
        "",
        "On the held-out rows: "
        + ", ".join(f"{name} {value:.1%}" for name, value in report.validation.items())
        + ".",
        "",
    ]
    if report.comparisons:
        lines += [
            "| rows | n | before | after (95% interval) | only before right | only after right | "
            "p | verdict |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(
                f"| {c.name} | {c.n:,} | {c.before:.1%} | {c.after:.1%} ({c.after_low:.1%} to "
                f"{c.after_high:.1%}) | {c.only_before} | {c.only_after} | {c.p_value:.3f} | "
                f"{c.verdict} |"
                for c in report.comparisons
            ),
            "",
        ]
    lines.append("Use it: `export SHIELD_REGISTRY=.../registry.json`, then name its id.")
    return "\n".join(lines) + "\n"
