"""What the Errors page shows, computed: kinds of rows, tables, sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from dashboard.text import MODE_TITLES, clock, milliseconds, shortened, visible
from dashboard.widgets import column
from shield_engine.ml import WindowScore
from shield_engine.review.contrasts import Contrast
from shield_engine.review.suspects import Neighbour, Suspect
from shield_engine.store import DatasetInfo, StoredRow
from shield_engine.store.notes import Annotation
from shield_engine.store.rows import Classes, JudgedRow, RowKind
from shield_engine.types import LABELS, Mode, Task

__all__ = [
    "KIND_TEXTS",
    "PROBABILITY",
    "contrast_frame",
    "history_frame",
    "judged_frame",
    "kinds_of",
    "lineage_frame",
    "mode_frame",
    "neighbour_frame",
    "row_title",
    "suspect_frame",
    "timing_frame",
    "verdict_text",
    "windows_frame",
]

KIND_TEXTS: Mapping[RowKind, tuple[str, str]] = {
    RowKind.ERRORS: ("All errors", "No errors in this view."),
    RowKind.FALSE_POSITIVES: ("False positives", "No false positives in this view."),
    RowKind.FALSE_NEGATIVES: ("False negatives", "No false negatives in this view."),
    RowKind.NEAR: ("Near the threshold", "No row is this near to the threshold in this view."),
    RowKind.CORRECT: ("Decided correctly", "No row is decided correctly in this view."),
    RowKind.FAILED: ("Without a score", "Every row of this view has a score."),
    RowKind.ALL: ("All rows", "No row passes these filters."),
}
"""The title of each kind of rows, and the sentence for a view without any."""

PROBABILITY = column(number="%.3f")
"""How tables show a probability."""

_SHOWN_CHARS = 300


def kinds_of(classes: Classes, *, is_labelled: bool) -> tuple[RowKind, ...]:
    """Return the kinds of rows that can be asked for."""
    rest = (RowKind.NEAR, RowKind.FAILED, RowKind.ALL)
    if not is_labelled:
        return rest
    sides = (RowKind.FALSE_POSITIVES, RowKind.FALSE_NEGATIVES) if classes.is_binary else ()
    return (RowKind.ERRORS, *sides, RowKind.NEAR, RowKind.CORRECT, RowKind.FAILED, RowKind.ALL)


# --- tables ---------------------------------------------------------------------------------


def judged_frame(
    rows: Sequence[JudgedRow],
    contents: Mapping[int, StoredRow],
    notes: Mapping[int, Annotation],
    classes: Classes,
    task: Task,
    current: int | None = None,
) -> pd.DataFrame:
    """Return a page of judged rows.

    Args:
        rows: In the order shown.
        contents: Id, text and rules by row index.
        notes: What holds for annotated rows, by row index.
        classes: What verdicts index.
        task: Names corrected labels.
        current: Row index of the row that is open.
    """
    return pd.DataFrame(
        [
            {
                "Open": "▶" if row.row_index == current else "",
                "Id": visible(contents[row.row_index].row_id),
                "Label": _name(row.truth, classes.names),
                "Verdict": _name(row.verdict, classes.names, "no score"),
                "Score": row.risk,
                "Regret": row.regret,
                "Rules": visible(", ".join(contents[row.row_index].rules or ())),
                "Review": _review(notes.get(row.row_index), task),
                "Text": shortened(contents[row.row_index].text, _SHOWN_CHARS),
            }
            for row in rows
        ],
        columns=["Open", "Id", "Label", "Verdict", "Score", "Regret", "Rules", "Review", "Text"],
    )


def row_title(row: StoredRow) -> str:
    """Return a row's id with the head of its text."""
    return f"{visible(row.row_id)}: {shortened(row.text, _SHOWN_CHARS)[:80]}"


def _name(index: int | None, names: Sequence[str], absent: str = "none") -> str:
    return absent if index is None else names[index]


def _review(note: Annotation | None, task: Task) -> str:
    if note is None:
        return ""
    parts = [f"label {LABELS[task][note.label]}"] if note.label is not None else []
    parts += [visible(tag) for tag in note.tags]
    return ", ".join([*parts, "note"] if note.note else parts)


def mode_frame(verdicts: Mapping[Mode, tuple[JudgedRow | None, Classes, float]]) -> pd.DataFrame:
    """Return what each mode says of one row at its threshold."""
    rows = []
    for mode, (row, classes, threshold) in verdicts.items():
        verdict, truth = (row.verdict, row.truth) if row is not None else (None, None)
        is_judged = verdict is not None and truth is not None
        rows.append(
            {
                "Mode": MODE_TITLES[mode],
                "Score": None if row is None else row.risk,
                "Threshold": f"{threshold:.3g}" if classes.is_binary else "most probable",
                "Verdict": _name(verdict, classes.names, "no score"),
                "Is": ("wrong" if verdict != truth else "right") if is_judged else "",
            }
        )
    return pd.DataFrame(rows)


def verdict_text(row: JudgedRow, classes: Classes, threshold: float) -> str:
    """Return one sentence on a row's verdict."""
    if row.verdict is None or row.risk is None:
        return "This mode needed the model, and the model failed on this row: there is no score."
    verdict = classes.names[row.verdict]
    if not classes.is_binary:
        head = f"Said to be {verdict} with probability {row.risk:.3f}."
    else:
        side = "at or above" if row.verdict == 1 else "below"
        head = (
            f"Score {row.risk:.3f} is {side} the threshold {threshold:.3g}: said to be {verdict}."
        )
    if row.truth is None:
        return f"{head} It has no label."
    if not row.is_error:
        return f"{head} The label agrees."
    return f"{head} The label says {classes.names[row.truth]}; regret {row.regret:.3f}."


def timing_frame(row: StoredRow) -> pd.DataFrame:
    """Return what each part of a row's scan took."""
    names = {
        "normalise_ms": "Undo disguises",
        "rules_ms": "Match rules",
        "tokenize_ms": "Split into tokens",
        "infer_ms": "Run the model",
        "hit_ms": "Answer from the cache",
    }
    return pd.DataFrame(
        [
            {"Part": title, "Time": milliseconds(getattr(row, name))}
            for name, title in names.items()
            if getattr(row, name) is not None
        ],
        columns=["Part", "Time"],
    )


def neighbour_frame(
    copies: Sequence[int],
    near: Sequence[Neighbour],
    contents: Mapping[int, StoredRow],
    label: int | None,
    task: Task,
) -> pd.DataFrame:
    """Return the rows like one row: exact copies first, then by similarity.

    Args:
        copies: Row indexes of the rows with exactly the same text.
        near: Alike rows; copies may be among them.
        contents: Id, text and label by row index.
        label: Class index of the row itself.
        task: Names the labels.
    """
    alike = [(Neighbour(index, 1.0, contents[index].label), "same text") for index in copies]
    alike += [
        (neighbour, "nearly the same" if neighbour.is_near_duplicate else "alike")
        for neighbour in near
        if neighbour.row_index not in set(copies)
    ]
    return pd.DataFrame(
        [
            {
                "Id": visible(contents[neighbour.row_index].row_id),
                "Similarity": neighbour.similarity,
                "Is": kind,
                "Label": _name(neighbour.label, LABELS[task]),
                "Conflict": "other label" if neighbour.conflicts_with(label) else "",
                "Text": shortened(contents[neighbour.row_index].text, _SHOWN_CHARS),
            }
            for neighbour, kind in alike
        ],
        columns=["Id", "Similarity", "Is", "Label", "Conflict", "Text"],
    )


def history_frame(history: Sequence[Annotation], task: Task) -> pd.DataFrame:
    """Return everything that was noted of a row, newest first."""
    return pd.DataFrame(
        [
            {
                "When": clock(note.created_at) if note.created_at else "",
                "Label": "" if note.label is None else LABELS[task][note.label],
                "Tags": visible(", ".join(note.tags)),
                "Note": visible(note.note),
            }
            for note in history
        ]
    )


def suspect_frame(
    suspects: Sequence[Suspect],
    contents: Mapping[int, StoredRow],
    notes: Mapping[int, Annotation],
    task: Task,
) -> pd.DataFrame:
    """Return suspected label errors, in the order given."""
    names = LABELS[task]
    rows = []
    for suspect in suspects:
        row = {
            "Id": visible(contents[suspect.row_index].row_id),
            "Label": names[suspect.label],
            "Suggested": names[suspect.suggested],
            "Suspicion": suspect.score,
        }
        for part, share in suspect.shares.items():
            row[f"{'Rules' if part == 'heuristic' else 'Model'}: P(label)"] = share
        row["Neighbours"] = _agreement(suspect)
        row["Review"] = _review(notes.get(suspect.row_index), task)
        row["Text"] = shortened(contents[suspect.row_index].text, _SHOWN_CHARS)
        rows.append(row)
    return pd.DataFrame(rows)


def _agreement(suspect: Suspect) -> str:
    if suspect.agreeing is None:
        return ""
    if not suspect.neighbours:
        return "none alike"
    return f"{suspect.agreeing} of {suspect.neighbours} agree"


def contrast_frame(
    contrasts: Sequence[Contrast], name: str, errors: int, others: int
) -> pd.DataFrame:
    """Return what stands out, with the share of rows on either side.

    Args:
        contrasts: In the order shown.
        name: What an item is.
        errors: Errors that were read.
        others: Correctly decided rows that were read.
    """
    return pd.DataFrame(
        [
            {
                name: visible(contrast.item),
                "Of errors": f"{contrast.errors:,} ({contrast.errors / errors:.0%})",
                "Of others": f"{contrast.others:,} ({contrast.others / others:.0%})",
                "Log-odds": contrast.log_odds,
                "z": contrast.z,
                "Beyond chance": "yes" if contrast.is_decided else "",
            }
            for contrast in contrasts
        ],
        columns=[name, "Of errors", "Of others", "Log-odds", "z", "Beyond chance"],
    )


def lineage_frame(line: Sequence[DatasetInfo]) -> pd.DataFrame:
    """Return a version and those it came from, with what changed."""
    rows = []
    for info in line:
        change = info.details.get("corrected_from") or {}
        rows.append(
            {
                "Version": visible(info.title),
                "Rows": info.rows,
                "Made from": visible(change.get("title", "")) or "an import",
                "Relabelled": f"{change['relabelled']:,}" if change else "",
                "Left out": f"{change['excluded']:,}" if change else "",
                "Made": clock(info.created_at),
            }
        )
    return pd.DataFrame(rows)


def windows_frame(scores: Sequence[WindowScore], task: Task) -> pd.DataFrame:
    """Return what the model says of each window of a text."""
    names = LABELS[task]
    return pd.DataFrame(
        [
            {
                "Window": number,
                "From": score.place.start,
                "To": score.place.end,
                "Tokens": score.place.tokens,
                **{
                    f"P({name})": round(float(share), 4)
                    for name, share in zip(names, score.probabilities, strict=True)
                },
            }
            for number, score in enumerate(scores, start=1)
        ]
    )
