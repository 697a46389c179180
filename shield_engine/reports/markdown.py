"""A report, or a gate's outcome, as Markdown for a build log or a step summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shield_engine.errors import ConfigError
from shield_engine.gates import GateOutcome, Judgement, Outcome
from shield_engine.hostile_text import fenced, markdown_text, visible
from shield_engine.metrics.table import figure_text
from shield_engine.reports.report import ModeFigures, Report, leaves

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
    path.write_text(f"{before}{start}\n{tables}{end}{after}", encoding="utf-8")


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
            [_gate_row(one) for one in outcome.judgements],
        ),
    ]
    return "\n".join(lines) + "\n"


def _gate_row(one: Judgement) -> list[str]:
    cells = (one.requirement.title, one.reason, one.advice)
    return [f"{_SIGNS[one.outcome]} {one.outcome.value}", *(markdown_text(cell) for cell in cells)]


def as_markdown(report: Report) -> str:
    """Return the whole report; texts stand in fenced blocks that they cannot leave."""
    parts = [
        f"# Run {report.run.run_id}: {markdown_text(report.dataset.title)}",
        markdown_text(report.sentence),
        *_unscored(report),
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


def _unscored(report: Report) -> list[str]:
    missing = report.run.rows - report.run.rows_done
    said = []
    if missing:
        said.append(f"{missing:,} of {report.run.rows:,} rows are not scored yet.")
    if report.run.errors:
        said.append(f"{report.run.errors:,} rows failed in the model and count in no figure.")
    return said


def _figures(report: Report) -> list[str]:
    names = report.metric_names
    rows = [
        [name, *(markdown_text(figure_text(name, one.evaluation.metrics[name], 'line')) for one in report.modes)]
        for name in names
    ]  # fmt: skip
    rows += _counts(report.modes)
    head = ("", *(markdown_text(one.title) for one in report.modes))
    methods = sorted(
        {
            figure.method
            for one in report.modes
            for name in names
            if (figure := one.evaluation.metrics[name]).method
        }
    )
    note = f"In brackets: 95% intervals. Methods: {markdown_text('; '.join(methods) or 'none')}."
    return ["\n".join(_table(head, rows)), note]


def _counts(modes: Sequence[ModeFigures]) -> list[list[str]]:
    every = [one.evaluation for one in modes]
    return [
        ["rows scored / errors", *(f"{one.n:,} / {one.errors:,}" for one in every)],
        ["flagged", *(f"{one.flagged:,}" for one in every)],
        ["model asked", *(f"{one.asked:,}" for one in every)],
        ["p50 / p95 / p99 ms, n", *(_latency(one.latency) for one in every)],
    ]


def _latency(summary: object) -> str:
    found = [getattr(summary, name) for name in ("p50", "p95", "p99")]
    if None in found:
        return "-"
    return f"{' / '.join(f'{ms:.3g}' for ms in found)}, n {getattr(summary, 'n', 0):,}"


def _comparisons(report: Report) -> list[str]:
    parts = []
    for title, found in (
        ("Against the baseline", report.baseline),
        ("Against the run's other modes", report.comparison),
    ):
        if found is None or not found.pairs:
            continue
        lines = [f"- {markdown_text(pair.verdict)}" for pair in found.pairs]
        parts += [f"## {title}", "\n".join(lines)]
    return parts


def _slices(report: Report) -> list[str]:
    names = list(report.slices[0].metrics)
    rows = [
        [markdown_text(one.column), markdown_text(one.value) or "(none)", f"{one.n:,}"]
        + [markdown_text(figure_text(name, one.metrics[name], "line")) for name in names]
        for one in report.slices
    ]
    return _table(("Column", "Value", "Rows", *names), rows)


def _errors(report: Report) -> list[str]:
    parts = []
    for one in report.errors:
        rules = f"; rules {', '.join(one.rules)}" if one.rules else ""
        parts.append(
            markdown_text(
                f"{one.kind}: row {one.row_id} is {one.label}, said {one.said} at {one.score:.3f}{rules}"
            )
        )
        shown = one.text[:_TEXT_LIMIT]
        more = len(one.text) - len(shown)
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
