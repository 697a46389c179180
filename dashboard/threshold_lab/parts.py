"""What the Threshold lab draws under the choice: charts, other rows, traffic, bands, slices, rows."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import streamlit as st

from dashboard.state import RunKey, optimism_of, resources, scores, split_of, threshold_lab
from dashboard.tables import rows_table
from dashboard.text import MODE_TITLES, plain
from dashboard.threshold_lab.cascade import show_cascade
from dashboard.threshold_lab.charts import (
    band_map,
    curve,
    distribution,
    metrics_against_threshold,
)
from dashboard.threshold_lab.choosing import (
    RESAMPLES,
    Decision,
    ask_number,
    ask_prevalence,
    bands_of,
    choose,
    show_bands_in_force,
    use_bands,
)
from dashboard.threshold_lab.policies import save_labels, save_threshold, show_policies
from dashboard.threshold_lab.tables import (
    band_title,
    bands_frame,
    day_frame,
    optimism_text,
    ordered_bands,
    rates_frame,
    risk_of,
    slices_frame,
    split_text,
    sweep_frame,
)
from dashboard.widgets import charted, column, errors_shown, link_run, pick, show_table
from shield_engine.config import SAFE_BAND
from shield_engine.decide.bands import Traffic, day_of, default_grid, sweep_bands
from shield_engine.decide.column import nearest_rows, rates_at
from shield_engine.decide.splits import slice_choices
from shield_engine.decide.thresholds import ThresholdRule
from shield_engine.decide.views import available_modes
from shield_engine.store import RunInfo
from shield_engine.store.rows import stored_rows
from shield_engine.types import Mode, Task

__all__ = ["show_decision"]

_MOST_SLICES = 50

_CURVES = {
    "ROC": "What does each false alarm rate buy?",
    "PR": "How clean is what is flagged?",
    "DET": "What do few misses cost in false alarms?",
}

_BAND_COLUMNS = {
    **dict.fromkeys(
        ("F1", "Recall", "Recall lost before the model", "FPR", "Asks the model"),
        column(number="percent"),
    ),
    "Mean ms": column("Stored times of the parts, added up; cache misses only.", "%.3f"),
    "Cost of 1,000 texts": column(number="%.4g"),
}


def show_decision(run: RunInfo) -> None:
    """Show everything that decides a run, and the saved policies."""
    modes = available_modes(run)
    wanted = st.session_state.pop("lab_mode_wanted", None)
    if wanted is not None:
        st.session_state["lab_mode"] = wanted
    mode = pick(
        "Mode",
        {mode: MODE_TITLES[mode] for mode in modes},
        key="lab_mode",
        default=Mode.HYBRID if Mode.HYBRID in modes else None,
        segmented=True,
    )
    if mode is Mode.HYBRID:
        show_bands_in_force(run, has_tier=run.task is not Task.SENTIMENT)
    if run.errors:
        st.warning(f"{run.errors:,} rows failed in the model and count in no figure.")
    if run.task is Task.SENTIMENT:
        save_labels(run, mode, bands_of(run))
    else:
        _show_threshold(run, mode)
        show_cascade(run)
    show_policies()


@st.fragment
def _show_threshold(run: RunInfo, mode: Mode) -> None:
    """Show what follows the threshold; a drag reruns this and nothing else."""
    with errors_shown():
        lab = threshold_lab(RunKey.of(run), mode, bands_of(run))
        if not lab.column.n:
            st.info(
                "This run has no labels: you see what a threshold flags, not whether it is right.",
                icon=":material/label_off:",
            )
        decision = choose(run, mode, lab)
        _show_charts(decision)
        if lab.column.n:
            part = pick("Look closer", list(_PARTS), key="lab_part", segmented=True)
            _PARTS[part](decision)
        else:
            _show_nearest(decision)
        save_threshold(decision)
        link_run(run.run_id, "errors", "reports_gates")


def _show_charts(decision: Decision) -> None:
    """Draw where the scores lie and how the rates follow the threshold."""
    lab, threshold = decision.lab, decision.threshold
    is_labelled = bool(lab.column.n)
    unlabelled = None if is_labelled else risk_of(lab)
    sweep = (
        sweep_frame(lab.column) if is_labelled else pd.DataFrame({"score": risk_of(lab)[:1_000]})
    )
    left, right = st.columns(2)
    with left:
        charted(
            "Where do the scores lie?",
            distribution(lab.column, lab.view.label_names, threshold, unlabelled=unlabelled),
            sweep,
            key="lab_scores",
            help="Rows by score and label. What lies right of the line is flagged.",
        )
    if not is_labelled:
        return
    flat = (
        (decision.rule or ThresholdRule(kind="f1")).flat(lab.column, threshold)
        if lab.has_both
        else None
    )
    with right:
        charted(
            "What would another threshold give?",
            metrics_against_threshold(lab.column, threshold, flat),
            sweep,
            key="lab_sweep",
            help="Bands are 95% intervals. Grey: thresholds that these rows cannot tell apart.",
        )
        if flat is not None and flat.high > flat.low:
            st.caption(
                f"From {flat.low:.3g} to {flat.high:.3g} these rows see no difference beyond "
                "chance: within it, take the rounder or the safer number."
            )


# --- a closer look --------------------------------------------------------------------------


def _show_curves(decision: Decision) -> None:
    """Draw ROC, PR and DET curves."""
    scored = decision.lab.column
    if not decision.lab.has_both:
        st.caption("Curves need risky and harmless rows.")
        return
    kind = pick("Curve", list(_CURVES), key="lab_curve", segmented=True)
    charted(
        _CURVES[kind],
        curve(scored, kind, decision.threshold, decision.mode.value),
        sweep_frame(scored),
        key=f"lab_{kind}",
        help=f"{kind} curve with a 95% band; the diamond is the threshold in force.",
    )


def _show_new_rows(decision: Decision) -> None:
    """Choose on one half of the rows, report on the other, and estimate the optimism."""
    rule = decision.rule
    if rule is None:
        st.caption("Choose by a limit, by cost or by a metric to see how far that would hold.")
        return
    seed = ask_number(
        "Seed of the split",
        0,
        10_000,
        7,
        key="lab_seed",
        step=1,
        width=200,
        help="Another seed deals the rows out differently.",
    )
    report = split_of(decision.key, decision.mode, decision.bands, rule, int(seed))
    st.markdown("**Chosen on one half, reported on the other**")
    st.markdown(plain(split_text(report, rule)))
    if report.choice.threshold is not None and report.reporting.n:
        figures = rates_at(report.reporting, report.choice.threshold, resamples=RESAMPLES)
        show_table(rates_frame(figures), key="lab_reported")
    st.markdown("**How much does choosing on all rows flatter?**")
    optimism = optimism_of(decision.key, decision.mode, decision.bands, rule)
    st.markdown(plain(optimism_text(optimism, rule)))
    st.caption(
        "Split: seeded, by whole groups or equal texts. Optimism: bootstrap (Efron 1983). "
        "Save the threshold chosen on all rows, and quote the reported figures."
    )


def _show_traffic(decision: Decision) -> None:
    """Turn rates into a day of traffic."""
    first, second, third = st.columns(3)
    with first:
        texts = ask_number("Texts a day", 0, 10**10, 100_000, key="lab_texts", step=10_000)
    with second:
        prevalence = ask_prevalence("Risky texts among them, %", key="lab_day_prevalence")
    with third:
        title = "Minutes to review a flagged text"
        minutes = ask_number(title, 0.0, 600.0, 2.0, key="lab_minutes", step=0.5)
    figures = rates_at(decision.lab.column, decision.threshold)
    day = day_of(figures["recall"], figures["fpr"], Traffic(int(texts), prevalence, minutes))
    show_table(day_frame(day), key="lab_day", alt="A day of traffic at this threshold")
    st.caption(
        "In brackets: the range that the 95% intervals of recall and FPR give together. The rates "
        "hold for traffic that looks like this dataset."
    )


def _show_bands(decision: Decision) -> None:
    """Sweep the bands at which hybrid stops asking the model."""
    stored, lab = scores(decision.key), decision.lab
    if stored.heuristic is None or stored.model is None or not lab.column.n:
        st.caption("Bands need a labelled run that scored both parts.")
        return
    safe = st.slider(
        "Linear tier lets pass at or below",
        0.0,
        0.5,
        SAFE_BAND,
        step=0.01,
        key="lab_safe_band",
        persist_state="session",
        help="Where no rule matched, a text at or below this score of the linear tier ends without "
        "the model; 0 is off. As shipped, at most 0.5% of held-out attacks are lost.",
    )
    grid = default_grid(stored.heuristic[:, 1])
    points = sweep_bands(stored, lab.view, decision.threshold, *grid, safe or None)
    order = ordered_bands(points, decision.rule, st.session_state.get("lab_call", 0.0))
    frame = bands_frame(order)
    questions = (
        ("f1", "Where is F1 highest?", "F1, %"),
        ("asked", "How many texts still ask the model?", "asked, %"),
    )
    for place, (value, question, title) in zip(st.columns(2), questions, strict=True):
        with place:
            charted(
                question,
                band_map(points, value, title, 100.0),
                frame,
                key=f"lab_bands_{value}",
                help=f"At threshold {decision.threshold:g}. Off: no text is let through without "
                "the model.",
            )
    show_table(frame, key="lab_band_table", columns=_BAND_COLUMNS, height=240)
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        titles = {point: band_title(point) for point, _ in order}
        point = st.selectbox(
            "Bands to use", list(titles), format_func=titles.__getitem__, key="lab_band_choice"
        )
    with right:
        if st.button("Use these bands", key="lab_use_bands"):
            use_bands(decision.run, point.bands)
            st.session_state["lab_mode_wanted"] = Mode.HYBRID
            st.rerun()


def _show_slices(decision: Decision) -> None:
    """Show each slice's own threshold, with what to make of it."""
    run, lab, datasets = decision.run, decision.lab, resources().store.datasets
    names = datasets.find(run.dataset_id).slice_columns
    if not names:
        st.caption("This dataset has no slice column.")
        return
    if decision.rule is None:
        st.caption("Choose by a limit, by cost or by a metric to see it per slice.")
        return
    name = pick("Slice column", {name: plain(name) for name in names}, key="lab_slice")
    values = datasets.slices(run.dataset_id, name)[scores(decision.key).row_index[lab.rows]]
    choices = slice_choices(
        lab.labels,
        lab.risk,
        values,
        lab.units,
        decision.rule,
        decision.threshold,
        groups=lab.groups,
    )
    st.warning(
        "A threshold per slice is chosen on few rows and needs the slice to be known at scan "
        "time. A policy holds one threshold.",
        icon=":material/warning:",
    )
    meaning = (
        "McNemar's exact test on half of the slice's rows, with a threshold chosen on the other "
        "half; adjusted for the number of slices (Holm)."
    )
    show_table(
        slices_frame(choices[:_MOST_SLICES], decision.threshold),
        key="lab_slices",
        columns={"Adjusted p": column(meaning, "%.2g")},
    )
    if len(choices) > _MOST_SLICES:
        st.caption(f"The {_MOST_SLICES} largest of {len(choices):,} slices.")


def _show_nearest(decision: Decision) -> None:
    """Show the rows whose verdict the smallest change would turn."""
    run, stored = decision.run, scores(decision.key)
    below, above = nearest_rows(decision.lab.view, decision.threshold)
    for title, places in (("Just let through", below), ("Just flagged", above)):
        st.markdown(f"**{title}**")
        indexes = sorted(int(stored.row_index[place]) for place in places)
        rows = stored_rows(resources().store, run.dataset_id, indexes, run.run_id)
        if rows:
            show_table(rows_table(rows, run.task), key=f"lab_near_{title}")
        else:
            st.caption("No row.")


_PARTS: dict[str, Callable[[Decision], None]] = {
    "Curves": _show_curves,
    "On new rows": _show_new_rows,
    "In traffic": _show_traffic,
    "Hybrid bands": _show_bands,
    "Slices": _show_slices,
    "Rows near it": _show_nearest,
}
