"""Stored rows and runs as tables for the screen: what several pages show. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from dashboard.text import TASK_TITLES, clock, duration, visible
from shield_engine.store import RunInfo, StoredRow
from shield_engine.types import LABELS, Task

__all__ = ["result_facts", "rows_table", "run_title", "runs_frame", "spans_frame"]


def run_title(run: RunInfo, datasets: Mapping[str, str]) -> str:
    """Return what tells a run from its neighbours."""
    dataset = datasets.get(run.dataset_id, run.dataset_id)
    rules = "rules" if "heuristic" in run.parts else None
    parts = " + ".join(visible(name) for name in (rules, run.scorer) if name)
    return (
        f"{visible(dataset)}, {parts}, {run.rows:,} rows, {run.status}, "
        f"{clock(run.started_at)} ({run.run_id})"
    )


def runs_frame(runs: Iterable[RunInfo], datasets: Mapping[str, str]) -> pd.DataFrame:
    """Return one row a run, in the order given."""
    return pd.DataFrame(
        [
            {
                "Status": run.status,
                "Dataset": visible(datasets.get(run.dataset_id, run.dataset_id)),
                "Rows": f"{run.rows_done:,} / {run.rows:,}",
                "Errors": run.errors,
                "Time": duration(run.seconds),
                "Rows/s": round(run.rows_done / run.seconds) if run.seconds else None,
                "Started": clock(run.started_at),
                "Parts": " + ".join(run.parts),
                "Guard": visible(run.scorer or ""),
                "SHA-256": (run.model_sha256 or "")[:8],
                "Task": TASK_TITLES[run.task],
                "Run": run.run_id,
            }
            for run in runs
        ]
    )


def rows_table(rows: Sequence[StoredRow], task: Task) -> pd.DataFrame:
    """Return a page of rows with both parts' risk, hidden characters written out."""
    names = LABELS[task]
    risky = 1 if len(names) == 2 else 0
    return pd.DataFrame(
        [
            {
                "id": visible(row.row_id),
                "label": names[row.label] if row.label is not None else None,
                f"heuristic P({names[risky]})": row.heuristic and row.heuristic[risky],
                f"ML P({names[risky]})": row.model and row.model[risky],
                "rules": ", ".join(row.rules or ()),
                "text": visible((row.text or "")[:500]),
            }
            for row in rows
        ]
    )


def result_facts(row: StoredRow, task: Task) -> pd.DataFrame:
    """Return everything stored about one row as name and value."""
    names = LABELS[task]

    def probabilities(values: Sequence[float] | None) -> str:
        if values is None:
            return "-"
        return ", ".join(f"{n} {v:.4f}" for n, v in zip(names, values, strict=True))

    facts = {
        "id": visible(row.row_id),
        "label": names[row.label] if row.label is not None else "none",
        "characters": f"{row.chars:,}",
        "heuristic": probabilities(row.heuristic),
        "ML": probabilities(row.model),
        "deciding window": f"characters {row.window_start:,} to {row.window_end:,} "
        f"of {row.windows} windows"
        if row.window_start is not None
        else "-",
        "from the cache": "yes" if row.is_hit else "no",
        "error": visible(row.error or "none"),
        "slices": visible(row.slices or "none"),
    }
    return pd.DataFrame({"What": list(facts), "Value": list(facts.values())})


def spans_frame(row: StoredRow) -> pd.DataFrame:
    """Return the rules that matched a row with the matched text."""
    text = row.text or ""
    return pd.DataFrame(
        [
            {
                "score": hit.score,
                "category": hit.category,
                "rule": hit.rule_id,
                "matched": visible(text[hit.start : hit.end]),
                "from": hit.start,
                "to": hit.end,
                "because": hit.description,
            }
            for hit in row.hits
        ]
    )
