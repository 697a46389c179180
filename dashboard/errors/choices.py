"""What the Errors page lets choose: the way of judging, filters, and which kind of rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.errors import queries
from dashboard.errors.tables import KIND_TEXTS, kinds_of
from dashboard.options import judge_options
from dashboard.state import RunKey, balanced, resources
from dashboard.text import plain, visible
from dashboard.widgets import pick
from shield_engine.decide.slices import LENGTH_BANDS, in_length_band
from shield_engine.decide.views import RowJudge
from shield_engine.store import DatasetInfo, RunInfo
from shield_engine.store.library import policies
from shield_engine.store.notes import annotation_count, tag_counts
from shield_engine.store.rows import (
    Classes,
    Disagreement,
    ErrorCounts,
    RowFilter,
    RowKind,
)
from shield_engine.types import Mode

__all__ = ["PINNED", "VIEW", "Subject", "choose_kind", "choose_rows", "choose_subject", "open_row"]

_T = TypeVar("_T")

VIEW = "errors_view"
"""Session key: the part of the page on show."""
PINNED = "errors_pinned"
"""Session key: (run, row index) of a row that is open outside of the list."""

_ANY = "any"
_COLUMNS = 4
_DISAGREEMENTS: Mapping[Disagreement, str] = {
    Disagreement.ANY: "disagree",
    Disagreement.RULES_ONLY: "only rules flag",
    Disagreement.MODEL_ONLY: "only the model flags",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What the page is about in this run of the script.

    Attributes:
        notes: How often something was noted of the dataset's rows; cached counts depend on it.
        limits: Balanced threshold of each mode of the run.
    """

    run: RunInfo
    info: DatasetInfo
    judgement: RowJudge
    classes: Classes
    notes: int
    limits: Mapping[str, float]

    @property
    def key(self) -> RunKey:
        """The run as it is stored now, for what is cached."""
        return RunKey.of(self.run)


def choose_subject(run: RunInfo) -> Subject:
    """Let the user choose mode or policy, threshold, and whether corrected labels count."""
    store, limits = resources().store, balanced(run)
    info = store.datasets.find(run.dataset_id)
    options = judge_options(run, limits, policies(store))
    left, middle, right = st.columns([5, 3, 4], vertical_alignment="bottom")
    with left:
        key = pick(
            "Judge by",
            {name: option.label for name, option in options.items()},
            key="errors_judge",
            default=Mode.HYBRID.value if Mode.HYBRID.value in options else None,
            in_url="mode",
            help="A mode at the threshold the registry calls balanced, or a policy saved in the "
            "Threshold lab.",
        )
    option, candidate = options[key], options[key].candidate
    notes = annotation_count(store, info.dataset_id)
    is_corrected = right.toggle(
        "Count corrected labels",
        key=f"errors_corrected:{info.dataset_id}",
        disabled=not notes,
        help="Judge rows by the labels you corrected here. Other pages go by the imported labels "
        "until you make a corrected version of the dataset.",
    )
    judgement = RowJudge(
        run.run_id,
        candidate.mode,
        option.threshold,
        candidate.bands,
        bool(is_corrected and notes),
    )
    classes = queries.classes_of(judgement, RunKey.of(run), notes)
    if classes.is_binary:
        threshold = middle.number_input(
            "Threshold",
            0.0,
            1.0,
            option.threshold,
            0.01,
            format="%.3f",
            key=f"errors_threshold:{run.run_id}:{key}",
            help="A row is flagged if its score is at least this.",
        )
        judgement = replace(judgement, threshold=float(threshold))
    return Subject(run, info, judgement, classes, notes, limits)


def open_row(run_id: str, row_index: int) -> None:
    """Open a row outside of the list."""
    st.session_state[PINNED] = (run_id, row_index)
    st.session_state[VIEW] = "Rows"


# --- filters --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where filters go, from left to right and then from the top; `key` tells subjects apart."""

    key: str
    places: Iterator[DeltaGenerator]

    @classmethod
    def of(cls, subject: Subject) -> _Grid:
        """Return an empty grid, whose lines are made as they are needed."""
        lines = (st.columns(_COLUMNS) for _ in itertools.count())
        key = f"{subject.run.run_id}:{subject.judgement.mode.value}"
        return cls(key, itertools.chain.from_iterable(lines))

    def one_of(
        self,
        title: str,
        options: Mapping[_T, str],
        name: str,
        *,
        nothing: str | None = _ANY,
        scope: str | None = None,
        **more: Any,
    ) -> _T | None:
        """Let the user choose an option by its title, or `nothing`, which returns `None`."""
        chosen: Any = next(self.places).selectbox(
            title,
            [nothing, *options],
            format_func=lambda option: _ANY if option == nothing else options[option],
            key=f"errors_{name}:{scope or self.key}",
            **more,
        )
        return None if chosen == nothing else chosen


def choose_rows(subject: Subject) -> RowFilter:
    """Let the user narrow the rows; conditions combine."""
    choices = queries.choices(subject.key)
    with st.expander("Filters", icon=":material/filter_alt:"):
        grid = _Grid.of(subject)
        search = next(grid.places).text_input(
            "Text contains",
            key=f"errors_search:{grid.key}",
            icon=":material/search:",
            disabled=subject.info.purged,
            help="Letter by letter, without regard to case.",
        )
        label = grid.one_of("Label", dict(enumerate(subject.classes.names)), "label")
        bands = LENGTH_BANDS if choices.has_long else LENGTH_BANDS[:-1]
        band = grid.one_of("Length", {name: name for name in bands}, "band")
        rule = grid.one_of("Matched rule", _counted(choices.rules), "rule")
        categories = {name: visible(name) for name in sorted(set(choices.categories.values()))}
        category = grid.one_of("Rule category", categories, "category")
        rows = _review_filter(subject, grid)
        slices = [
            (name, value)
            for name, counts in choices.slices.items()
            for value in [
                grid.one_of(plain(name[:60]), _counted(counts), f"slice:{name}", nothing=None)
            ]
            if value is not None
        ]
    rows = replace(
        rows,
        search=search or "",
        label=label,
        rule=rule,
        category=category,
        slices=tuple(slices),
    )
    return rows if band is None else in_length_band(rows, band)


def _counted(counts: Mapping[str, int]) -> dict[str, str]:
    return {
        name: f"{visible(name) or '(empty)'} ({count:,} rows)" for name, count in counts.items()
    }


def _review_filter(subject: Subject, grid: _Grid) -> RowFilter:
    """Let the user choose rows by how the parts differ, what was noted, and what is near."""
    ways = list(_DISAGREEMENTS) if subject.classes.is_binary else [Disagreement.ANY]
    disagreement = grid.one_of(
        "Rules and model",
        {way: _DISAGREEMENTS[way] for way in ways},
        "disagreement",
        nothing=None,
        disabled=len(subject.run.parts) < 2,
        help="Each part at its own balanced threshold.",
    )
    states: dict[bool | str, str] = {False: "not reviewed", True: "reviewed"}
    tags = tag_counts(resources().store, subject.info.dataset_id)
    status = grid.one_of(
        "Review",
        states | {tag: f"tag: {visible(tag)}" for tag in tags},
        "status",
        scope=subject.info.dataset_id,
        help="Reviewed rows have a note, a corrected label or a tag.",
    )
    near = next(grid.places).number_input(
        "Near means within",
        0.0,
        1.0,
        0.05,
        0.01,
        key="errors_near",
        help="Distance of the score to the threshold. With three classes: of the most probable "
        "label to the runner-up.",
    )
    return RowFilter(
        near=float(near),
        disagreement=disagreement,
        part_thresholds=(subject.limits.get("heuristic", 0.5), subject.limits.get("ml", 0.5)),
        tag=status if isinstance(status, str) else None,
        is_annotated=status if isinstance(status, bool) else None,
    )


def choose_kind(subject: Subject, counts: ErrorCounts) -> RowKind:
    """Let the user choose which rows, with how many there are of each kind."""
    possible = kinds_of(subject.classes, is_labelled=bool(counts.labelled or subject.info.labelled))
    return pick(
        "Which rows",
        {
            kind: f"{KIND_TEXTS[kind][0]} ({counts.of(kind):,})"
            for kind in possible
            if kind is not RowKind.FAILED or counts.failed
        },
        key=f"errors_kind:{subject.info.dataset_id}:{subject.classes.is_binary}",
        in_url="kind",
        segmented=True,
        label_visibility="collapsed",
    )
