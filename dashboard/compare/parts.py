"""The parts of the Compare page: the verdict, figures, curves, slices, speed and cost."""

from __future__ import annotations

import streamlit as st

from dashboard.compare import charts, tables
from dashboard.compare.choices import Selection
from dashboard.state import RunKey, resources, scores, sliced
from dashboard.text import plain, visible
from dashboard.theme import confusion_heatmap
from dashboard.widgets import charted, column, link_run, pick, show_metrics, show_table
from shield_engine.decide.candidates import Aligned
from shield_engine.decide.compare import Comparison
from shield_engine.metrics.table import METRICS, compared_names, percent
from shield_engine.store import RunInfo

__all__ = ["show_curves", "show_figures", "show_slices", "show_speed", "show_verdict"]

_MATRICES = 4
"""Confusion matrices side by side."""


def show_verdict(comparison: Comparison, run: RunInfo) -> None:
    """Say in words who leads, whether that is decided, and what would decide the rest."""
    if comparison.winner is None:
        st.info(
            "These rows have no labels: there are scores, flag rates, disagreement and latency, "
            "but no accuracy.",
            icon=":material/label_off:",
        )
    else:
        st.info(plain(tables.headline(comparison)), icon=":material/balance:")
    if run.errors:
        st.warning(f"{run.errors:,} rows failed in the model and count in no figure.")
    link_run(run.run_id, "threshold_lab", "errors")
    if len(comparison.pairs) > 1 and comparison.winner is not None:
        with st.expander(f"Every candidate against {plain(_baseline(comparison))}, in words"):
            for pair in comparison.pairs:
                st.markdown(f"- {plain(pair.verdict)}")
            st.caption(
                f"Only what an exact McNemar test decides at {comparison.confidence:.0%} after "
                f"Holm's adjustment for all {len(comparison.tests)} tests is said as a fact. "
                "Numbers of further rows hold if the rates stay as observed."
            )


def _baseline(comparison: Comparison) -> str:
    return comparison.standings[comparison.baseline].title


# --- figures --------------------------------------------------------------------------------


def show_figures(_run: RunInfo, comparison: Comparison, _views: Aligned, choice: Selection) -> None:
    """Show figures, their differences to the baseline, and the tests."""
    if comparison.winner is None:
        _show_load(comparison)
        return
    names = compared_names(len(comparison.label_names))
    st.subheader("How good is each candidate?", anchor=False)
    show_table(
        tables.standing_frame(comparison, names),
        key="headline",
        columns={
            METRICS[name].title: f"{METRICS[name].help} In brackets: {comparison.confidence:.0%} "
            "interval."
            for name in names
        },
        alt="Metrics of each candidate with intervals",
    )
    if comparison.pairs:
        _show_differences(comparison, names, choice)
    with st.expander("How sure are the figures themselves?"):
        charted(
            "How sure are these figures?",
            charts.candidate_forest(comparison, choice.looks, names),
            tables.figure_frame(comparison),
            key="forest",
            help="Dots are the figures, lines their intervals. Wide lines mean few rows.",
        )


def _show_differences(comparison: Comparison, names: tuple[str, ...], choice: Selection) -> None:
    st.subheader(
        f"How far is each from {plain(_baseline(comparison))}?",
        anchor=False,
        help="Points more than the baseline on the same rows, with the interval of the "
        "difference. Decided: what a test settles, adjusted for the number of tests.",
    )
    show_table(
        tables.delta_frame(comparison, names),
        key="deltas",
        alt="Differences to the baseline in points, with intervals",
    )
    charted(
        "Which differences are beyond chance?",
        charts.difference_forest(comparison, choice.looks, names),
        tables.figure_frame(comparison),
        key="differences",
        help="Points more than the baseline. A line that crosses 0 leaves open which is better. "
        "Filled marks are decided by a test, open ones are not; those with a dot in them have no "
        "test.",
    )
    with st.expander("Which tests were made, and what would settle the open ones?"):
        show_table(
            tables.evidence_frame(comparison),
            key="tests",
            columns={
                "p": column(
                    "Exact McNemar test: the chance of so uneven a split of the rows that only "
                    "one has right, were both equally good.",
                    "%.2g",
                ),
                "p, Holm": column("Adjusted for all tests of this table.", "%.2g"),
                "Would show from": "Smallest true difference that these rows would show four "
                "times in five.",
                "More rows needed": "Further rows of this kind that would decide it four times in "
                "five, if the rates stay as observed.",
            },
        )


# --- curves ---------------------------------------------------------------------------------


def show_curves(_run: RunInfo, comparison: Comparison, views: Aligned, choice: Selection) -> None:
    """Draw ROC and PR curves, and confusion matrices."""
    if comparison.winner is None:
        st.caption("Without labels there are no curves and no confusion matrix.")
        return
    titles = [standing.title for standing in comparison.standings]
    if comparison.positives is not None and 0 < comparison.positives < comparison.n:
        figures = tables.figure_frame(comparison)
        questions = {
            "roc_auc": "What does each false alarm rate buy?",
            "pr_auc": "How clean is what is flagged?",
        }
        for place, (metric, question) in zip(st.columns(2), questions.items(), strict=True):
            with place:
                charted(
                    question,
                    charts.curve_chart(metric, titles, views, choice.looks),
                    figures[figures["metric"] == metric],
                    key=metric,
                    help=f"{METRICS[metric].help} Markers: the thresholds in force.",
                )
    st.subheader("Which mistakes does each make?", anchor=False)
    for number, (title, view) in enumerate(zip(titles, views.views, strict=True)):
        if number % _MATRICES == 0:
            places = iter(st.columns(_MATRICES))
        with next(places):
            st.markdown(f"**{plain(title)}**")
            st.plotly_chart(
                confusion_heatmap(tables.matrix_of(view, views.counts), view.label_names),
                key=f"matrix_{number}",
                config={"displayModeBar": False},
                alt=f"Confusion matrix of {visible(title)}",
            )


# --- slices ---------------------------------------------------------------------------------


def show_slices(_run: RunInfo, comparison: Comparison, views: Aligned, choice: Selection) -> None:
    """Break figures down by a slice column, and flag where the overall winner loses."""
    if comparison.winner is None:
        st.caption("Without labels there is nothing to break down.")
        return
    dataset = resources().store.datasets.find(views.dataset_id)
    columns = ["Length of the text", *dataset.slice_columns]
    left, right = st.columns(2)
    with left:
        name = pick(
            "Slices by",
            {column: visible(column) for column in columns},
            key="slice_column",
            default=columns[min(1, len(columns) - 1)],
            help="Columns marked as slices at import, and bands of text length.",
        )
    metrics = ["accuracy", "recall", "fpr"] if len(comparison.label_names) == 2 else ["accuracy"]
    with right:
        titles = {metric: METRICS[metric].title for metric in metrics}
        metric = pick("Figure", titles, key="slice_metric")
    table = sliced(
        choice.candidates,
        choice.keys,
        choice.is_intersected,
        comparison.winner,
        None if name == columns[0] else name,
    )
    st.info(plain(tables.slice_note(table)), icon=":material/segment:")
    charted(
        "Where does the winner lose?",
        charts.slice_chart(table, choice.looks, metric),
        tables.slice_frame(table, metric, _baseline(comparison)),
        key="slices",
        help="(!) the winner loses there by an exact McNemar test of right and wrong verdicts, "
        "adjusted by Holm for all slices and rivals; (?) it is behind, but that may be chance.",
    )


# --- speed and cost -------------------------------------------------------------------------


def show_speed(run: RunInfo, comparison: Comparison, _views: Aligned, choice: Selection) -> None:
    """Show the frontier, latency, and what the cache and the rules save."""
    price = st.number_input(
        "Price of the machine per hour",
        min_value=0.0,
        step=0.05,
        key="price_per_hour",
        width=260,
        persist_state="session",
        help="In any currency. A million scans one after another then cost their mean time at this "
        "price; 0 leaves costs out.",
    )
    priced = comparison.priced(price or None)
    if "reused_run" in run.stamp:
        st.caption(
            f"Scores of the model were reused from run {run.stamp['reused_run']}: nothing here "
            "measures how long the model takes."
        )
    if priced.frontier:
        charted(
            "Which trade-offs are worth having?",
            charts.frontier_chart(priced, choice.looks),
            tables.frontier_frame(priced),
            key="frontier",
            help="Lower and further left is better; larger marks ask the model more often. Open "
            "marks are beaten: another candidate is as good in error, latency and model calls (or "
            "cost), and better in one of them.",
        )
    charted(
        "How long does a text take?",
        charts.latency_chart(priced),
        tables.latency_frame(priced),
        key="latency",
        help=f"Measured per row during this run with {run.stamp['machine']['workers']} workers. "
        "Hybrid and Both are summed from the parts' times.",
    )
    _show_load(priced)
    _show_cache(run)


def _show_load(comparison: Comparison) -> None:
    """Show what each candidate flags, how often it asks the model, and what that costs."""
    st.subheader("How much does each flag, and how often is the model asked?", anchor=False)
    show_table(tables.load_frame(comparison), key="load")


def _show_cache(run: RunInfo) -> None:
    """Show the hit rate beside the duplicates."""
    hits = scores(RunKey.of(run)).is_hit
    dataset = resources().store.datasets.find(run.dataset_id)
    duplicates = dataset.details.get("profile", {}).get("duplicates")
    share = duplicates / dataset.rows if duplicates is not None and dataset.rows else None
    st.subheader("What does the cache save?", anchor=False)
    show_metrics(
        (
            "Cache hit rate",
            percent(float(hits.mean()) if len(hits) else None),
            "Rows of this run that the result cache answered; it started empty.",
        ),
        (
            "Duplicate rows",
            percent(share),
            "Rows of the dataset whose text occurred before: the most a cache can answer.",
        ),
    )
