"""What the Compare page says and draws, from views made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dashboard import charts
from dashboard.comparison import (
    cache_frame,
    headline_metric,
    latency_frame,
    lattice,
    matrix_of,
    metric_names,
    verdict,
)
from shield_engine.evaluation.evaluate import ModeEvaluation, ModeView
from shield_engine.evaluation.metrics import binary_metrics, latency_summary
from shield_engine.types import Mode, Task

NAMES = ("benign", "injection")


def view_of(mode: Mode, labels: list[int], risk: list[float]) -> ModeView:
    """Return a two-class view at threshold .5."""
    scores = np.array(risk)
    return ModeView(
        Task.PROMPT_INJECTION, mode, 0.5, np.column_stack([1 - scores, scores]),
        np.ones(len(risk), dtype=bool), np.array(labels), NAMES, scores,
    )  # fmt: skip


def evaluation_of(view: ModeView) -> ModeEvaluation:
    """Return the figures of a view."""
    assert view.risk is not None
    keep = view.counts
    return ModeEvaluation(
        mode=view.mode, n=int(view.is_scored.sum()), errors=0, threshold=0.5, variant="INT8",
        model_sha256="x", positive_label="injection", labels=NAMES,
        metrics=binary_metrics(view.labels[keep], view.risk[keep], 0.5),
        latency=latency_summary(np.array([1.0, 2.0, 3.0])), latency_hit=latency_summary(np.array([])),
        hits=0, misses=3, flagged=int((view.predicted == 1).sum()), asked=2,
    )  # fmt: skip


LABELS = [0, 1] * 100
RIGHT = [0.1, 0.9] * 100
GUESS = [0.1, 0.9, 0.9, 0.1] * 50


def test_clear_lead_is_told_with_its_interval() -> None:
    """A mode that is ahead beyond its interval is said to be, in points."""
    views = {
        Mode.HEURISTIC: view_of(Mode.HEURISTIC, LABELS, GUESS),
        Mode.ML: view_of(Mode.ML, LABELS, RIGHT),
    }
    sentence = verdict(views, {mode: evaluation_of(view) for mode, view in views.items()})
    assert "On these 200 rows ML has the highest F1, 100.0%" in sentence
    assert "ahead of Heuristic by 50.0 points" in sentence


def test_near_draw_is_not_decided() -> None:
    """One row's difference is no lead."""
    almost = [0.9, *RIGHT[1:]]
    views = {
        Mode.HEURISTIC: view_of(Mode.HEURISTIC, LABELS, almost),
        Mode.ML: view_of(Mode.ML, LABELS, RIGHT),
    }
    sentence = verdict(views, {mode: evaluation_of(view) for mode, view in views.items()})
    assert "do not decide" in sentence
    assert "ahead" not in sentence


def test_price_in_false_alarms_is_told_where_another_mode_has_fewer() -> None:
    """The mode with the best F1 may flag more harmless rows; then the sentence says so."""
    many = [0.9 if label or n % 5 == 0 else 0.1 for n, label in enumerate(LABELS)]
    few = [0.9 if label and n % 4 == 1 else 0.1 for n, label in enumerate(LABELS)]
    views = {
        Mode.HEURISTIC: view_of(Mode.HEURISTIC, LABELS, few),
        Mode.ML: view_of(Mode.ML, LABELS, many),
    }
    sentence = verdict(views, {mode: evaluation_of(view) for mode, view in views.items()})
    assert "ML has the highest F1" in sentence
    assert "the lowest is Heuristic's 0.0%" in sentence


def test_same_verdicts_and_single_parts_are_told() -> None:
    """Identical modes are called so; a run of one part has nothing to compare."""
    views = {
        Mode.ML: view_of(Mode.ML, LABELS, GUESS),
        Mode.HYBRID: view_of(Mode.HYBRID, LABELS, GUESS),
    }
    evaluations = {mode: evaluation_of(view) for mode, view in views.items()}
    assert "gave the same verdicts" in verdict(views, evaluations)
    assert "one part only" in verdict({Mode.ML: views[Mode.ML]}, evaluations)


def test_headline_metric_is_one_that_the_set_has() -> None:
    """F1 needs both classes; a set of one is decided on accuracy."""
    assert headline_metric(view_of(Mode.ML, [0, 1], [0.1, 0.9])) == "f1"
    assert headline_metric(view_of(Mode.ML, [0, 0], [0.1, 0.9])) == "accuracy"


def test_lattice_counts_every_row_once_and_opens_the_right_ones() -> None:
    """Lines partition the rows, disagreements first, each with its own rows."""
    labels = [0, 0, 1, 1, -1]
    heuristic = view_of(Mode.HEURISTIC, labels, [0.9, 0.1, 0.9, 0.1, 0.1])
    model = view_of(Mode.ML, labels, [0.1, 0.1, 0.9, 0.9, np.nan])
    frame, members = lattice(heuristic, model)
    assert frame["Rows"].sum() == 4  # the failed row is in no line
    assert sorted(int(row) for rows in members for row in rows) == [0, 1, 2, 3]
    meanings = dict(zip(frame["Meaning"], (rows.tolist() for rows in members), strict=True))
    assert meanings["only the model is right"] in ([0], [3])
    assert frame["Heuristic says"][0] != frame["ML says"][0]


def test_matrix_leaves_out_rows_without_label_or_score() -> None:
    """Rows are labels, columns verdicts; unlabelled and failed rows count nowhere."""
    view = view_of(Mode.ML, [0, 1, 1, -1, 0], [0.9, 0.9, 0.1, 0.9, np.nan])
    assert matrix_of(view).tolist() == [[0, 1], [1, 1]]


def test_tables_hold_one_line_for_each_mode() -> None:
    """Latency has a line for misses and one for hits; derived times say so."""
    views = {mode: view_of(mode, LABELS, RIGHT) for mode in Mode}
    evaluations = {mode: evaluation_of(view) for mode, view in views.items()}
    latency = latency_frame(evaluations)
    assert len(latency) == 8
    derived = latency[latency["How"] == "summed from its parts"]["Mode"].tolist()
    assert derived == ["Hybrid", "Both"]
    assert cache_frame(evaluations)["Misses"].tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("labels", [LABELS, [0] * 200, [-1] * 200])
def test_figures_are_drawn_for_any_labels(labels: list[int]) -> None:
    """Charts of one class, or none, are drawn as far as they mean something."""
    views = {mode: view_of(mode, labels, RIGHT) for mode in (Mode.HEURISTIC, Mode.ML)}
    evaluations = {mode: evaluation_of(view) for mode, view in views.items()}
    names = metric_names(views[Mode.ML])
    assert charts.score_histogram(views[Mode.ML]).data
    assert charts.latency_bars(evaluations).data
    forest = charts.metric_forest(evaluations, names)
    assert len(forest.data) == 2
    if labels is LABELS:
        roc = charts.roc_curves(views, dict.fromkeys(views, 0.5))
        assert [trace.name for trace in roc.data if trace.showlegend is None] == [
            "Heuristic (0.500)",
            "ML (0.500)",
        ]
        assert charts.pr_curves(views, dict.fromkeys(views)).data
        assert len(charts.threshold_curves(views[Mode.ML], 0.4).layout.shapes) == 2


def test_confusion_heatmap_writes_counts_and_row_shares() -> None:
    """Each cell has its count and its share of the row; an empty row has shares of 0."""
    figure = charts.confusion_heatmap([[3, 1], [0, 0]], NAMES)
    assert figure.data[0].text[0][0] == "3<br>75.0%"
    assert figure.data[0].text[1][1] == "0<br>0.0%"


def test_every_mode_has_a_colour_of_its_own() -> None:
    """No two modes share a colour, a dash or a marker."""
    assert len({charts.PALETTE[mode.value] for mode in Mode}) == 4
    assert len(set(charts._DASHES.values())) == len(set(charts._MARKERS.values())) == 4
