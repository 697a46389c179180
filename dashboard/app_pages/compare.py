"""Compare: every mode on the same rows of one run, with intervals, latency and the rows behind."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from dashboard import charts, comparison
from dashboard.components import (
    METRIC_TITLES,
    MODE_TITLES,
    charted,
    empty_state,
    metric_table,
    page_title,
    paged,
    percent,
    show_text,
    visible,
    watch_run,
)
from dashboard.rows import result_facts, rows_table, spans_frame
from dashboard.state import balanced, drop_stale, evaluation, resources, scores
from dashboard.tables import run_title
from shield_engine.config import Bands
from shield_engine.evaluation.evaluate import ModeEvaluation, ModeView, available_modes, mode_view
from shield_engine.evaluation.metrics import METRIC_HELP, binary_metrics
from shield_engine.store import RunInfo, RunStatus
from shield_engine.types import Mode, Task

PAGE_ROWS = 50


def choose_run() -> RunInfo | None:
    """Let the user choose among runs that have results; the choice is in the URL."""
    held = resources()
    found = {run.run_id: run for run in held.store.runs() if run.rows_done}
    if not found:
        return None
    names = {info.dataset_id: info.title for info in held.store.datasets()}
    options = sorted(found, key=lambda run_id: found[run_id].status != RunStatus.DONE)
    drop_stale("compared_run", options)
    # A bound selectbox would put the whole title into the URL; the run's id is what links carry.
    wanted = st.query_params.get("run")
    if wanted in found and st.session_state.get("compared_url") != wanted:
        st.session_state["compared_run"] = wanted
    chosen = st.selectbox(
        "Run",
        options,
        format_func=lambda run_id: run_title(found[run_id], names),
        key="compared_run",
    )
    st.query_params["run"] = st.session_state["compared_url"] = chosen
    return found[chosen]


def show_headline(
    run: RunInfo, views: Mapping[Mode, ModeView], evaluations: Mapping[Mode, ModeEvaluation]
) -> None:
    """Say in words which mode leads, then give the figures."""
    first = next(iter(views.values()))
    if first.counts.any():
        st.info(comparison.verdict(views, evaluations), icon=":material/balance:")
        if run.errors:
            st.warning(f"{run.errors:,} rows failed in the model and count in no figure.")
        names = comparison.metric_names(first)
        st.subheader("How good is each mode?", anchor=False)
        metric_table(evaluations, names, key="headline")
        with st.expander("All metrics, with intervals, n and method"):
            st.dataframe(comparison.figure_frame(evaluations), hide_index=True, key="all_metrics")
    else:
        st.info(
            "This dataset has no labels: there are scores, flag rates, disagreement and latency, "
            "but no accuracy.",
            icon=":material/label_off:",
        )


def show_accuracy_charts(
    views: Mapping[Mode, ModeView], evaluations: Mapping[Mode, ModeEvaluation]
) -> None:
    """Draw figures with intervals, ROC and PR curves, and confusion matrices."""
    first = next(iter(views.values()))
    if not first.counts.any():
        return
    names = comparison.metric_names(first)
    charted(
        "How sure are these figures?",
        charts.metric_forest(evaluations, names),
        comparison.figure_frame(evaluations),
        key="forest",
        help="Dots are the figures, lines their 95% intervals. Wide lines mean few rows.",
    )
    present = set(first.labels[first.counts].tolist())
    if first.risk is not None and len(present) == 2:
        left, right = st.columns(2)
        for column, question, draw, metric in (
            (left, "What does each false alarm rate buy?", charts.roc_curves, "roc_auc"),
            (right, "How clean is what is flagged?", charts.pr_curves, "pr_auc"),
        ):
            areas = {mode: result.metrics[metric].value for mode, result in evaluations.items()}
            table = pd.DataFrame(
                [{"mode": mode.value, metric: area} for mode, area in areas.items()]
            )
            with column:
                charted(
                    question, draw(views, areas), table, key=metric,
                    help=f"{METRIC_HELP[metric]} Markers: the thresholds in force.",
                )  # fmt: skip
    st.subheader("Which mistakes does each mode make?", anchor=False)
    for column, (mode, view) in zip(st.columns(len(views)), views.items(), strict=True):
        with column:
            st.markdown(f"**{MODE_TITLES[mode]}**")
            st.plotly_chart(
                charts.confusion_heatmap(comparison.matrix_of(view), view.label_names),
                key=f"matrix_{mode.value}",
                config={"displayModeBar": False},
                alt=f"Confusion matrix of {MODE_TITLES[mode]}",
            )


def show_speed(run: RunInfo, evaluations: Mapping[Mode, ModeEvaluation]) -> None:
    """Show latency by cache hit and miss, and the hit rate beside the duplicates."""
    charted(
        "How long does a text take?",
        charts.latency_bars(evaluations),
        comparison.latency_frame(evaluations),
        key="latency",
        help=(
            f"Measured per row during this run with {run.stamp['machine']['workers']} workers. "
            "Hybrid and Both are summed from the parts' times."
        ),
    )
    dataset = resources().store.dataset(run.dataset_id)
    duplicates = dataset.details.get("profile", {}).get("duplicates")
    result = next(iter(evaluations.values()))
    lookups = result.hits + result.misses
    st.subheader("What does the cache save, and how often is the model asked?", anchor=False)
    with st.container(horizontal=True):
        st.metric(
            "Cache hit rate", percent(result.hits / lookups if lookups else None), border=True,
            help="Rows of this run that the result cache answered; it started empty.",
        )  # fmt: skip
        st.metric(
            "Duplicate rows",
            percent(duplicates / dataset.rows if duplicates is not None and dataset.rows else None),
            border=True,
            help="Rows of the dataset whose text occurred before: the most a cache can answer.",
        )
        if Mode.HYBRID in evaluations:
            hybrid = evaluations[Mode.HYBRID]
            st.metric(
                "Model asked in hybrid", percent(hybrid.asked / hybrid.n if hybrid.n else None),
                border=True, help="Rows that the rules left to the model.",
            )  # fmt: skip
    st.dataframe(comparison.cache_frame(evaluations), hide_index=True, key="cache_table")


def show_threshold(run: RunInfo, views: Mapping[Mode, ModeView]) -> None:
    """Let a threshold slide over stored scores; nothing is scored anew."""
    first = next(iter(views.values()))
    if first.risk is None:
        st.caption("Three classes are judged by the most probable label; there is no threshold.")
        return
    st.subheader("What would another threshold do?", anchor=False)
    left, right = st.columns([1, 2])
    modes = list(views)
    with left:
        drop_stale("threshold_mode", [mode.value for mode in modes])
        mode = Mode(
            st.selectbox(
                "Mode", [mode.value for mode in modes],
                index=modes.index(Mode.HYBRID) if Mode.HYBRID in modes else 0,
                format_func=lambda name: MODE_TITLES[Mode(name)],
                key="threshold_mode", bind="query-params",
            )
        )  # fmt: skip
        standard = views[mode].threshold or 0.0
        threshold = st.slider(
            "Threshold", 0.0, 1.0, standard, 0.005, format="%.3f", key="threshold",
            bind="query-params", help=f"The registry's balanced threshold is {standard:g}.",
        )  # fmt: skip
    view = mode_view(scores(run.run_id, run.rows_done), mode, threshold, Bands())
    with left:
        flagged = int((view.predicted == 1).sum())
        scored = int(view.is_scored.sum())
        st.metric("Flagged rows", f"{flagged:,} of {scored:,}")
        if view.counts.any():
            figures = binary_metrics(
                view.labels[view.counts],
                view.risk[view.counts],  # type: ignore[index]
                threshold,
                resamples=0,
            )
            for name in ("recall", "fpr", "precision", "f1"):
                figure = figures[name]
                st.metric(
                    METRIC_TITLES[name], percent(figure.value, figure.low, figure.high),
                    help=METRIC_HELP[name],
                )  # fmt: skip
    with right:
        if view.counts.any():
            st.plotly_chart(
                charts.threshold_curves(view, standard), key="sweep",
                config={"displaylogo": False}, alt="Metrics against the threshold",
            )  # fmt: skip
            st.plotly_chart(
                charts.confusion_heatmap(comparison.matrix_of(view), view.label_names, 220),
                key="sweep_matrix",
                config={"displayModeBar": False},
                alt="Confusion matrix at the chosen threshold",
            )
        st.plotly_chart(
            charts.score_histogram(view), key="histogram", config={"displaylogo": False},
            alt="How many rows have which score",
        )  # fmt: skip


def show_disagreement(run: RunInfo, views: Mapping[Mode, ModeView]) -> None:
    """Show where rules and model part, and open the rows."""
    if Mode.HEURISTIC not in views or Mode.ML not in views:
        return
    st.subheader("Where do rules and model disagree?", anchor=False)
    frame, members = comparison.lattice(views[Mode.HEURISTIC], views[Mode.ML])
    st.dataframe(frame, hide_index=True, key="lattice")
    if not members:
        return
    position = st.selectbox(
        "Show the rows of",
        range(len(members)),
        format_func=lambda line: (
            f"label {frame['Label'][line]}, heuristic {frame['Heuristic says'][line]}, "
            f"ML {frame['ML says'][line]}: {frame['Rows'][line]:,} rows"
        ),
        key=f"lattice_line_{run.run_id}",
    )
    indexes = scores(run.run_id, run.rows_done).row_index[members[position]]
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


page_title("Compare", "All modes on the same rows, from scores stored once.")
run = choose_run()
if run is None:
    empty_state(
        "Nothing to compare yet",
        "Run all modes on the bundled sample from the Overview, or score a dataset of your own.",
        "Go to Overview",
        "app_pages/overview.py",
    )
else:
    if run.status == RunStatus.RUNNING:
        watch_run(run.run_id, key="compare_watch")
    evaluations = evaluation(run.run_id, run.rows_done, balanced(run))
    limits = dict(balanced(run))
    stored = scores(run.run_id, run.rows_done)
    views = {mode: mode_view(stored, mode, limits.get(mode.value)) for mode in available_modes(run)}
    show_headline(run, views, evaluations)
    show_accuracy_charts(views, evaluations)
    show_speed(run, evaluations)
    show_threshold(run, views)
    show_disagreement(run, views)
