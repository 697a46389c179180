"""The threshold and bands in force on the Threshold lab, and the inputs that choose them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import streamlit as st

from dashboard.state import RunKey, balanced, operating_points
from dashboard.text import plain
from dashboard.threshold_lab.tables import choice_text, counts_frame, rates_frame, risk_of, tiles
from dashboard.widgets import pick, show_table
from shield_engine.config import Bands
from shield_engine.decide.column import Lab, rates_at
from shield_engine.decide.thresholds import Highest, ThresholdRule
from shield_engine.metrics.table import METRICS, percent
from shield_engine.store import RunInfo
from shield_engine.types import Mode

__all__ = [
    "RESAMPLES",
    "Decision",
    "ask_number",
    "ask_prevalence",
    "bands_of",
    "choose",
    "show_bands_in_force",
    "use_bands",
]

_CONSTRAINT, _COST, _METRIC, _HAND = "By a limit", "By cost", "By a metric", "By hand"
RESAMPLES = 1_000

_LIMITS: dict[Literal["fpr", "recall", "precision"], tuple[str, float]] = {
    "fpr": ("False positive rate at most", 1.0),
    "recall": ("Recall at least", 95.0),
    "precision": ("Precision at least", 50.0),
}
"""What each limit is called, and the percentage it begins with."""

_OPERATING_POINTS = {
    "balanced": ("Balanced", "Flags what is more likely risky than not."),
    "low_false_alarms": ("Low false alarms", "Flags 1% of harmless texts."),
    "high_catch": ("High catch", "Finds 95% of risky texts."),
}


# --- what is in force -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A threshold, how it was chosen, and the rule that chose it."""

    threshold: float
    how: str = "by hand"
    rule: ThresholdRule | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A mode of a run at the threshold in force.

    Attributes:
        how: How the threshold was chosen.
        chosen_by: The rule that chose it; `None` if it was chosen by hand.
        rule: The rule that the inputs state now; `None` for a choice by hand.
    """

    run: RunInfo
    mode: Mode
    lab: Lab
    bands: Bands
    threshold: float
    how: str
    chosen_by: ThresholdRule | None
    rule: ThresholdRule | None

    @property
    def key(self) -> RunKey:
        """The run's key in caches."""
        return RunKey.of(self.run)


def bands_of(run: RunInfo) -> Bands:
    """Return the hybrid bands in force for a run."""
    bands: Bands = st.session_state.get(f"lab_bands_{run.run_id}", Bands())
    return bands


def use_bands(run: RunInfo, bands: Bands) -> None:
    """Put bands in force."""
    st.session_state[f"lab_bands_{run.run_id}"] = bands


def show_bands_in_force(run: RunInfo, *, has_tier: bool) -> None:
    """Say which texts hybrid decides without the model."""
    bands = bands_of(run)
    below = "" if bands.lower is None else f" and at or below {bands.lower:g}"
    tier = ""
    if bands.safe is not None and has_tier:
        tier = f"the linear tier lets pass at or below {bands.safe:g} where no rule matched, "
    st.caption(
        f"Hybrid bands in force: the rules decide at or above {bands.upper:g}{below}, {tier}"
        "the model decides the rest. Look closer at Hybrid bands to try others."
    )


def _use(
    key: str, threshold: float, how: str = "by hand", rule: ThresholdRule | None = None
) -> None:
    st.session_state[key] = _Chosen(float(threshold), how, rule)


def choose(run: RunInfo, mode: Mode, lab: Lab) -> Decision:
    """Show the ways to choose with their result, and return what is in force."""
    key = f"lab_threshold_{run.run_id}_{mode.value}"
    st.session_state.setdefault(key, _Chosen(balanced(run).get(mode.value, 0.5)))
    ways = [_CONSTRAINT, _COST, _METRIC, _HAND]
    way = pick("How to choose", ways, key="lab_way", segmented=True) if lab.has_both else _HAND
    left, right = st.columns([2, 3], gap="large")
    with left:
        rule = _ask_rule(way, lab) if lab.has_both else None
        if rule is not None:
            _suggest(lab, rule, key)
        elif not lab.has_both:
            st.caption("Only one class is labelled, so a threshold can only be chosen by hand.")
    with right:
        _ask_threshold(key)
        if mode is Mode.ML:
            _show_operating_points(run, key)
        chosen: _Chosen = st.session_state[key]
        _show_rates(lab, chosen.threshold)
    return Decision(run, mode, lab, bands_of(run), chosen.threshold, chosen.how, chosen.rule, rule)


# --- inputs ---------------------------------------------------------------------------------


def ask_number(
    title: str, low: float, high: float, default: float, *, key: str, **more: Any
) -> float:
    """Ask for a number that outlives the page; `more` is what the widget takes besides."""
    number: float = st.number_input(
        title, low, high, default, key=key, persist_state="session", **more
    )
    return number


def ask_prevalence(
    title: str = "Risky texts in traffic, %", *, key: str = "lab_prevalence", **more: Any
) -> float:
    """Ask how rare attacks are, and return it as a share."""
    return ask_number(title, 0.0, 100.0, 1.0, key=key, step=0.5, format="%.3g", **more) / 100


def _ask_rule(way: str, lab: Lab) -> ThresholdRule | None:
    """Ask what is wanted; `None` for a choice by hand."""
    if way == _COST:
        return _ask_cost(lab)
    if way == _METRIC:
        titles: dict[Highest, str] = {name: METRICS[name].title for name in get_args(Highest)}
        return ThresholdRule(kind=pick("Highest", titles, key="lab_metric"))
    if way == _CONSTRAINT:
        return _ask_limit()
    st.caption("Move the threshold; what it gives follows at once.")
    return None


def _ask_limit() -> ThresholdRule:
    """Ask for a limit that must be proved."""
    kind = pick(
        "Limit", {kind: title for kind, (title, _) in _LIMITS.items()}, key="lab_limit_kind"
    )
    left, right = st.columns(2)
    with left:
        key, default = f"lab_limit_{kind}", _LIMITS[kind][1]
        limit = ask_number("Percent", 0.001, 100.0, default, key=key, step=0.5, format="%.3g")
    with right:
        confidence = ask_number(
            "Confidence, %",
            50.0,
            99.9,
            95.0,
            key="lab_confidence",
            step=1.0,
            format="%.3g",
            help="How sure the rows must make it. The limit is judged by a one-sided exact "
            "(Clopper-Pearson) bound, not by the rate that happened to be observed.",
        )
    prevalence = _ask_traffic() if kind == "precision" else 0.01
    return ThresholdRule(
        kind=kind, limit=limit / 100, confidence=confidence / 100, prevalence=prevalence
    )


def _ask_cost(lab: Lab) -> ThresholdRule:
    """Ask for the prices of mistakes, and of the model."""
    ratios = "In any unit, the same for all: only ratios matter."
    calls = "For one text. No threshold changes it; Hybrid bands do, and are ordered by it."
    left, right = st.columns(2)
    with left:
        miss = ask_number("A miss costs", 0.0, 1e9, 100.0, key="lab_miss", step=10.0, help=ratios)
    with right:
        alarm = ask_number("A false alarm costs", 0.0, 1e9, 1.0, key="lab_alarm", step=1.0)
    left, right = st.columns(2)
    with left:
        prevalence = _ask_traffic()
    with right:
        title, step = "Asking the model costs", 0.001
        call = ask_number(
            title, 0.0, 1e9, 0.0, key="lab_call", step=step, format="%.4g", help=calls
        )
    scored = lab.view.asked[lab.view.is_scored]
    asked = float(scored.mean()) if len(scored) else 0.0
    return ThresholdRule(
        kind="cost", miss=miss, false_alarm=alarm, prevalence=prevalence, per_text=call * asked
    )


def _ask_traffic() -> float:
    return ask_prevalence(
        help="Of your real traffic. A test set usually holds far more attacks than that."
    )


def _ask_threshold(key: str) -> None:
    """Show slider and exact number of the threshold in force; each follows the other."""
    state = st.session_state

    def follow(widget: str) -> Callable[[], None]:
        if state.get(widget) != state[key].threshold:
            state[widget] = state[key].threshold
        return lambda: _use(key, state[widget])

    slider, exact = f"{key}_slider", f"{key}_exact"
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    with left:
        st.slider(
            "Threshold: a text is flagged if its score is at least this",
            0.0,
            1.0,
            step=0.001,
            format="%.3f",
            key=slider,
            on_change=follow(slider),
        )
    with right:
        st.number_input(
            "Exactly", 0.0, 1.0, step=0.01, format="%.6g", key=exact, on_change=follow(exact)
        )


def _show_operating_points(run: RunInfo, key: str) -> None:
    """Offer the thresholds that came with the model."""
    points = operating_points(run)
    if not points:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Shipped with the model:")
        for name, threshold in points.items():
            title, promise = _OPERATING_POINTS[name]
            st.button(
                f"{title} {threshold:.3g}",
                key=f"lab_point_{name}",
                help=f"{promise} Chosen on rows from sources the model was not trained on; your "
                "texts may differ, so look at the figures below.",
                on_click=_use,
                args=(key, threshold, f"shipped with the model: {title.lower()}"),
            )


def _suggest(lab: Lab, rule: ThresholdRule, key: str) -> None:
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
        on_click=_use,
        args=(key, choice.threshold, choice.how, rule),
    )


def _show_rates(lab: Lab, threshold: float) -> None:
    """Show the rates at a threshold."""
    if not lab.column.n:
        risk = risk_of(lab)
        share = float((risk >= threshold).mean()) if len(risk) else None
        st.metric("Flagged at this threshold", percent(share))
        return
    figures = rates_at(lab.column, threshold, resamples=RESAMPLES)
    with st.container(horizontal=True):
        for title, value, interval in tiles(figures):
            st.metric(
                title, value, delta=interval, delta_color="off", delta_arrow="off", border=True
            )
    counts = lab.column.at(threshold)
    st.caption(
        f"{int(counts.tp[0]):,} of {len(lab.column.risky):,} risky rows found, "
        f"{int(counts.fp[0]):,} of {len(lab.column.harmless):,} harmless rows flagged. Below each "
        "figure: its 95% interval."
    )
    with st.expander("Confusion matrix and all rates"):
        matrix = counts_frame(lab.column, threshold, lab.view.label_names)
        show_table(matrix, key="lab_counts", alt="Confusion matrix at the threshold")
        show_table(rates_frame(figures), key="lab_rates")
