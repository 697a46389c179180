"""What the Errors page lets choose: the way of judging, filters, and which kind of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.errors import queries
from dashboard.errors.tables import KIND_TITLES, judge_options, kinds_of
from dashboard.state import RunKey, balanced, resources
from dashboard.text import plain, visible
from dashboard.widgets import pick
from shield_engine.decide.judged import RowJudge
from shield_engine.decide.slices import LENGTH_BANDS
from shield_engine.review.corrections import in_length_band
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

T = TypeVar("T")

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
    store, limits = resources().store, dict(balanced(run))
    info = store.datasets.find(run.dataset_id)
    options = judge_options(run, limits, policies(store))
    left, middle, right = st.columns([5, 3, 4], vertical_alignment="bottom")
    with left:
        key = pick(
            "Judge by",
            {name: option.title for name, option in options.items()},
            key="errors_judge",
            default=Mode.HYBRID.value if Mode.HYBRID.value in options else None,
            in_url="mode",
            help="A mode at the threshold the registry calls balanced, or a policy saved in the "
            "Threshold lab.",
        )
    chosen = options[key]
    notes = annotation_count(store, info.dataset_id)
    is_corrected = right.toggle(
        "Count corrected labels",
        key=f"errors_corrected:{info.dataset_id}",
        disabled=not notes,
        help="Judge rows by the labels you corrected here. Other pages go by the imported labels "
        "until you make a corrected version of the dataset.",
    )
    judgement = RowJudge(
        run.run_id, chosen.mode, chosen.threshold, chosen.bands, bool(is_corrected and notes)
    )
    classes = queries.classes_of(judgement, RunKey.of(run), notes)
    if classes.is_binary:
        threshold = middle.number_input(
            "Threshold",
            0.0,
            1.0,
            chosen.threshold,
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


def choose_rows(subject: Subject) -> RowFilter:
    """Let the user narrow the rows; conditions combine."""
    choices = queries.choices(subject.key)
    key = f"{subject.run.run_id}:{subject.judgement.mode.value}"
    with st.expander("Filters", icon=":material/filter_alt:"):
        places = _grid()
        rows = _filter_of_texts(subject, choices.has_long, places, key)
        rule = _one_of(
            "Matched rule",
            {name: f"{visible(name)} ({count:,} rows)" for name, count in choices.rules.items()},
            next(places),
            key=f"errors_rule:{key}",
        )
        category = _one_of(
            "Rule category",
            {name: visible(name) for name in sorted(set(choices.categories.values()))},
            next(places),
            key=f"errors_category:{key}",
        )
        rows = replace(rows, rule=rule, category=category)
        rows = _filter_of_review(subject, places, rows, key)
        slices = [
            (name, value)
            for name, values in choices.slices.items()
            if (value := _slice_value(name, values, next(places), key)) is not None
        ]
    return replace(rows, slices=tuple(slices))


def _grid() -> Iterator[DeltaGenerator]:
    """Yield places from left to right, then from the top."""
    while True:
        yield from st.columns(_COLUMNS)


def _one_of(
    title: str,
    options: Mapping[T, str],
    place: DeltaGenerator,
    *,
    key: str,
    help: str | None = None,  # noqa: A002 - Streamlit's own word for hover text
    disabled: bool = False,
    nothing: str | None = _ANY,
) -> T | None:
    """Let the user choose an option by its title, or `nothing`, for which `None` is returned."""
    chosen: Any = place.selectbox(
        title,
        [nothing, *options],
        format_func=lambda option: options.get(option, _ANY),
        key=key,
        help=help,
        disabled=disabled,
    )
    return None if chosen == nothing else chosen


def _filter_of_texts(
    subject: Subject, has_long: bool, places: Iterator[DeltaGenerator], key: str
) -> RowFilter:
    search = next(places).text_input(
        "Text contains",
        key=f"errors_search:{key}",
        icon=":material/search:",
        disabled=subject.info.purged,
        help="Letter by letter, without regard to case.",
    )
    label = _one_of(
        "Label",
        dict(enumerate(subject.classes.names)),
        next(places),
        key=f"errors_label:{key}",
    )
    bands = LENGTH_BANDS if has_long else LENGTH_BANDS[:-1]
    band = _one_of("Length", {name: name for name in bands}, next(places), key=f"errors_band:{key}")
    rows = RowFilter(search=search or "", label=label)
    return rows if band is None else in_length_band(rows, band)


def _filter_of_review(
    subject: Subject, places: Iterator[DeltaGenerator], rows: RowFilter, key: str
) -> RowFilter:
    is_binary = subject.classes.is_binary
    disagreement = _one_of(
        "Rules and model",
        _DISAGREEMENTS if is_binary else {Disagreement.ANY: _DISAGREEMENTS[Disagreement.ANY]},
        next(places),
        key=f"errors_disagreement:{key}",
        help="Each part at its own balanced threshold.",
        disabled=len(subject.run.parts) < 2,
        nothing=None,
    )
    tags = tag_counts(resources().store, subject.info.dataset_id)
    states: dict[bool | str, str] = {False: "not reviewed", True: "reviewed"}
    status = _one_of(
        "Review",
        states | {tag: f"tag: {visible(tag)}" for tag in tags},
        next(places),
        key=f"errors_status:{subject.info.dataset_id}",
        help="Reviewed rows have a note, a corrected label or a tag.",
    )
    near = next(places).number_input(
        "Near means within",
        0.0,
        1.0,
        0.05,
        0.01,
        key="errors_near",
        help="Distance of the score to the threshold. With three classes: of the most probable "
        "label to the runner-up.",
    )
    return replace(
        rows,
        near=float(near),
        disagreement=disagreement,
        part_thresholds=(subject.limits.get("heuristic", 0.5), subject.limits.get("ml", 0.5)),
        tag=status if isinstance(status, str) else None,
        is_annotated=status if isinstance(status, bool) else None,
    )


def _slice_value(
    name: str, values: Mapping[str, int], place: DeltaGenerator, key: str
) -> str | None:
    return _one_of(
        plain(name[:60]),
        {
            value: f"{visible(value) or '(empty)'} ({count:,} rows)"
            for value, count in values.items()
        },
        place,
        key=f"errors_slice:{key}:{name}",
        nothing=None,
    )


def choose_kind(subject: Subject, counts: ErrorCounts) -> RowKind:
    """Let the user choose which rows, with how many there are of each kind."""
    possible = kinds_of(subject.classes, is_labelled=bool(counts.labelled or subject.info.labelled))
    return pick(
        "Which rows",
        {
            kind: f"{KIND_TITLES[kind]} ({counts.of(kind):,})"
            for kind in possible
            if kind is not RowKind.FAILED or counts.failed
        },
        key=f"errors_kind:{subject.info.dataset_id}:{subject.classes.is_binary}",
        in_url="kind",
        segmented=True,
        label_visibility="collapsed",
    )
