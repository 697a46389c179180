"""A report, or a gate's outcome, as Markdown for a build log or a step summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shield_engine.errors import ConfigError
from shield_engine.gates import GateOutcome, Judgement, Outcome
from shield_engine.hostile_text import fenced, markdown_text, visible
from shield_engine.metrics.table import figure_text
from shield_engine.reports.report import Report, leaves
from shield_engine.settings import write_file

__all__ = ["as_markdown", "gate_markdown", "replace_figures"]

_SIGNS = {
    Outcome.PASS: "✅",
    Outcome.FAIL: "❌",
    Outcome.INCONCLUSIVE: "❔",
    Outcome.SKIPPED: "➖",
}
_TEXT_LIMIT = 2_000
_START, _END = "<!-- figures:start -->", "<!-- figures:end -->"


def replace_figures(path: Path, tables: str) -> None:
    """Replace what a page of a document holds between its two marks.

    Args:
        path: The page.
        tables: Whole lines.

    Raises:
        ConfigError: The page lacks the marks; it stays as it is.
    """
    page = path.read_text(encoding="utf-8")
    before, start, rest = page.partition(_START)
    _, end, after = rest.partition(_END)
    if not (start and end):
        raise ConfigError(
            f"{path} is there already and lacks the lines {_START} and {_END}; "
            "add them where the tables belong, or name a new file"
        )
    write_file(path, f"{before}{start}\n{tables}{end}{after}")


def gate_markdown(outcome: GateOutcome) -> str:
    """Return a compact table: outcome, requirement, numbers, and what would settle it."""
    judged = f"Judged: {outcome.candidate}, run {outcome.run_id}"
    if outcome.baseline_run_id is not None:
        judged += f"; baseline: {outcome.baseline}, run {outcome.baseline_run_id}"
    lines = [
        f"### {_SIGNS[outcome.outcome]} {markdown_text(outcome.sentence)}",
        "",
        f"{markdown_text(judged)}.",
        "",
        *_table(
            ("Outcome", "Requirement", "Numbers", "What would settle it"),
            [_gate_row(judgement) for judgement in outcome.judgements],
        ),
    ]
    return "\n".join(lines) + "\n"


def _gate_row(judgement: Judgement) -> list[str]:
    cells = (judgement.requirement.title, judgement.reason, judgement.advice)
    return [
        f"{_SIGNS[judgement.outcome]} {judgement.outcome.value}",
        *(markdown_text(cell) for cell in cells),
    ]


def as_markdown(report: Report) -> str:
    """Return the whole report; texts stand in fenced blocks that they cannot leave."""
    parts = [
        f"# Run {report.run.run_id}: {markdown_text(report.dataset.title)}",
        markdown_text(report.sentence),
        *report.gaps,
    ]
    if report.gate is not None:
        parts.append(gate_markdown(report.gate).strip())
    parts += ["## Figures", *_figures(report)]
    parts += _comparisons(report)
    if report.policy is not None:
        parts += [f"## Policy {markdown_text(report.policy.title)}", fenced(report.policy_file)]
    if report.slices:
        parts += ["## Slices", "\n".join(_slices(report))]
    if report.errors:
        parts += ["## Worst errors", *_errors(report)]
    parts += ["## Stamp", "\n".join(_table(("What", "Value"), _stamp(report)))]
    parts += ["## How to repeat it", fenced("\n".join(report.commands))]
    return "\n\n".join(parts) + "\n"


def _figures(report: Report) -> list[str]:
    head = ("", *(markdown_text(mode.title) for mode in report.modes))
    rows = [[name, *map(markdown_text, cells)] for name, *cells in report.figure_rows]
    note = f"In brackets: 95% intervals. Methods: {markdown_text(report.methods)}."
    return ["\n".join(_table(head, rows)), note]


def _comparisons(report: Report) -> list[str]:
    parts = []
    for title, compared in report.comparisons:
        lines = [f"- {markdown_text(pair.verdict)}" for pair in compared.pairs]
        parts += [f"## {title}", "\n".join(lines)]
    return parts


def _slices(report: Report) -> list[str]:
    names = list(report.slices[0].metrics)
    rows = [
        [markdown_text(part.column), markdown_text(part.value) or "(none)", f"{part.n:,}"]
        + [markdown_text(figure_text(name, part.metrics[name], "line")) for name in names]
        for part in report.slices
    ]
    return _table(("Column", "Value", "Rows", *names), rows)


def _errors(report: Report) -> list[str]:
    parts = []
    for error in report.errors:
        rules = f"; rules {', '.join(error.rules)}" if error.rules else ""
        parts.append(
            markdown_text(
                f"{error.kind}: row {error.row_id} is {error.label}, said {error.said} at {error.score:.3f}{rules}"
            )
        )
        shown = error.text[:_TEXT_LIMIT]
        more = len(error.text) - len(shown)
        parts.append(fenced(shown) + (f"\n\n({more:,} more characters)" if more else ""))
    return parts


def _stamp(report: Report) -> list[list[str]]:
    dataset = report.dataset
    head = {
        "run": report.run.run_id,
        "dataset": f"{dataset.title}, {dataset.rows:,} rows, {dataset.labelled:,} labelled",
        "file": dataset.source,
        "seed": report.seed,
    }
    return [
        [markdown_text(name), markdown_text(value)]
        for name, value in (*leaves(head), *leaves(report.run.stamp))
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(visible(cell) or ' ' for cell in head)} |"]
    lines.append(f"|{' --- |' * len(head)}")
    return lines + [f"| {' | '.join(row)} |" for row in rows]
