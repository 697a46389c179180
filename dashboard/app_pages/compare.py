"""Compare: modes, policies and runs on the same rows, against a baseline, with the rows behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard import theme as charts
from dashboard.compare import charts as compare_charts
from dashboard.compare import tables as comparison
from dashboard.compare.tables import Option
from dashboard.state import (
    RunKey,
    aligned,
    balanced,
    common_rows,
    comparison_of,
    drop_stale,
    keep,
    kept,
    resources,
    scores,
    sliced,
)
from dashboard.tables import result_facts, rows_table, spans_frame
from dashboard.text import plain, visible
from dashboard.widgets import (
    charted,
    choose_run,
    page_title,
    paged,
    show_text,
    watch_run,
)
from shield_engine.decide.candidates import Aligned, Candidate
from shield_engine.decide.compare import Comparison
from shield_engine.decide.figures import available_modes, mode_view
from shield_engine.decide.slices import Lattice, lattice
from shield_engine.metrics.table import METRICS, compared_names, percent
from shield_engine.store import RunInfo, RunStatus
from shield_engine.store.library import policies
from shield_engine.types import Mode, Task

PAGE_ROWS = 50
MOST_CANDIDATES = 8
MOST_OTHER_RUNS = 20

FIGURES, CURVES, SLICES = "Figures", "Curves and confusion", "Slices"
AGREEMENT, SPEED = "Agreement and rows", "Speed and cost"


@dataclass(frozen=True, slots=True)
class Choice:
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
    def looks(self) -> list[compare_charts.Look]:
        """How each is drawn."""
        return compare_charts.looks([option.key for option in self.options])


# --- choosing -------------------------------------------------------------------------------


def all_options(run: RunInfo) -> tuple[list[Option], list[str]]:
    """Return everything that can be compared with a run, and why some policies cannot."""
    store = resources().store
    names = {info.dataset_id: info.title for info in store.datasets()}
    fitting, reasons = comparison.policy_options(run, policies(store))
    others = comparison.run_options(
        run,
        [other for other in store.runs() if other.run_id != run.run_id][:MOST_OTHER_RUNS],
        names,
        lambda other: dict(balanced(other)),
    )
    return [*comparison.mode_options(run, dict(balanced(run))), *fitting, *others], reasons


def choose_candidates(run: RunInfo) -> Choice | None:
    """Let the user choose what to compare and with what; `None` while the rows do not fit."""
    options, reasons = all_options(run)
    by_key = {option.key: option for option in options}
    left, right = st.columns([3, 1])
    with left:
        key = f"candidates_{run.run_id}"
        modes = [option.key for option in options if option.key.startswith("mode:")]
        for name in (key, f"kept:{key}"):  # policies and runs among them may be gone by now
            if name in st.session_state:
                st.session_state[name] = [k for k in st.session_state[name] if k in by_key]
        keep(key, modes)
        chosen = st.multiselect(
            "Candidates",
            list(by_key),
            format_func=lambda name: by_key[name].label,
            key=key,
            max_selections=MOST_CANDIDATES,
            help="Modes of this run, stored policies that fit it, and modes of other runs of the "
            "same task. All are judged on the same rows.",
        )
    with right:
        baseline = choose_baseline(run, by_key)
    if reasons:
        with st.expander(f"{len(reasons)} stored policies cannot be judged by this run"):
            for reason in reasons:
                st.caption(plain(reason))
    names = chosen if baseline in chosen else [baseline, *chosen]
    # The page's run first: its dataset is the one whose slices and rows are shown.
    names = sorted(names, key=lambda name: by_key[name].candidate.run_id != run.run_id)
    picked = tuple(by_key[name] for name in names)
    is_intersected = choose_rows([option.candidate.run_id for option in picked])
    if is_intersected is None:
        return None
    keys = {found.run_id: RunKey.of(found) for found in resources().store.runs()}
    return Choice(
        picked,
        names.index(baseline),
        tuple(keys[option.candidate.run_id] for option in picked),
        is_intersected,
    )


def choose_baseline(run: RunInfo, by_key: dict[str, Option]) -> str:
    """Let the user pin a baseline: it stays for the dataset, and is in the URL."""
    key = f"baseline_{run.dataset_id}"
    drop_stale(key, by_key)
    wanted = st.query_params.get("baseline")
    if wanted in by_key and st.session_state.get("baseline_url") != wanted:
        st.session_state[key] = wanted
    keep(key, next(iter(by_key)))
    chosen = st.selectbox(
        "Baseline",
        list(by_key),
        format_func=lambda name: by_key[name].label,
        key=key,
        help="What the others are compared with. It stays chosen for this dataset.",
    )
    st.query_params["baseline"] = st.session_state["baseline_url"] = chosen
    return chosen


def choose_rows(run_ids: Sequence[str]) -> bool | None:
    """Return whether to keep common rows only; `None` while rows differ and the user has not."""
    wanted = tuple(dict.fromkeys(run_ids))
    if len(wanted) < 2:
        return False
    keys = {found.run_id: RunKey.of(found) for found in resources().store.runs()}
    found = common_rows(tuple(keys[run_id] for run_id in wanted))
    if found.is_same:
        return False
    counted = ", ".join(
        f"run {run_id[:6]} has {rows:,} that not all have"
        for run_id, rows in found.only.items()
        if rows
    )
    st.warning(
        f"These runs did not score the same rows: {found.common:,} rows (same text and label) are "
        f"in all of them, {counted}. Figures of different rows cannot be compared.",
        icon=":material/join_inner:",
    )
    if not found.common:
        return None
    is_wanted = keep("compare_on_common", False)
    is_wanted = st.checkbox(f"Compare on the {found.common:,} common rows", key="compare_on_common")
    return True if is_wanted else None


# --- showing --------------------------------------------------------------------------------


def show_verdict(found: Comparison, run: RunInfo) -> None:
    """Say in words who leads, whether that is decided, and what would decide the rest."""
    if found.winner is None:
        st.info(
            "These rows have no labels: there are scores, flag rates, disagreement and latency, "
            "but no accuracy.",
            icon=":material/label_off:",
        )
    else:
        st.info(plain(comparison.headline(found)), icon=":material/balance:")
    if run.errors:
        st.warning(f"{run.errors:,} rows failed in the model and count in no figure.")
    with st.container(horizontal=True):
        link = {"run": run.run_id}
        st.page_link(
            "app_pages/threshold_lab.py", label="Choose a threshold", icon=":material/tune:",
            query_params=link,
        )  # fmt: skip
        st.page_link(
            "app_pages/errors.py", label="Read the errors", icon=":material/rule:",
            query_params=link,
        )  # fmt: skip
    if len(found.pairs) > 1 and found.winner is not None:
        base = plain(found.standings[found.baseline].title)
        with st.expander(f"Every candidate against {base}, in words"):
            for pair in found.pairs:
                st.markdown(f"- {plain(pair.verdict)}")
            st.caption(
                f"Only what an exact McNemar test decides at {found.confidence:.0%} after Holm's "
                f"adjustment for all {len(found.tests)} tests is said as a fact. Numbers of "
                "further rows hold if the rates stay as observed."
            )


def show_figures(found: Comparison, choice: Choice) -> None:
    """Show figures, their differences to the baseline, and the tests."""
    if found.winner is None:
        show_load(found)
        return
    names = compared_names(len(found.label_names))
    base = found.standings[found.baseline].title
    st.subheader("How good is each candidate?", anchor=False)
    help_of = {
        METRICS[name].title: st.column_config.TextColumn(
            help=f"{METRICS[name].help} In brackets: {found.confidence:.0%} interval."
        )
        for name in names
    }
    st.dataframe(
        comparison.standing_frame(found, names), hide_index=True, key="headline",
        column_config=help_of, alt="Metrics of each candidate with intervals",
    )  # fmt: skip
    if found.pairs:
        st.subheader(
            f"How far is each from {plain(base)}?",
            anchor=False,
            help="Points more than the baseline on the same rows, with the interval of the "
            "difference. Decided: what a test settles, adjusted for the number of tests.",
        )
        st.dataframe(
            comparison.delta_frame(found, names), hide_index=True, key="deltas",
            alt="Differences to the baseline in points, with intervals",
        )  # fmt: skip
        charted(
            "Which differences are beyond chance?",
            compare_charts.difference_forest(found, choice.looks, names),
            comparison.figure_frame(found),
            key="differences",
            help="Points more than the baseline. A line that crosses 0 leaves open which is "
            "better. Filled marks are decided by a test, open ones are not; those with a dot in "
            "them have no test.",
        )
        with st.expander("Which tests were made, and what would settle the open ones?"):
            st.dataframe(
                comparison.evidence_frame(found), hide_index=True, key="tests",
                column_config={
                    "p": st.column_config.NumberColumn(
                        format="%.2g", help="Exact McNemar test: the chance of so uneven a split "
                        "of the rows that only one has right, were both equally good.",
                    ),
                    "p, Holm": st.column_config.NumberColumn(
                        format="%.2g", help="Adjusted for all tests of this table.",
                    ),
                    "Would show from": st.column_config.TextColumn(
                        help="Smallest true difference that these rows would show four times in "
                        "five.",
                    ),
                    "More rows needed": st.column_config.TextColumn(
                        help="Further rows of this kind that would decide it four times in five, "
                        "if the rates stay as observed.",
                    ),
                },
            )  # fmt: skip
    with st.expander("How sure are the figures themselves?"):
        charted(
            "How sure are these figures?",
            compare_charts.candidate_forest(found, choice.looks, names),
            comparison.figure_frame(found),
            key="forest",
            help="Dots are the figures, lines their intervals. Wide lines mean few rows.",
        )


def show_curves(found: Comparison, views: Aligned, choice: Choice) -> None:
    """Draw ROC and PR curves, and confusion matrices."""
    if found.winner is None:
        st.caption("Without labels there are no curves and no confusion matrix.")
        return
    titles = [standing.title for standing in found.standings]
    both_classes = found.positives is not None and 0 < found.positives < found.n
    if both_classes:
        left, right = st.columns(2)
        for column, question, draw, metric in (
            (left, "What does each false alarm rate buy?", compare_charts.roc_chart, "roc_auc"),
            (right, "How clean is what is flagged?", compare_charts.pr_chart, "pr_auc"),
        ):
            table = comparison.figure_frame(found)
            with column:
                charted(
                    question, draw(titles, views.views, choice.looks, views.counts),
                    table[table["metric"] == metric], key=metric,
                    help=f"{METRICS[metric].help} Markers: the thresholds in force.",
                )  # fmt: skip
    st.subheader("Which mistakes does each make?", anchor=False)
    for first in range(0, len(titles), 4):
        for column, place in zip(
            st.columns(4), range(first, min(first + 4, len(titles))), strict=False
        ):
            view = views.views[place]
            with column:
                st.markdown(f"**{plain(titles[place])}**")
                st.plotly_chart(
                    charts.confusion_heatmap(
                        comparison.matrix_of(view, views.counts), view.label_names
                    ),
                    key=f"matrix_{place}",
                    config={"displayModeBar": False},
                    alt=f"Confusion matrix of {visible(titles[place])}",
                )


def show_slices(found: Comparison, views: Aligned, choice: Choice) -> None:
    """Break figures down by a slice column, and flag where the overall winner loses."""
    if found.winner is None:
        st.caption("Without labels there is nothing to break down.")
        return
    store = resources().store
    mapping = store.dataset(views.dataset_id).details.get("mapping", {})
    columns = ["Length of the text", *mapping.get("slices", [])]
    left, right = st.columns(2)
    with left:
        drop_stale("slice_column", columns)
        keep("slice_column", columns[min(1, len(columns) - 1)])
        column = st.selectbox(
            "Slices by", columns, format_func=visible, key="slice_column",
            help="Columns marked as slices at import, and bands of text length.",
        )  # fmt: skip
    metrics = ["accuracy", "recall", "fpr"] if len(found.label_names) == 2 else ["accuracy"]
    with right:
        drop_stale("slice_metric", metrics)
        keep("slice_metric", metrics[0])
        metric = st.selectbox(
            "Figure", metrics, format_func=lambda name: METRICS[name].title, key="slice_metric"
        )
    name = None if column == columns[0] else column
    table = sliced(choice.candidates, choice.keys, choice.is_intersected, found.winner, name)
    st.info(plain(comparison.slice_note(table)), icon=":material/segment:")
    charted(
        "Where does the winner lose?",
        compare_charts.slice_chart(table, choice.looks, metric),
        comparison.slice_frame(table, metric, found.standings[found.baseline].title),
        key="slices",
        help="(!) the winner loses there by an exact McNemar test of right and wrong verdicts, "
        "adjusted by Holm for all slices and rivals; (?) it is behind, but that may be chance.",
    )


def show_agreement(run: RunInfo) -> None:
    """Show where rules and model part, what hybrid makes of it, and open the rows."""
    if len(available_modes(run)) < len(Mode):
        st.caption("This run scored one part only; score both to see where they disagree.")
        return
    stored, limits = scores(RunKey.of(run)), dict(balanced(run))
    found = lattice(
        *(
            mode_view(stored, mode, limits.get(mode.value))
            for mode in (Mode.HEURISTIC, Mode.ML, Mode.HYBRID)
        )
    )
    if found.prefilter is not None:
        show_prefilter(found)
    st.subheader("Where do rules and model disagree?", anchor=False)
    st.caption("Modes of this run at their balanced thresholds.")
    frame, changes = comparison.lattice_frame(found), comparison.change_frame(found)
    st.dataframe(frame, hide_index=True, key="lattice")
    if len(changes):
        st.subheader("What did hybrid fix, and what did it break?", anchor=False)
        st.dataframe(changes, hide_index=True, key="changes")
    members = [
        (
            f"Label {frame['Label'][line]}, heuristic {frame['Heuristic says'][line]}, "
            f"ML {frame['ML says'][line]}",
            entry.rows,
        )
        for line, entry in enumerate(found.lines)
    ]
    members += [(change.what, change.rows) for change in found.changes]
    if found.prefilter is not None:
        members += [
            ("Risky rows lost to the rules before the model", found.prefilter.lost),
            ("Harmless rows flagged by the rules before the model", found.prefilter.alarms),
        ]
    show_rows(run, stored.row_index, [member for member in members if len(member[1])])


def show_prefilter(found: Lattice) -> None:
    """Show what the rules before the model save, and what that costs."""
    prefilter = found.prefilter
    assert prefilter is not None  # noqa: S101 - the caller has looked
    st.subheader("What do rules and linear tier save before the model, and cost?", anchor=False)
    with st.container(horizontal=True):
        st.metric(
            "Model calls avoided", percent(prefilter.avoided_share), border=True,
            help=f"{prefilter.avoided:,} of {prefilter.n:,} rows that hybrid decided without the model.",
        )  # fmt: skip
        if prefilter.risky:
            st.metric(
                "Recall lost before the model", percent(prefilter.lost_recall), border=True,
                help=f"{len(prefilter.lost):,} of {prefilter.risky:,} risky rows that rules and "
                "tier let through unasked and the model would have flagged.",
            )  # fmt: skip
        if prefilter.harmless:
            st.metric(
                "False alarms of the rules alone",
                percent(len(prefilter.alarms) / prefilter.harmless), border=True,
                help=f"{len(prefilter.alarms):,} of {prefilter.harmless:,} harmless rows that the "
                "rules flagged unasked and the model would have let through.",
            )  # fmt: skip


def show_rows(
    run: RunInfo, row_index: NDArray[np.int64], members: list[tuple[str, NDArray[np.int64]]]
) -> None:
    """Open the rows behind one count."""
    if not members:
        return
    position = st.selectbox(
        "Show the rows of",
        range(len(members)),
        format_func=lambda line: f"{members[line][0]}: {len(members[line][1]):,} rows",
        key=f"lattice_line_{run.run_id}",
    )
    indexes = row_index[members[position][1]]
    start = paged(len(indexes), key=f"lattice_page_{run.run_id}_{position}", size=PAGE_ROWS)
    rows = resources().store.page(
        run.dataset_id,
        run_id=run.run_id,
        indexes=[int(index) for index in indexes[start : start + PAGE_ROWS]],
    )
    st.dataframe(rows_table(rows, run.task), hide_index=True, key="lattice_rows")
    show_row(rows, run.task)


def show_row(rows: list[dict[str, object]], task: Task) -> None:
    """Open one row: its text as text, scores, rules and spans."""
    if not rows:
        return
    chosen = st.selectbox(
        "Open row",
        range(len(rows)),
        format_func=lambda place: (
            f"{visible(str(rows[place]['row_id']))}: {visible(str(rows[place]['text'] or ''))[:80]}"
        ),
        key="opened_row",
    )
    row = rows[chosen]
    if row["text"] is None:
        st.caption("This dataset's texts were purged.")
    else:
        show_text(str(row["text"]), height=160)
    left, right = st.columns(2)
    left.dataframe(result_facts(row, task), hide_index=True, key="row_facts")
    spans = spans_frame(row)
    if len(spans):
        right.dataframe(spans, hide_index=True, key="row_spans")
    else:
        right.caption("No rule matched this row.")


def show_speed(run: RunInfo, found: Comparison, choice: Choice) -> None:
    """Show the frontier, latency, and what the cache and the rules save."""
    keep("price_per_hour", 0.0)
    price = st.number_input(
        "Price of the machine per hour", min_value=0.0, step=0.05, key="price_per_hour",
        width=260, help="In any currency. A million scans one after another then cost their mean "
        "time at this price; 0 leaves costs out.",
    )  # fmt: skip
    priced = found.priced(price or None)
    if "reused_run" in run.stamp:
        st.caption(
            f"Scores of the model were reused from run {run.stamp['reused_run']}: nothing here "
            "measures how long the model takes."
        )
    if priced.frontier:
        charted(
            "Which trade-offs are worth having?",
            compare_charts.frontier_chart(priced, choice.looks),
            comparison.frontier_frame(priced),
            key="frontier",
            help="Lower and further left is better; larger marks ask the model more often. Open "
            "marks are beaten: another candidate is as good in error, latency and "
            "model calls (or cost), and better in one of them.",
        )
    charted(
        "How long does a text take?",
        compare_charts.latency_chart(priced),
        comparison.latency_frame(priced),
        key="latency",
        help=(
            f"Measured per row during this run with {run.stamp['machine']['workers']} workers. "
            "Hybrid and Both are summed from the parts' times."
        ),
    )
    show_load(priced)
    show_cache(run)


def show_load(found: Comparison) -> None:
    """Show what each candidate flags, how often it asks the model, and what that costs."""
    st.subheader("How much does each flag, and how often is the model asked?", anchor=False)
    st.dataframe(comparison.load_frame(found), hide_index=True, key="load")


def show_cache(run: RunInfo) -> None:
    """Show the hit rate beside the duplicates."""
    stored = scores(RunKey.of(run))
    dataset = resources().store.dataset(run.dataset_id)
    duplicates = dataset.details.get("profile", {}).get("duplicates")
    st.subheader("What does the cache save?", anchor=False)
    with st.container(horizontal=True):
        st.metric(
            "Cache hit rate", percent(float(stored.is_hit.mean()) if len(stored) else None),
            border=True,
            help="Rows of this run that the result cache answered; it started empty.",
        )  # fmt: skip
        st.metric(
            "Duplicate rows",
            percent(duplicates / dataset.rows if duplicates is not None and dataset.rows else None),
            border=True,
            help="Rows of the dataset whose text occurred before: the most a cache can answer.",
        )


def show_comparison(run: RunInfo) -> None:
    """Show the verdict, then the part that the user looks at."""
    choice = choose_candidates(run)
    if choice is None:
        return
    found = comparison_of(choice.candidates, choice.keys, choice.is_intersected, choice.baseline)
    show_verdict(found, run)
    views = aligned(choice.candidates, choice.keys, choice.is_intersected)
    keep("compare_view", kept("compare_view", FIGURES))
    # Only the part on show is computed; hidden tabs would run too.
    part = st.segmented_control(
        "Show", [FIGURES, CURVES, SLICES, AGREEMENT, SPEED], key="compare_view", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    if part == CURVES:
        show_curves(found, views, choice)
    elif part == SLICES:
        show_slices(found, views, choice)
    elif part == AGREEMENT:
        show_agreement(run)
    elif part == SPEED:
        show_speed(run, found, choice)
    else:
        show_figures(found, choice)


page_title(
    "Compare", "Modes, policies and runs on the same rows, against a baseline of your choice."
)
chosen_run = choose_run("Nothing to compare yet")
if chosen_run is not None:
    if chosen_run.status == RunStatus.RUNNING:
        watch_run(chosen_run.run_id, key="compare_watch")
    show_comparison(chosen_run)
