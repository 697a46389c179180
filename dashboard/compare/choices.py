"""What the Compare page lets choose: candidates, the baseline, and on which rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard.options import Option, mode_options, policy_options, run_options
from dashboard.state import RunKey, balanced, common_rows, resources
from dashboard.text import plain
from dashboard.theme import Look, looks
from dashboard.widgets import pick
from shield_engine.decide.candidates import Candidate
from shield_engine.store import RunInfo
from shield_engine.store.library import policies

__all__ = ["Selection", "choose_candidates"]

_MOST_CANDIDATES = 8
_MOST_OTHER_RUNS = 20


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user compares: options in order, the baseline's place, and on which rows.

    Attributes:
        keys: Each option's run, for the caches.
    """

    options: tuple[Option, ...]
    baseline: int
    keys: tuple[RunKey, ...]
    is_intersected: bool

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What the options stand for."""
        return tuple(option.candidate for option in self.options)

    @property
    def looks(self) -> list[Look]:
        """How each is drawn."""
        return looks([option.key for option in self.options])


def choose_candidates(run: RunInfo, runs: Sequence[RunInfo]) -> Selection | None:
    """Let the user choose what to compare and with what; `None` while the rows do not fit."""
    options, reasons = _all_options(run, runs)
    by_key = {option.key: option for option in options}
    labels = {option.key: option.label for option in options}
    left, right = st.columns([3, 1])
    chosen = left.multiselect(
        "Candidates",
        list(by_key),
        default=[key for key in by_key if key.startswith("mode:")],
        format_func=labels.__getitem__,
        key=f"candidates_{run.run_id}",
        max_selections=_MOST_CANDIDATES,
        persist_state="session",
        help="Modes of this run, stored policies that fit it, and modes of other runs of the same "
        "task. All are judged on the same rows.",
    )
    with right:
        baseline = pick(
            "Baseline",
            labels,
            key=f"baseline_{run.dataset_id}",
            in_url="baseline",
            help="What the others are compared with. It stays chosen for this dataset.",
        )
    if reasons:
        with st.expander(f"{len(reasons)} stored policies cannot be judged by this run"):
            for reason in reasons:
                st.caption(plain(reason))
    names = chosen if baseline in chosen else [baseline, *chosen]
    # The page's run first: its dataset is the one whose slices and rows are shown.
    names = sorted(names, key=lambda name: by_key[name].candidate.run_id != run.run_id)
    picked = tuple(by_key[name] for name in names)
    stored = {other.run_id: RunKey.of(other) for other in runs}
    keys = tuple(stored[option.candidate.run_id] for option in picked)
    is_intersected = _choose_rows(tuple(dict.fromkeys(keys)))
    if is_intersected is None:
        return None
    return Selection(picked, names.index(baseline), keys, is_intersected)


def _all_options(run: RunInfo, runs: Sequence[RunInfo]) -> tuple[list[Option], list[str]]:
    """Return everything that can be compared with a run, and why some policies cannot."""
    store = resources().store
    names = {info.dataset_id: info.title for info in store.datasets.all()}
    fitting, reasons = policy_options(run, policies(store))
    others = [other for other in runs if other.run_id != run.run_id][:_MOST_OTHER_RUNS]
    return [
        *mode_options(run, _thresholds_of(run)),
        *fitting,
        *run_options(run, others, names, _thresholds_of),
    ], reasons


def _thresholds_of(run: RunInfo) -> Mapping[str, float]:
    return balanced(run)


def _choose_rows(keys: tuple[RunKey, ...]) -> bool | None:
    """Return whether to keep common rows only; `None` while rows differ and the user has not."""
    if len(keys) < 2:
        return False
    rows = common_rows(keys)
    if rows.is_same:
        return False
    counted = ", ".join(
        f"run {run_id[:6]} has {count:,} that not all have"
        for run_id, count in rows.only.items()
        if count
    )
    st.warning(
        f"These runs did not score the same rows: {rows.common:,} rows (same text and label) are "
        f"in all of them, {counted}. Figures of different rows cannot be compared.",
        icon=":material/join_inner:",
    )
    is_wanted = rows.common and st.checkbox(
        f"Compare on the {rows.common:,} common rows",
        key="compare_on_common",
        persist_state="session",
    )
    return True if is_wanted else None
