"""What the Errors page shows, computed: ways of judging, tables, marked texts, a chart. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dashboard.theme import PALETTE, figure_of
from dashboard.widgets import MODE_TITLES, clock, milliseconds, visible
from shield_engine.config import DEFAULT_THRESHOLD, Bands
from shield_engine.decide.candidates import of_policy
from shield_engine.decide.figures import available_modes
from shield_engine.errors import ConfigError
from shield_engine.ml import WindowScore
from shield_engine.policy import Policy
from shield_engine.review.contrasts import Contrast
from shield_engine.review.corrections import Suspect
from shield_engine.review.neighbours import Neighbour
from shield_engine.store import DatasetInfo, RunInfo, StoredRow
from shield_engine.store.notes import Annotation
from shield_engine.store.rows import Classes, JudgedRow, RowKind
from shield_engine.types import LABELS, Mode, Task

__all__ = [
    "KIND_TITLES",
    "MARKS",
    "JudgeOption",
    "contrast_chart",
    "contrast_frame",
    "history_frame",
    "judge_options",
    "judged_frame",
    "kinds_of",
    "lineage_frame",
    "marked",
    "neighbour_frame",
    "no_rows_text",
    "said_frame",
    "suspect_frame",
    "timing_frame",
    "verdict_text",
    "windows_frame",
]

KIND_TITLES: Mapping[RowKind, str] = {
    RowKind.ERRORS: "All errors",
    RowKind.FALSE_POSITIVES: "False positives",
    RowKind.FALSE_NEGATIVES: "False negatives",
    RowKind.NEAR: "Near the threshold",
    RowKind.CORRECT: "Decided correctly",
    RowKind.FAILED: "Without a score",
    RowKind.ALL: "All rows",
}

MARKS = ("⟦", "⟧")
"""What stands around a matched span in a shown text."""

_SHOWN_CHARS = 300
_DRAWN = 15


@dataclass(frozen=True, slots=True)
class JudgeOption:
    """One way of judging to choose.

    Attributes:
        key: What widgets and links carry: `hybrid`, `policy:strict:2`.
        title: What the list of choices shows.
        mode: Which parts decide.
        threshold: Where a row is flagged, before the user moves it.
        bands: Hybrid bands.
    """

    key: str
    title: str
    mode: Mode
    threshold: float
    bands: Bands


def judge_options(
    run: RunInfo, thresholds: Mapping[str, float], policies: Iterable[Policy]
) -> dict[str, JudgeOption]:
    """Return the modes of a run at their balanced thresholds, then the policies that fit it."""
    found = [
        JudgeOption(
            mode.value,
            f"{MODE_TITLES[mode]}, balanced",
            mode,
            thresholds.get(mode.value, DEFAULT_THRESHOLD),
            Bands(),
        )
        for mode in available_modes(run)
    ]
    for policy in policies:
        try:
            candidate = of_policy(policy, run)
        except ConfigError:
            continue  # made for another task, part or model; it cannot judge these scores
        found.append(
            JudgeOption(
                f"policy:{policy.name}:{policy.version}",
                f"Policy {visible(policy.title)} ({MODE_TITLES[policy.mode].lower()})",
                candidate.mode,
                DEFAULT_THRESHOLD if candidate.threshold is None else candidate.threshold,
                candidate.bands,
            )
        )
    return {option.key: option for option in found}


def kinds_of(classes: Classes, *, is_labelled: bool) -> tuple[RowKind, ...]:
    """Return the kinds of rows that can be asked for."""
    rest = (RowKind.NEAR, RowKind.FAILED, RowKind.ALL)
    if not is_labelled:
        return rest
    sides = (RowKind.FALSE_POSITIVES, RowKind.FALSE_NEGATIVES) if classes.is_binary else ()
    return (RowKind.ERRORS, *sides, RowKind.NEAR, RowKind.CORRECT, RowKind.FAILED, RowKind.ALL)


def no_rows_text(kind: RowKind) -> str:
    """Return the sentence for a view without rows."""
    return {
        RowKind.ERRORS: "No errors in this view.",
        RowKind.FALSE_POSITIVES: "No false positives in this view.",
        RowKind.FALSE_NEGATIVES: "No false negatives in this view.",
        RowKind.NEAR: "No row is this near to the threshold in this view.",
        RowKind.CORRECT: "No row is decided correctly in this view.",
        RowKind.FAILED: "Every row of this view has a score.",
        RowKind.ALL: "No row passes these filters.",
    }[kind]


# --- tables ---------------------------------------------------------------------------------


def judged_frame(
    rows: Sequence[JudgedRow],
    contents: Mapping[int, StoredRow],
    said: Mapping[int, Annotation],
    classes: Classes,
    task: Task,
    current: int | None = None,
) -> pd.DataFrame:
    """Return a page of judged rows.

    Args:
        rows: In the order shown.
        contents: Id, text and rules by row index.
        said: What holds for annotated rows, by row index.
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
                "Review": _review(said.get(row.row_index), task),
                "Text": shown_text(contents[row.row_index].text),
            }
            for row in rows
        ],
        columns=["Open", "Id", "Label", "Verdict", "Score", "Regret", "Rules", "Review", "Text"],
    )


def shown_text(text: str | None) -> str:
    """Return the head of a text for a cell, hidden characters written out."""
    return "(purged)" if text is None else visible(text[:_SHOWN_CHARS])


def _name(index: int | None, names: Sequence[str], absent: str = "none") -> str:
    return absent if index is None else names[index]


def _review(one: Annotation | None, task: Task) -> str:
    if one is None:
        return ""
    parts = [f"label {LABELS[task][one.label]}"] if one.label is not None else []
    parts += [visible(tag) for tag in one.tags]
    return ", ".join([*parts, "note"] if one.note else parts)


def said_frame(said: Mapping[Mode, tuple[JudgedRow | None, Classes, float]]) -> pd.DataFrame:
    """Return what each mode says of one row at its threshold."""
    rows = []
    for mode, (row, classes, threshold) in said.items():
        is_scored = row is not None and row.verdict is not None
        rows.append(
            {
                "Mode": MODE_TITLES[mode],
                "Score": row.risk if row is not None else None,
                "Threshold": f"{threshold:.3g}" if classes.is_binary else "most probable",
                "Verdict": _name(row.verdict if row else None, classes.names, "no score"),
                "Is": ("wrong" if row.is_error else "right")
                if row is not None and is_scored and row.truth is not None
                else "",
            }
        )
    return pd.DataFrame(rows)


def verdict_text(row: JudgedRow, classes: Classes, threshold: float) -> str:
    """Return one sentence on a row's verdict."""
    if row.verdict is None or row.risk is None:
        return "This mode needed the model, and the model failed on this row: there is no score."
    said = classes.names[row.verdict]
    if not classes.is_binary:
        head = f"Said to be {said} with probability {row.risk:.3f}."
    else:
        side = "at or above" if row.verdict == 1 else "below"
        head = f"Score {row.risk:.3f} is {side} the threshold {threshold:.3g}: said to be {said}."
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
    same: Sequence[StoredRow],
    near: Sequence[tuple[Neighbour, StoredRow]],
    label: int | None,
    task: Task,
) -> pd.DataFrame:
    """Return the rows like one row: exact copies first, then by similarity.

    Args:
        same: Rows with exactly the same text.
        near: Other rows with their similarity.
        label: Class index of the row itself.
        task: Names the labels.
    """
    copies = {row.row_index for row in same}
    found = [(Neighbour(row.row_index, 1.0, row.label), row, "same text") for row in same]
    found += [
        (one, row, "nearly the same" if one.is_near_duplicate else "alike")
        for one, row in near
        if one.row_index not in copies
    ]
    return pd.DataFrame(
        [
            {
                "Id": visible(row.row_id),
                "Similarity": one.similarity,
                "Is": kind,
                "Label": _name(one.label, LABELS[task]),
                "Conflict": "other label" if one.conflicts_with(label) else "",
                "Text": shown_text(row.text),
            }
            for one, row, kind in found
        ],
        columns=["Id", "Similarity", "Is", "Label", "Conflict", "Text"],
    )


def history_frame(history: Sequence[Annotation], task: Task) -> pd.DataFrame:
    """Return everything that was said of a row, newest first."""
    return pd.DataFrame(
        [
            {
                "When": clock(one.created_at) if one.created_at else "",
                "Label": "" if one.label is None else LABELS[task][one.label],
                "Tags": visible(", ".join(one.tags)),
                "Note": visible(one.note),
            }
            for one in history
        ]
    )


def suspect_frame(
    suspects: Sequence[Suspect],
    contents: Mapping[int, StoredRow],
    said: Mapping[int, Annotation],
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
        row["Neighbours"] = (
            ""
            if suspect.agreeing is None
            else f"{suspect.agreeing} of {suspect.neighbours} agree"
            if suspect.neighbours
            else "none alike"
        )
        row["Review"] = _review(said.get(suspect.row_index), task)
        row["Text"] = shown_text(contents[suspect.row_index].text)
        rows.append(row)
    return pd.DataFrame(rows)


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
                name: visible(one.item),
                "Of errors": f"{one.errors:,} ({one.errors / errors:.0%})",
                "Of others": f"{one.others:,} ({one.others / others:.0%})",
                "Log-odds": one.log_odds,
                "z": one.z,
                "Beyond chance": "yes" if one.is_decided else "",
            }
            for one in contrasts
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


# --- text and chart -------------------------------------------------------------------------


def marked(text: str, row: StoredRow) -> str:
    """Return a text with its matched spans between marks; spans that touch are joined.

    Args:
        text: As it was scanned.
        row: Whose spans are marked.
    """
    merged: list[list[int]] = []
    for start, end in sorted((span["start"], span["end"]) for span in row.matches):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    pieces, last = [], 0
    for start, end in merged:
        pieces += [text[last:start], MARKS[0], text[start:end], MARKS[1]]
        last = end
    return "".join([*pieces, text[last:]])


def contrast_chart(contrasts: Sequence[Contrast], errors: int, others: int) -> go.Figure:
    """Return the strongest items as bars of their z, decided ones in full colour."""
    drawn = contrasts[:_DRAWN]
    # Plotly reads some markup in its labels; rules of users may hold any letters.
    names = [html.escape(visible(one.item), quote=False) for one in drawn]
    return figure_of(
        go.Bar(
            x=[one.z for one in drawn],
            y=list(range(len(drawn))),
            orientation="h",
            marker={
                "color": [PALETTE["bad" if one.is_decided else "muted"] for one in drawn],
                "pattern": {"shape": ["" if one.is_decided else "/" for one in drawn]},
            },
            customdata=[
                [name, one.errors, one.others] for name, one in zip(names, drawn, strict=True)
            ],
            hovertemplate=(
                f"%{{customdata[0]}}: in %{{customdata[1]:,}} of {errors:,} errors and in "
                f"%{{customdata[2]:,}} of {others:,} other rows, z = %{{x:.1f}}<extra></extra>"
            ),
        ),
        height=90 + 24 * len(drawn),
        xaxis={"title": "z: standard errors above what the other rows show", "rangemode": "tozero"},
        yaxis={
            "tickvals": list(range(len(drawn))),
            "ticktext": names,
            "autorange": "reversed",
        },
        showlegend=False,
    )


def windows_frame(scores: Sequence[WindowScore], task: Task) -> pd.DataFrame:
    """Return what the model says of each window of a text."""
    names = LABELS[task]
    return pd.DataFrame(
        [
            {
                "Window": number,
                "From": score.start,
                "To": score.end,
                "Tokens": score.tokens,
                **{
                    f"P({name})": round(float(share), 4)
                    for name, share in zip(names, score.probabilities, strict=True)
                },
            }
            for number, score in enumerate(scores, start=1)
        ]
    )
