"""Threshold lab: choose a threshold, see what it costs, prove it on other rows, save it."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd
import streamlit as st

from dashboard.state import (
    RunKey,
    balanced,
    drop_stale,
    keep,
    kept,
    mode_evaluation,
    operating_points,
    optimism_of,
    resources,
    scores,
    split_of,
    threshold_lab,
)
from dashboard.tables import rows_table
from dashboard.text import MODE_TITLES, plain
from dashboard.threshold_lab import charts as lab_charts
from dashboard.threshold_lab.tables import (
    bands_frame,
    choice_evidence,
    choice_text,
    counts_frame,
    day_frame,
    new_policy,
    optimism_text,
    ordered_bands,
    policies_frame,
    rates_frame,
    slices_frame,
    split_text,
    sweep_frame,
)
from dashboard.widgets import charted, choose_run, errors_shown, page_title, watch_run
from shield_engine.config import SAFE_BAND, Bands
from shield_engine.decide.bands import default_grid, sweep_bands
from shield_engine.decide.figures import ModeEvaluation, available_modes, row_groups
from shield_engine.decide.lab import Lab, nearest_rows
from shield_engine.decide.label_policy import label_policy_figures
from shield_engine.decide.splits import slice_choices
from shield_engine.decide.thresholds import Rule, rates_at
from shield_engine.decide.traffic import Traffic, day_of
from shield_engine.metrics.table import COMPARED, figure_text, percent
from shield_engine.policy import Policy, policy_differences, write_policies
from shield_engine.store import RunInfo, RunStatus
from shield_engine.store.library import delete_policy, policies, save_policy
from shield_engine.types import LABELS, Mode, Task

CONSTRAINT, COST, METRIC, HAND = "By a limit", "By cost", "By a metric", "By hand"
CURVES, NEW_ROWS, TRAFFIC, BANDS, SLICES, ROWS = (
    "Curves", "On new rows", "In traffic", "Hybrid bands", "Slices", "Rows near it",
)  # fmt: skip
LIMITS: dict[Literal["fpr", "recall", "precision"], str] = {
    "fpr": "False positive rate at most",
    "recall": "Recall at least",
    "precision": "Precision at least",
}
RESAMPLES = 1_000
# Rows up to which every figure with its bootstrap takes under 0.2 s, so follows a drag.
QUICK_ROWS = 5_000


# --- where things are kept ------------------------------------------------------------------


def bands_of(run: RunInfo) -> Bands:
    """Return the hybrid bands in force for a run."""
    stored: Bands = kept(f"lab_bands_{run.run_id}", Bands())
    return stored


def use_bands(run: RunInfo, bands: Bands) -> None:
    """Put bands in force."""
    st.session_state[f"kept:lab_bands_{run.run_id}"] = bands


def threshold_key(run: RunInfo, mode: Mode) -> str:
    """Return where a run's threshold in a mode is kept."""
    return f"lab_threshold_{run.run_id}_{mode.value}"


OPERATING_POINT_TITLES = {
    "balanced": ("Balanced", "Flags what is more likely risky than not."),
    "low_false_alarms": ("Low false alarms", "Flags 1% of harmless texts."),
    "high_catch": ("High catch", "Finds 95% of risky texts."),
}


def use_threshold(key: str, threshold: float, how: str, rule: Rule | None = None) -> None:
    """Put a threshold in force, with how it was chosen."""
    st.session_state[key] = st.session_state[f"{key}_slider"] = float(threshold)
    st.session_state[f"kept:{key}"] = float(threshold)
    st.session_state[f"kept:{key}_how"] = how
    st.session_state[f"kept:{key}_rule"] = rule


# --- choosing -------------------------------------------------------------------------------


def choose_way() -> str:
    """Let the user say how a threshold is chosen."""
    keep("lab_way", CONSTRAINT)
    way = st.segmented_control(
        "How to choose", [CONSTRAINT, COST, METRIC, HAND], key="lab_way", required=True
    )
    assert way is not None  # noqa: S101 - the control is required
    return way


def rule_inputs(way: str, lab: Lab) -> Rule | None:
    """Let the user say what is wanted; `None` for a choice by hand."""
    if way == HAND:
        st.caption("Move the threshold; what it gives follows at once.")
        return None
    if way == METRIC:
        keep("lab_metric", "f1")
        metric = st.selectbox(
            "Highest",
            ["f1", "balanced_accuracy"],
            format_func={"f1": "F1", "balanced_accuracy": "Balanced accuracy"}.__getitem__,
            key="lab_metric",
        )
        return Rule(kind="f1" if metric == "f1" else "balanced_accuracy")
    if way == COST:
        return cost_inputs(lab)
    return limit_inputs()


def limit_inputs() -> Rule:
    """Let the user name a limit that must be proved."""
    keep("lab_limit_kind", "fpr")
    kind = st.selectbox("Limit", list(LIMITS), format_func=LIMITS.__getitem__, key="lab_limit_kind")
    default = {"fpr": 1.0, "recall": 95.0, "precision": 50.0}[kind]
    left, right = st.columns(2)
    with left:
        key = f"lab_limit_{kind}"
        keep(key, default)
        limit = st.number_input("Percent", 0.001, 100.0, step=0.5, key=key, format="%.3g")
    with right:
        keep("lab_confidence", 95.0)
        confidence = st.number_input(
            "Confidence, %", 50.0, 99.9, step=1.0, key="lab_confidence", format="%.3g",
            help="How sure the rows must make it. The limit is judged by a one-sided exact "
            "(Clopper-Pearson) bound, not by the rate that happened to be observed.",
        )  # fmt: skip
    prevalence = prevalence_input() if kind == "precision" else 0.01
    return Rule(
        kind=kind, limit=limit / 100, confidence=confidence / 100, prevalence=prevalence
    )  # fmt: skip


def cost_inputs(lab: Lab) -> Rule:
    """Let the user price mistakes, and the model."""
    left, right = st.columns(2)
    with left:
        keep("lab_miss", 100.0)
        miss = st.number_input(
            "A miss costs", 0.0, 1e9, step=10.0, key="lab_miss",
            help="In any unit, the same for all: only ratios matter.",
        )  # fmt: skip
    with right:
        keep("lab_alarm", 1.0)
        alarm = st.number_input("A false alarm costs", 0.0, 1e9, step=1.0, key="lab_alarm")
    left, right = st.columns(2)
    with left:
        prevalence = prevalence_input()
    with right:
        keep("lab_call", 0.0)
        call = st.number_input(
            "Asking the model costs", 0.0, 1e9, step=0.001, key="lab_call", format="%.4g",
            help="For one text. No threshold changes it; Hybrid bands do, and are ordered by it.",
        )  # fmt: skip
    scored = lab.view.asked[lab.view.is_scored]
    asked = float(scored.mean()) if len(scored) else 0.0
    return Rule(
        kind="cost", miss=miss, false_alarm=alarm, prevalence=prevalence, per_text=call * asked
    )


def prevalence_input() -> float:
    """Let the user say how rare attacks are in traffic."""
    keep("lab_prevalence", 1.0)
    value: float = st.number_input(
        "Risky texts in traffic, %", 0.0, 100.0, step=0.5, key="lab_prevalence", format="%.3g",
        help="Of your real traffic. A test set usually holds far more attacks than that.",
    )  # fmt: skip
    return value / 100


def threshold_inputs(lab: Lab, key: str) -> float:
    """Show slider and exact number, and return the threshold in force."""
    slider = f"{key}_slider"
    st.session_state.setdefault(slider, st.session_state[key])

    def from_slider() -> None:
        use_threshold(key, st.session_state[slider], "by hand")

    def from_number() -> None:
        use_threshold(key, st.session_state[key], "by hand")

    left, right = st.columns([4, 1], vertical_alignment="bottom")
    with left:
        st.slider(
            "Threshold: a text is flagged if its score is at least this", 0.0, 1.0, step=0.001,
            format="%.3f", key=slider, on_change=from_slider,
        )  # fmt: skip
    with right:
        st.number_input(
            "Exactly", 0.0, 1.0, step=0.01, format="%.6g", key=key, on_change=from_number
        )
    return float(st.session_state[key])


def choose(run: RunInfo, lab: Lab, mode: Mode) -> tuple[float, Rule | None]:
    """Show the ways to choose with their result, and return what is in force."""
    key = threshold_key(run, mode)
    if key not in st.session_state:
        st.session_state[key] = kept(key, dict(balanced(run)).get(mode.value, 0.5))
    way = choose_way() if lab.has_both else HAND
    left, right = st.columns([2, 3], gap="large")
    with left:
        rule = rule_inputs(way, lab) if lab.has_both else None
        if rule is not None:
            suggest(lab, rule, key)
        elif not lab.has_both:
            st.caption("Only one class is labelled, so a threshold can only be chosen by hand.")
    with right:
        threshold = threshold_inputs(lab, key)
        if mode is Mode.ML:
            show_operating_points(run, key)
        show_rates(lab, threshold)
    return threshold, rule


def show_operating_points(run: RunInfo, key: str) -> None:
    """Offer the thresholds that came with the model."""
    points = operating_points(run)
    if not points:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Shipped with the model:")
        for name, threshold in points.items():
            title, promise = OPERATING_POINT_TITLES[name]
            st.button(
                f"{title} {threshold:.3g}",
                key=f"lab_point_{name}",
                help=f"{promise} Chosen on rows from sources the model was not trained on; your "
                "texts may differ, so look at the figures below.",
                on_click=use_threshold,
                args=(key, threshold, f"shipped with the model: {title.lower()}"),
            )


def suggest(lab: Lab, rule: Rule, key: str) -> None:
    """Say what a rule gives, and offer to use it."""
    choice = rule.choose(lab.column)
    if choice.threshold is None:
        st.warning(plain(choice_text(choice)), icon=":material/block:")
        return
    st.success(plain(choice_text(choice)), icon=":material/check:")
    if rule.kind == "cost" and choice.value is not None:
        st.caption(f"Expected cost {choice.value:,.1f} for 1,000 texts.")
    st.button(
        "Use this threshold",
        type="primary",
        key="lab_use",
        on_click=use_threshold,
        args=(key, choice.threshold, choice.how, rule),
    )


def show_rates(lab: Lab, threshold: float) -> None:
    """Show the rates at a threshold."""
    if not lab.column.n:
        risk = lab.view.risk
        assert risk is not None  # noqa: S101 - the lab takes two classes only
        scored = risk[lab.view.is_scored]
        share = float((scored >= threshold).mean()) if len(scored) else None
        st.metric("Flagged at this threshold", percent(share))
        return
    figures = rates_at(lab.column, threshold, resamples=RESAMPLES)
    with st.container(horizontal=True):
        for name, title in (("recall", "Recall"), ("fpr", "FPR"), ("precision", "Precision"),
                            ("f1", "F1")):  # fmt: skip
            if name in figures:
                figure = figures[name]
                st.metric(
                    title,
                    percent(figure.value),
                    delta=figure_text(name, figure).partition(" ")[2].strip("()") or None,
                    delta_color="off",
                    delta_arrow="off",
                    border=True,
                )
    counts = lab.column.at(threshold)
    st.caption(
        f"{int(counts.tp[0]):,} of {len(lab.column.risky):,} risky rows found, "
        f"{int(counts.fp[0]):,} of {len(lab.column.harmless):,} harmless rows flagged. Below each "
        "figure: its 95% interval."
    )
    with st.expander("Confusion matrix and all rates"):
        st.dataframe(
            counts_frame(lab.column, threshold, lab.view.label_names), hide_index=True,
            key="lab_counts", alt="Confusion matrix at the threshold",
        )  # fmt: skip
        st.dataframe(rates_frame(figures), hide_index=True, key="lab_rates")


# --- what a threshold means -----------------------------------------------------------------


def show_charts(lab: Lab, threshold: float, rule: Rule | None) -> None:
    """Draw where the scores lie and how the rates follow the threshold."""
    flat = None
    if lab.has_both:
        flat = (rule or Rule(kind="f1")).flat(lab.column, threshold)
    risk = lab.view.risk
    assert risk is not None  # noqa: S101 - the lab takes two classes only
    unlabelled = None if lab.column.n else risk[lab.view.is_scored]
    left, right = st.columns(2)
    with left:
        charted(
            "Where do the scores lie?",
            lab_charts.distribution(
                lab.column, lab.view.label_names, threshold, unlabelled=unlabelled
            ),
            sweep_frame(lab.column)
            if lab.column.n
            else pd.DataFrame({"score": unlabelled[:1_000]})
            if unlabelled is not None
            else pd.DataFrame(),
            key="lab_scores",
            help="Rows by score and label. What lies right of the line is flagged.",
        )
    if not lab.column.n:
        return
    with right:
        charted(
            "What would another threshold give?",
            lab_charts.metrics_against_threshold(lab.column, threshold, flat),
            sweep_frame(lab.column),
            key="lab_sweep",
            help="Bands are 95% intervals. Grey: thresholds that these rows cannot tell apart.",
        )
        if flat is not None and flat.high > flat.low:
            st.caption(
                f"From {flat.low:.3g} to {flat.high:.3g} these rows see no difference beyond "
                "chance: within it, take the rounder or the safer number."
            )


def show_curves(lab: Lab, threshold: float, mode: Mode) -> None:
    """Draw ROC, PR and DET curves."""
    if not lab.has_both:
        st.caption("Curves need risky and harmless rows.")
        return
    questions = {
        "ROC": "What does each false alarm rate buy?",
        "PR": "How clean is what is flagged?",
        "DET": "What do few misses cost in false alarms?",
    }
    keep("lab_curve", "ROC")
    kind = st.segmented_control("Curve", list(questions), key="lab_curve", required=True)
    assert kind is not None  # noqa: S101 - the control is required
    charted(
        questions[kind],
        lab_charts.curve(lab.column, kind, threshold, mode.value),
        sweep_frame(lab.column),
        key=f"lab_{kind}",
        help=f"{kind} curve with a 95% band; the diamond is the threshold in force.",
    )


def show_new_rows(run: RunInfo, mode: Mode, rule: Rule | None) -> None:
    """Choose on one half of the rows, report on the other, and estimate the optimism."""
    if rule is None:
        st.caption("Choose by a limit, by cost or by a metric to see how far that would hold.")
        return
    keep("lab_seed", 7)
    seed = int(
        st.number_input("Seed of the split", 0, 10_000, step=1, key="lab_seed", width=200,
                        help="Another seed deals the rows out differently.")
    )  # fmt: skip
    key, bands = RunKey.of(run), bands_of(run)
    report = split_of(key, mode, bands, rule, seed)
    st.markdown("**Chosen on one half, reported on the other**")
    st.markdown(plain(split_text(report, rule)))
    if report.choice.threshold is not None and report.reporting.n:
        figures = rates_at(report.reporting, report.choice.threshold, resamples=RESAMPLES)
        st.dataframe(rates_frame(figures), hide_index=True, key="lab_reported")
    st.markdown("**How much does choosing on all rows flatter?**")
    st.markdown(plain(optimism_text(optimism_of(key, mode, bands, rule), rule)))
    st.caption(
        "Split: seeded, by whole groups or equal texts. Optimism: bootstrap (Efron 1983). "
        "Save the threshold chosen on all rows, and quote the reported figures."
    )


def show_traffic(lab: Lab, threshold: float) -> None:
    """Turn rates into a day of traffic."""
    first, second, third = st.columns(3)
    with first:
        keep("lab_texts", 100_000)
        texts = st.number_input("Texts a day", 0, 10**10, step=10_000, key="lab_texts")
    with second:
        prevalence = prevalence_input_beside()
    with third:
        keep("lab_minutes", 2.0)
        minutes = st.number_input(
            "Minutes to review a flagged text", 0.0, 600.0, step=0.5, key="lab_minutes"
        )
    figures = rates_at(lab.column, threshold)
    day = day_of(figures["recall"], figures["fpr"], Traffic(texts, prevalence, minutes))
    st.dataframe(
        day_frame(day), hide_index=True, key="lab_day", alt="A day of traffic at this threshold"
    )
    st.caption(
        "In brackets: the range that the 95% intervals of recall and FPR give together. The rates "
        "hold for traffic that looks like this dataset."
    )


def prevalence_input_beside() -> float:
    """Let the user say how rare attacks are, beside the other facts of traffic."""
    keep("lab_day_prevalence", 1.0)
    value: float = st.number_input(
        "Risky texts among them, %", 0.0, 100.0, step=0.5, key="lab_day_prevalence", format="%.3g"
    )
    return value / 100


def show_bands(run: RunInfo, lab: Lab, threshold: float, rule: Rule | None) -> None:
    """Sweep the bands at which hybrid stops asking the model."""
    if set(run.parts) != {"heuristic", "ml"} or not lab.column.n:
        st.caption("Bands need a labelled run that scored both parts.")
        return
    stored = scores(RunKey.of(run))
    assert stored.heuristic is not None  # noqa: S101 - the run scored both parts
    keep("lab_safe_band", SAFE_BAND)
    safe = st.slider(
        "Linear tier lets pass at or below", 0.0, 0.5, step=0.01, key="lab_safe_band",
        help="Where no rule matched, a text at or below this score of the linear tier ends without "
        "the model; 0 is off. As shipped, at most 0.5% of held-out attacks are lost.",
    )  # fmt: skip
    points = sweep_bands(
        stored, lab.view, threshold, *default_grid(stored.heuristic[:, 1]), safe or None
    )
    order = ordered_bands(points, rule, kept("lab_call", 0.0))
    frame = bands_frame(order)
    questions = (
        ("f1", "Where is F1 highest?", "F1, %"),
        ("asked", "How many texts still ask the model?", "asked, %"),
    )
    for column, (value, question, title) in zip(st.columns(2), questions, strict=True):
        with column:
            charted(
                question, lab_charts.band_map(points, value, title, 100.0), frame,
                key=f"lab_bands_{value}",
                help=f"At threshold {threshold:g}. Off: no text is let through without the model.",
            )  # fmt: skip
    st.dataframe(
        frame, hide_index=True, key="lab_band_table", height=240,
        column_config={
            name: st.column_config.NumberColumn(format="percent")
            for name in ("F1", "Recall", "Recall lost before the model", "FPR", "Asks the model")
        } | {"Mean ms": st.column_config.NumberColumn(
            format="%.3f", help="Stored times of the parts, added up; cache misses only."),
            "Cost of 1,000 texts": st.column_config.NumberColumn(format="%.4g")},
    )  # fmt: skip
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        chosen = st.selectbox(
            "Bands to use",
            [point for point, _ in order],
            format_func=lambda point: (
                f"upper {point.bands.upper:g}, lower "
                f"{'off' if point.bands.lower is None else format(point.bands.lower, 'g')}: F1 "
                f"{percent(point.f1)}, recall lost {percent(point.recall_lost)}, asks "
                f"{percent(point.asked)}"
            ),
            key="lab_band_choice",
        )
    with right:
        if st.button("Use these bands", key="lab_use_bands"):
            use_bands(run, chosen.bands)
            st.session_state["kept:lab_mode"] = Mode.HYBRID
            st.session_state["lab_mode_wanted"] = Mode.HYBRID
            st.rerun()


def show_slices(run: RunInfo, lab: Lab, threshold: float, rule: Rule | None) -> None:
    """Show each slice's own threshold, with what to make of it."""
    store = resources().store
    names = slice_names(run)
    if rule is None or not names:
        st.caption(
            "This dataset has no slice column."
            if not names
            else "Choose by a limit, by cost or by a metric to see it per slice."
        )
        return
    drop_stale("lab_slice", names)
    keep("lab_slice", names[0])
    name = st.selectbox("Slice column", names, key="lab_slice", format_func=plain)
    rows = scores(RunKey.of(run)).row_index[lab.rows]
    values = store.slices(run.dataset_id, name)[rows]
    found = slice_choices(
        lab.labels, lab.risk, values, lab.units, rule, threshold, groups=lab.groups
    )
    st.warning(
        "A threshold per slice is chosen on few rows and needs the slice to be known at scan "
        "time. A policy holds one threshold.",
        icon=":material/warning:",
    )
    st.dataframe(
        slices_frame(found[:50], threshold), hide_index=True, key="lab_slices",
        column_config={"Adjusted p": st.column_config.NumberColumn(
            format="%.2g", help="McNemar's exact test on half of the slice's rows, with a threshold "
            "chosen on the other half; adjusted for the number of slices (Holm).")},
    )  # fmt: skip
    if len(found) > 50:
        st.caption(f"The 50 largest of {len(found):,} slices.")


def slice_names(run: RunInfo) -> list[str]:
    """Return the slice columns of a run's dataset."""
    mapping = resources().store.dataset(run.dataset_id).details.get("mapping", {})
    return list(mapping.get("slices") or ())


def show_nearest(run: RunInfo, lab: Lab, threshold: float) -> None:
    """Show the rows whose verdict the smallest change would turn."""
    stored = scores(RunKey.of(run))
    below, above = nearest_rows(lab.view, threshold)
    for title, places in (("Just let through", below), ("Just flagged", above)):
        st.markdown(f"**{title}**")
        indexes = [int(stored.row_index[place]) for place in places]
        rows = resources().store.page(run.dataset_id, run_id=run.run_id, indexes=indexes)
        if rows:
            st.dataframe(rows_table(rows, run.task), hide_index=True, key=f"lab_near_{title}")
        else:
            st.caption("No row.")


# --- the page's parts -----------------------------------------------------------------------


@st.fragment
def threshold_part(run: RunInfo, mode: Mode) -> None:
    """Everything that follows the threshold; a drag reruns this and nothing else."""
    with errors_shown():
        lab = threshold_lab(RunKey.of(run), mode, bands_of(run))
        if not lab.column.n:
            st.info(
                "This run has no labels: you see what a threshold flags, not whether it is right.",
                icon=":material/label_off:",
            )
        threshold, rule = choose(run, lab, mode)
        show_charts(lab, threshold, rule)
        if lab.column.n:
            keep("lab_part", CURVES)
            part = st.segmented_control(
                "Look closer",
                [CURVES, NEW_ROWS, TRAFFIC, BANDS, SLICES, ROWS],
                key="lab_part",
                required=True,
            )
            if part == CURVES:
                show_curves(lab, threshold, mode)
            elif part == NEW_ROWS:
                show_new_rows(run, mode, rule)
            elif part == TRAFFIC:
                show_traffic(lab, threshold)
            elif part == BANDS:
                show_bands(run, lab, threshold, rule)
            elif part == SLICES:
                show_slices(run, lab, threshold, rule)
            else:
                show_nearest(run, lab, threshold)
        else:
            show_nearest(run, lab, threshold)
        save_part(run, lab, mode, threshold)
        with st.container(horizontal=True):
            link = {"run": run.run_id}
            st.page_link(
                "app_pages/errors.py", label="Read the errors", icon=":material/rule:",
                query_params=link,
            )  # fmt: skip
            st.page_link(
                "app_pages/reports_gates.py", label="Gate it and write a report",
                icon=":material/task_alt:", query_params=link,
            )  # fmt: skip


def save_part(run: RunInfo, lab: Lab, mode: Mode, threshold: float) -> None:
    """Save what is in force as a policy with its evidence."""
    key, run_key, bands = threshold_key(run, mode), RunKey.of(run), bands_of(run)
    st.subheader("Save it as a policy", anchor=False)
    keep(f"lab_exact_{run.run_id}", run.rows_done <= QUICK_ROWS)
    if st.toggle(
        "Show every figure as `shield eval --policy` prints it",
        key=f"lab_exact_{run.run_id}",
        help="They are the ones that the policy keeps. Resampling many rows takes a second at each "
        "new threshold, so this is off for large runs.",
    ):
        show_exact(mode_evaluation(run_key, mode, threshold, bands))
    how, rule = kept(f"{key}_how", "by hand"), kept(f"{key}_rule")
    if kept(key, threshold) != threshold:
        how, rule = "by hand", None
    with st.form("lab_save", clear_on_submit=True):
        left, right = st.columns(2)
        name = left.text_input("Name", placeholder="front-door", max_chars=80)
        note = right.text_input("Note", placeholder="why this one", max_chars=400)
        if st.form_submit_button("Save policy", type="primary", icon=":material/save:"):
            figures = mode_evaluation(run_key, mode, threshold, bands)
            extra = evidence_of(run, lab, mode, threshold, rule)
            save(run, mode, threshold, bands, figures, name, note, how, extra=extra)


def evidence_of(
    run: RunInfo, lab: Lab, mode: Mode, threshold: float, rule: Rule | None
) -> dict[str, Any]:
    """Return what a policy keeps beside its figures: counts, and how the rule holds elsewhere."""
    if not lab.column.n:
        return {}
    counts = lab.column.at(threshold)
    evidence: dict[str, Any] = {
        "counts": {
            name: int(side[0])
            for name, side in (
                ("tp", counts.tp), ("fp", counts.fp), ("fn", counts.fn), ("tn", counts.tn)
            )
        }
    }  # fmt: skip
    if rule is None:
        return evidence
    key, bands, seed = RunKey.of(run), bands_of(run), int(kept("lab_seed", 7))
    report = split_of(key, mode, bands, rule, seed)
    found = optimism_of(key, mode, bands, rule)
    return evidence | choice_evidence(report, found, seed)


def show_exact(figures: ModeEvaluation) -> None:
    """Show the figures that go into the policy; `shield eval --policy` prints the same."""
    shown = {
        name: figure
        for name, figure in figures.metrics.items()
        if figure.value is not None and name in {*COMPARED, "mcc"}
    }
    if shown:
        st.caption(
            "All rows at this threshold: "
            + ", ".join(f"{name} {figure_text(name, figure)}" for name, figure in shown.items())
            + ". `shield eval --policy` prints the same on the same rows."
        )


def save(
    run: RunInfo,
    mode: Mode,
    threshold: float | None,
    bands: Bands,
    figures: ModeEvaluation,
    name: str,
    note: str,
    how: str,
    **more: Any,
) -> None:
    """Keep a policy and say so."""
    if not name.strip():
        st.error("Give the policy a name.")
        return
    held = resources()
    with errors_shown("The policy was not saved"):
        saved = save_policy(
            held.store,
            new_policy(
                name, note, run, held.store.dataset(run.dataset_id), mode, figures,
                threshold=threshold, bands=bands, chosen_by=how, **more,
            ),
        )  # fmt: skip
        st.session_state["lab_saved"] = saved.title
        st.rerun()


def sentiment_part(run: RunInfo, mode: Mode) -> None:
    """Sentiment goes by its most probable label: choose which labels pass."""
    key = RunKey.of(run)
    stored = scores(key)
    names = LABELS[Task.SENTIMENT]
    keep("lab_allowed", ["neutral", "positive"])
    allowed = st.multiselect("Labels that pass", names, key="lab_allowed")
    st.caption(
        "The verdict is the most probable of three labels, so there is no threshold. A text is "
        "flagged if that label may not pass."
    )
    bands = bands_of(run)
    if (stored.labels >= 0).any():
        groups = row_groups(resources().store, run.dataset_id, stored)
        figures = label_policy_figures(stored, mode, allowed, bands=bands, groups=groups)
        st.subheader("How often is flagging right?", anchor=False)
        st.dataframe(rates_frame(figures), hide_index=True, key="lab_label_rates")
    else:
        st.info("This run has no labels.", icon=":material/label_off:")
    evaluation = mode_evaluation(key, mode, 0.5, bands)
    st.subheader("Save it as a policy", anchor=False)
    with st.form("lab_save", clear_on_submit=True):
        left, right = st.columns(2)
        name = left.text_input("Name", placeholder="tone", max_chars=80)
        note = right.text_input("Note", placeholder="why these labels", max_chars=400)
        if st.form_submit_button("Save policy", type="primary", icon=":material/save:"):
            save(run, mode, None, bands, evaluation, name, note, "allowed labels",
                 allowed_labels=tuple(allowed))  # fmt: skip


def policies_part(task: Task) -> None:
    """List saved policies; tell two apart, download one, delete one."""
    st.subheader("Saved policies", anchor=False)
    saved = st.session_state.pop("lab_saved", None)
    if saved:
        st.success(f"Saved {plain(saved)}.", icon=":material/check_circle:")
    found = policies(resources().store)
    if not found:
        st.caption("None yet. Choose a threshold above and save it.")
        return
    st.dataframe(policies_frame(found), hide_index=True, key="lab_policies")
    titles = {policy.title: policy for policy in found}
    if saved in titles:
        st.session_state["lab_policy"] = saved
    left, right = st.columns(2)
    with left:
        drop_stale("lab_policy", titles)
        chosen = titles[
            st.selectbox("Policy", list(titles), key="lab_policy", format_func=plain)
        ]  # fmt: skip
        with st.container(horizontal=True):
            st.download_button(
                "shield.toml",
                write_policies([chosen]),
                file_name="shield.toml",
                mime="application/toml",
                icon=":material/download:",
                key="lab_export",
                on_click="ignore",
                help="Load it with Shield.from_policy, shield scan --policy or shield eval "
                "--policy.",
            )
            if st.button("Delete this version", icon=":material/delete:", key="lab_delete"):
                delete_policy(resources().store, chosen.name, chosen.version)
                st.rerun()
    with right:
        others = [title for title in titles if title != chosen.title]
        if not others:
            return
        drop_stale("lab_other", others)
        other = titles[
            st.selectbox("Compare it with", others, key="lab_other", format_func=plain)
        ]  # fmt: skip
        show_differences(chosen, other)


def show_differences(first: Policy, second: Policy) -> None:
    """Show what two policies decide apart."""
    differences = policy_differences(first, second)
    if not differences:
        st.caption("They decide alike and rest on the same evidence.")
        return
    st.dataframe(
        pd.DataFrame(differences, columns=["What", first.title, second.title]),
        hide_index=True,
        key="lab_diff",
    )


page_title(
    "Threshold lab",
    "Choose the score from which a text is flagged, see what that costs, and save it as a policy.",
)
run = choose_run(
    "There is no run to choose a threshold on.",
    "Score a labelled dataset first; the bundled sample takes seconds.",
)
if run is not None:
    if run.status == RunStatus.RUNNING:
        watch_run(run.run_id, key="lab_watch")
    modes = list(available_modes(run))
    wanted = st.session_state.pop("lab_mode_wanted", None)
    if wanted is not None:
        st.session_state["lab_mode"] = wanted
    drop_stale("lab_mode", modes)
    keep("lab_mode", Mode.HYBRID if Mode.HYBRID in modes else modes[0])
    mode = st.segmented_control(
        "Mode", modes, format_func=MODE_TITLES.__getitem__, key="lab_mode", required=True
    )
    assert mode is not None  # noqa: S101 - the control is required
    if mode is Mode.HYBRID:
        in_force = bands_of(run)
        below = "" if in_force.lower is None else f" and at or below {in_force.lower:g}"
        tier = ""
        if in_force.safe is not None and run.task is not Task.SENTIMENT:
            tier = (
                f"the linear tier lets pass at or below {in_force.safe:g} where no rule matched, "
            )
        st.caption(
            f"Hybrid bands in force: the rules decide at or above {in_force.upper:g}{below}, {tier}"
            "the model decides the rest. Look closer at Hybrid bands to try others."
        )
    if run.errors:
        st.warning(f"{run.errors:,} rows failed in the model and count in no figure.")
    if run.task is Task.SENTIMENT:
        sentiment_part(run, mode)
    else:
        threshold_part(run, mode)
    policies_part(run.task)
