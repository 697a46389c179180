"""The Threshold lab through Streamlit's own test runner, on stored runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from shield_engine.decide.column import ScoreColumn
from shield_engine.decide.figures import evaluate_run
from shield_engine.decide.thresholds import highest_recall
from shield_engine.policy import Policy
from shield_engine.settings import Settings
from shield_engine.store import Store
from shield_engine.store.library import policies
from shield_engine.types import Mode, Task
from tests.stored_runs import add_dataset, add_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
RNG = np.random.default_rng(4)
COUNT = 1_200
LABELS = (RNG.random(COUNT) < 0.3).astype(int)
MODEL = np.where(LABELS == 1, RNG.beta(6, 2, COUNT), RNG.beta(1, 9, COUNT))
RULES = np.round(np.where(RNG.random(COUNT) < 0.6, 0.0, RNG.beta(1, 3, COUNT) + 0.3 * LABELS), 2)
RULES = RULES.clip(0, 1)


@pytest.fixture(autouse=True)
def fresh_caches(home: Path) -> Iterator[None]:
    """Give each test a server of its own: what one opened is closed after it."""
    yield
    st.cache_data.clear()
    st.cache_resource.clear()


def opened() -> AppTest:
    """Return the page as it first shows."""
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.switch_page("app_pages/threshold_lab.py")
    return test.run()


def stored(home: Path) -> Store:
    """Open the store of this test's home."""
    return Store.open(Settings(home).store_path)


@pytest.fixture
def run_id(home: Path) -> str:
    """A stored run of both parts over 1,200 labelled rows with a slice column."""
    with stored(home) as store:
        dataset = add_dataset(
            store,
            LABELS.tolist(),
            slices=[{"language": "en" if row % 3 else "de"} for row in range(COUNT)],
        )
        return add_run(store, dataset, MODEL.tolist(), heuristic=RULES.tolist()).run_id


def metrics_of(page: AppTest) -> dict[str, str]:
    """Return the figures beside the slider."""
    return {metric.label: metric.value for metric in page.metric}


def threshold_of(page: AppTest) -> float:
    """Return the exact threshold in force."""
    found = next(item for item in page.number_input if item.label == "Exactly")
    return float(found.value)


def look_closer(page: AppTest, part: str) -> AppTest:
    """Open one of the parts under the charts."""
    control = next(item for item in page.button_group if item.label == "Look closer")
    return control.set_value(part).run()


def test_empty_store_says_what_to_do() -> None:
    """Without runs there is a sentence and a way on."""
    page = opened()
    assert not page.exception
    assert any("no run to choose a threshold on" in text.value for text in page.markdown)


def test_limit_is_found_used_saved_and_exact(run_id: str, home: Path) -> None:
    """FPR at most 1%: the page's threshold is the engine's; the policy keeps figures to the bit."""
    page = opened()
    assert not page.exception
    page = page.button_group[0].set_value(Mode.ML).run()
    page = page.button(key="lab_use").click().run()
    assert not page.exception
    choice = highest_recall(ScoreColumn.of(LABELS, MODEL), 0.01)
    assert threshold_of(page) == choice.threshold
    assert metrics_of(page)["FPR"] == f"{choice.fp / (LABELS == 0).sum():.1%}"
    page.text_input[0].set_value("front")
    page = next(item for item in page.button if item.label == "Save policy").click().run()
    assert not page.exception
    assert any("Saved front v1" in said.value for said in page.success)
    st.cache_resource.clear()
    with stored(home) as store:
        (policy,) = policies(store)
        figures = evaluate_run(
            store, run_id, modes=[Mode.ML], thresholds={"ml": policy.threshold or 0.0}
        )[Mode.ML]
    assert policy.threshold == choice.threshold
    assert policy.mode is Mode.ML
    assert policy.evidence["figures"]["fpr"]["value"] == figures.metrics["fpr"].value
    assert policy.evidence["figures"]["f1"]["low"] == figures.metrics["f1"].low
    assert "FPR at most 0.01" in policy.evidence["chosen_by"]
    assert policy.rules_version is None
    counts = policy.evidence["counts"]
    assert (counts["tp"], counts["fp"]) == (choice.tp, choice.fp)
    split, optimism = policy.evidence["split"], policy.evidence["optimism"]
    assert split["seed"] == 7
    assert split["choosing_rows"] + split["reporting_rows"] == COUNT
    assert split["gap"] == split["chosen"] - split["reported"]
    assert optimism["resamples"] == 200


def test_exact_figures_are_shown_while_wanted(run_id: str) -> None:
    """A small run shows every figure at once; turned off, they stay off on the next visit."""

    def is_shown(page: AppTest) -> bool:
        return any("All rows at this threshold" in text.value for text in page.caption)

    page = opened()
    assert is_shown(page)
    page = page.toggle(key=f"lab_exact_{run_id}").set_value(False).run()
    assert not is_shown(page)
    page.switch_page("app_pages/runs.py").run()
    page = page.switch_page("app_pages/threshold_lab.py").run()
    assert not is_shown(page)


def test_a_priced_model_orders_the_bands_by_cost(run_id: str) -> None:
    """By cost, the bands table carries costs, the least first, and a call's price counts."""
    page = opened()
    control = next(item for item in page.button_group if item.label == "How to choose")
    page = look_closer(control.set_value("By cost").run(), "Hybrid bands")
    free = band_costs(page)
    assert free == sorted(free)
    page = page.number_input(key="lab_call").set_value(5.0).run()
    assert not page.exception
    dear = band_costs(page)
    assert dear == sorted(dear)
    assert max(dear) > max(free) + 1_000
    assert any("Expected cost" in text.value for text in page.caption)


def band_costs(page: AppTest) -> list[float]:
    """Return the costs of the bands table, in its order."""
    name = "Cost of 1,000 texts"
    costs: list[float] = next(
        table.value[name].tolist() for table in page.dataframe if name in table.value.columns
    )
    return costs


def test_infeasible_limit_is_said_and_not_offered(run_id: str) -> None:
    """A limit that so few rows cannot prove says how many more negatives it needs."""
    page = opened()
    limit = next(item for item in page.number_input if item.label == "Percent")
    page = limit.set_value(0.05).run()
    assert any("more negatives" in warning.value for warning in page.warning)
    assert not [item for item in page.button if item.key == "lab_use"]


def test_slider_and_number_follow_each_other(run_id: str) -> None:
    """Moving one moves the other and the figures; by hand is then how it was chosen."""
    page = opened()
    slider = page.slider[0]
    page = slider.set_value(0.25).run()
    assert threshold_of(page) == 0.25
    exact = next(item for item in page.number_input if item.label == "Exactly")
    page = exact.set_value(0.123456).run()
    assert page.slider[0].value == 0.123456
    assert not page.exception


@pytest.mark.parametrize("way", ["By cost", "By a metric", "By hand"])
def test_other_ways_to_choose(run_id: str, way: str) -> None:
    """Cost and metric offer a threshold, by hand offers none."""
    page = opened()
    control = next(item for item in page.button_group if item.label == "How to choose")
    page = control.set_value(way).run()
    assert not page.exception
    assert bool([item for item in page.button if item.key == "lab_use"]) is (way != "By hand")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("On new rows", "rows to choose on"),
        ("In traffic", "Hours of review"),
        ("Hybrid bands", "Asks the model"),
        ("Slices", "What to make of it"),
        ("Rows near it", "Just flagged"),
    ],
)
def test_every_part_under_the_charts_speaks(run_id: str, part: str, said: str) -> None:
    """Each part shows what it promises, for the first visitor."""
    page = look_closer(opened(), part)
    assert not page.exception
    words = [text.value for text in page.markdown]
    for table in page.dataframe:
        words += [*map(str, table.value.columns), *table.value.astype(str).to_numpy().ravel()]
    assert any(said in word for word in words)


@pytest.mark.parametrize("kind", ["ROC", "PR", "DET"])
def test_each_curve_is_drawn(run_id: str, kind: str) -> None:
    """Each of the three curves opens under its question."""
    page = opened()
    control = next(item for item in page.button_group if item.label == "Curve")
    page = control.set_value(kind).run()
    assert not page.exception
    questions = {"ROC": "false alarm rate buy", "PR": "what is flagged", "DET": "few misses cost"}
    assert any(questions[kind] in heading.value for heading in page.subheader)


def test_bands_of_the_sweep_come_into_force(run_id: str) -> None:
    """Choosing a pair of bands turns the page to hybrid at those bands."""
    page = look_closer(opened(), "Hybrid bands")
    page = page.button(key="lab_use_bands").click().run()
    assert not page.exception
    assert any("Hybrid bands in force" in text.value for text in page.caption)


def test_unlabelled_run_shows_what_is_flagged(home: Path) -> None:
    """Without labels there is a flag rate and no accuracy."""
    with stored(home) as store:
        add_run(store, add_dataset(store, [None] * 20), [n / 20 for n in range(20)])
    page = opened()
    assert not page.exception
    assert metrics_of(page) == {"Flagged at this threshold": "50.0%"}


def test_one_class_is_chosen_by_hand(home: Path) -> None:
    """With harmless rows only there is an FPR and no rule to choose by."""
    with stored(home) as store:
        add_run(store, add_dataset(store, [0] * 20), [n / 20 for n in range(20)])
    page = opened()
    assert not page.exception
    assert metrics_of(page)["FPR"] == "50.0%"
    assert metrics_of(page)["Recall"] == "-"


def test_sentiment_chooses_labels_that_pass(home: Path) -> None:
    """Three classes have no threshold: the page offers labels, and saves them."""
    labels = [0, 1, 2] * 10
    scores = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]] * 10
    with stored(home) as store:
        add_run(store, add_dataset(store, labels, task=Task.SENTIMENT), scores, heuristic=scores)
    page = opened()
    assert not page.exception
    page = page.multiselect[0].set_value(["positive"]).run()
    rates: pd.DataFrame = next(
        table.value for table in page.dataframe if "Figure" in table.value.columns
    )
    assert rates.loc[rates["Figure"] == "Recall", "n"].item() == 20
    page.text_input[0].set_value("tone")
    page = next(item for item in page.button if item.label == "Save policy").click().run()
    st.cache_resource.clear()
    with stored(home) as store:
        (policy,) = policies(store)
    assert policy.threshold is None
    assert policy.allowed_labels == ("positive",)


def test_policies_are_told_apart_exported_and_deleted(run_id: str, home: Path) -> None:
    """Two versions show what differs; deleting one leaves the other."""
    page = opened()
    for value in (0.3, 0.6):
        page = page.slider[0].set_value(value).run()
        page.text_input[0].set_value("front")
        page = next(item for item in page.button if item.label == "Save policy").click().run()
    differences: pd.DataFrame = next(
        table.value for table in page.dataframe if "What" in table.value.columns
    )
    assert differences.iloc[0].tolist()[1:] == ["2", "1"]
    assert "threshold" in differences["What"].tolist()
    page = page.button(key="lab_delete").click().run()
    assert not page.exception
    st.cache_resource.clear()
    with stored(home) as store:
        left: list[Policy] = policies(store)
    assert [policy.title for policy in left] == ["front v1"]


def test_a_cascade_of_stored_guards_is_chosen_and_saved(run_id: str, home: Path) -> None:
    """Two guards over the same rows offer a chain; its bands are judged and kept as a policy."""
    page = opened()
    assert not any("cascade" in item.value for item in page.subheader)
    with stored(home) as store:
        dataset = store.datasets.all()[0]
        costly = np.where(LABELS == 1, 0.95, 0.02) + 0.04 * RNG.random(COUNT)
        add_run(store, dataset, costly.tolist(), ms=50.0, sha256="b" * 64, model_id="costly")
    st.cache_data.clear()
    st.cache_resource.clear()
    page = opened()
    assert any("A cascade of guards" in item.value for item in page.subheader)
    stages = next(item for item in page.multiselect if item.label.startswith("Stages"))
    assert set(stages.options) == {"rules", "tiny INT8", "costly INT8"}
    page = stages.set_value(["tiny INT8", "costly INT8"]).run()
    fpr = next(item for item in page.number_input if item.label == "FPR at most, %")
    page = fpr.set_value(2.0).run()
    assert any("On the rows that did not choose it: recall" in text.value for text in page.success)
    named = [item for item in page.text_input if item.label == "Name"][-1]
    named.set_value("chain")
    button = next(item for item in page.button if item.label == "Save cascade")
    page = button.click().run()
    assert any("Saved chain v1" in text.value for text in page.success)
    st.cache_resource.clear()
    with stored(home) as store:
        (policy,) = policies(store)
    assert [stage.name for stage in policy.cascade] == ["tiny", "costly"]
    assert policy.evidence["judged"]["holds"] is True
    assert policy.evidence["judged"]["mean_ms"] < 51.0
