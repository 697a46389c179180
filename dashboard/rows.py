"""One row of a run as tables: what each part said, and which rules matched where."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dashboard.widgets import visible
from shield_engine.store import StoredRow
from shield_engine.types import LABELS, Task

__all__ = ["result_facts", "rows_table", "spans_frame"]


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
                "score": span["score"],
                "category": span["category"],
                "rule": span["rule_id"],
                "matched": visible(text[span["start"] : span["end"]]),
                "from": span["start"],
                "to": span["end"],
                "because": span["description"],
            }
            for span in row.matches
        ]
    )
