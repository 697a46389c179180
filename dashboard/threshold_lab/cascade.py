"""The Threshold lab's cascade: stages, an aim, the bands that reach it, the frontier, and saving."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dashboard.state import RunKey, cascade_choice, resources
from dashboard.text import milliseconds, plain
from dashboard.theme import figure_of
from dashboard.threshold_lab.choosing import ask_number
from dashboard.widgets import charted, column, errors_shown, pick, show_table
from shield_engine.decide.cascades import (
    Aim,
    Cascade,
    CascadeChoice,
    CascadeFigures,
    StageSource,
    cascade_policy,
    chain_of,
    sources_of,
)
from shield_engine.decision import MOST_STAGES
from shield_engine.metrics.table import percent
from shield_engine.store import RunInfo
from shield_engine.store.library import save_policy

__all__ = ["show_cascade"]

_FRONTIER_COLUMNS = {
    **dict.fromkeys(("Recall", "FPR", "Reaches the last"), column(number="percent")),
    "Mean ms": column("Stored times of the stages asked; cache misses only.", "%.3g"),
    "Price of 1,000": column(number="%.4g"),
}


def cascade_sources(run: RunInfo, others: Sequence[RunInfo]) -> dict[str, StageSource]:
    """Return the stages stored over a run's rows, by title; of several alike the latest.

    Empty if only one guard or model scored these rows: hybrid's bands chain that with the rules.
    """
    rows = [other for other in others if other.dataset_id == run.dataset_id]
    rows = [other for other in rows if other.rows_done == run.rows_done]
    sources: dict[str, StageSource] = {}
    for other in (run, *rows):
        for source in sources_of(other):
            sources.setdefault(source.stage.title, source)
    outside = [source for source in sources.values() if source.stage.name is not None]
    return sources if len(outside) > 1 else {}


def show_cascade(run: RunInfo) -> None:
    """Chain stored guards for an aim, show what that gives, and save it; nothing without two."""
    runs = {other.run_id: other for other in resources().store.runs.all(run.dataset_id)}
    sources = cascade_sources(run, list(runs.values()))
    if not sources:
        return
    st.subheader("A cascade of guards", anchor=False)
    st.caption(
        "Each stage ends the texts it is sure of and leaves the rest to the next; the last decides "
        "at its threshold. Put cheap stages first."
    )
    titles = st.multiselect(
        "Stages, in the order in which they are asked",
        list(sources),
        max_selections=MOST_STAGES,
        format_func=plain,
        key=f"lab_cascade_{run.run_id}",
        persist_state="session",
    )
    aim = _ask_aim()
    if len(titles) < 2:
        st.caption("Choose two to four stages.")
        return
    chosen = tuple(sources[title] for title in titles)
    keys = tuple(RunKey.of(runs[source.run_id]) for source in chosen)
    with errors_shown("The cascade was not chosen"):
        choice = cascade_choice(chosen, keys, aim)
        _show_choice(choice, aim)
        if choice.frontier:
            frame = cascades_frame(choice)
            charted(
                "What does accuracy cost?",
                cascades_chart(frame, aim),
                frame,
                key="lab_cascade_chart",
                help="Cascades under the limit of FPR that none beats in recall, latency and price "
                "at once. Figures are of the rows that did not choose them.",
            )
            show_table(frame, key="lab_cascade_table", columns=_FRONTIER_COLUMNS, height=240)
        if choice.cascade is not None:
            _save(chosen, choice, aim)


def _ask_aim() -> Aim:
    first, second, third = st.columns(3)
    with first:
        recall = ask_number("Recall at least, %", 0.0, 100.0, 80.0, key="lab_cascade_recall")
    with second:
        fpr = ask_number("FPR at most, %", 0.0, 100.0, 1.0, key="lab_cascade_fpr")
    with third:
        costs = {"latency": "Latency", "price": "Price"}
        cost = pick("Lowest", costs, key="lab_cascade_cost", segmented=True)
    return Aim(recall / 100, fpr / 100, "price" if cost == "price" else "latency")


def _show_choice(choice: CascadeChoice, aim: Aim) -> None:
    if choice.cascade is None or choice.judged is None:
        st.warning(plain(choice.problem), icon=":material/block:")
        return
    st.markdown(f"**Chosen for the {plain(aim.title)}**")
    judged = choice.judged
    frame = pd.DataFrame(
        [
            {"Stage": stage.title, "Ends a text": text, "Asked": share}
            for stage, text, share in zip(
                choice.cascade.stages, bands_text(choice.cascade), judged.reached, strict=True
            )
        ]
    )
    show_table(frame, key="lab_cascade_bands", columns={"Asked": column(number="percent")})
    figures = (
        f"On the rows that did not choose it: recall {percent(judged.recall)} (at least "
        f"{percent(judged.recall_bound)}), FPR {percent(judged.fpr)} (at most "
        f"{percent(judged.fpr_bound)}), {milliseconds(judged.mean_ms)} a text, "
        f"{judged.price_per_1000:.4g} for 1,000."
    )
    if choice.holds:
        st.success(figures, icon=":material/check_circle:")
    else:
        st.warning(f"{figures} {plain(choice.problem)}.", icon=":material/warning:")


def bands_text(cascade: Cascade) -> list[str]:
    """Return which texts each stage ends, in words."""
    texts = []
    for stage in cascade.stages[:-1]:
        bands = [
            f"{verb} {band:.4g}"
            for verb, band in (
                ("passes at or below", stage.pass_at),
                ("flags at or above", stage.stop_at),
            )
            if band is not None
        ]
        texts.append(", ".join(bands) or "never")
    return [*texts, f"always: flags at or above {cascade.threshold:.4g}"]


def cascades_frame(choice: CascadeChoice) -> pd.DataFrame:
    """Return the frontier as a table, fastest first."""

    def row(cascade: Cascade, figures: CascadeFigures) -> dict[str, object]:
        bands = zip(cascade.stages, bands_text(cascade), strict=True)
        return {
            "Recall": figures.recall,
            "FPR": figures.fpr,
            "Mean ms": figures.mean_ms,
            "Price of 1,000": figures.price_per_1000,
            "Reaches the last": figures.reached[-1],
            "Cascade": "; ".join(f"{stage.title} {text}" for stage, text in bands),
        }

    return pd.DataFrame([row(*point) for point in choice.frontier])


def cascades_chart(frame: pd.DataFrame, aim: Aim) -> go.Figure:
    """Return recall against the cost that the aim makes low."""
    cost = "Mean ms" if aim.cost == "latency" else "Price of 1,000"
    points = go.Scatter(
        x=frame[cost],
        y=100 * frame["Recall"],
        mode="markers",
        customdata=100 * frame["FPR"],
        hovertemplate="%{x:.4g}: recall %{y:.1f}%, FPR %{customdata:.2f}%<extra></extra>",
    )
    return figure_of(
        points,
        height=300,
        xaxis={"title": cost},
        yaxis={"title": "recall, % of risky rows"},
    )


def _save(sources: tuple[StageSource, ...], choice: CascadeChoice, aim: Aim) -> None:
    with st.form("lab_cascade_save", clear_on_submit=True):
        left, right = st.columns(2)
        name = left.text_input("Name", placeholder="front-door", max_chars=80)
        note = right.text_input("Note", placeholder="why this cascade", max_chars=400)
        if not st.form_submit_button("Save cascade", type="primary", icon=":material/save:"):
            return
        if not name.strip():
            st.error("Give the policy a name.")
            return
        if name.strip() in resources().shield.guards:
            st.error("A guard has this name; give the policy another.")
            return
        with errors_shown("The policy was not saved"):
            store = resources().store
            policy = cascade_policy(chain_of(store, sources), choice, aim, name, note=note)
            st.session_state["lab_saved"] = save_policy(store, policy).title
            st.rerun()
