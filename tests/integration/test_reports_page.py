"""The Reports and gates page through Streamlit's own test runner, on stored runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from shield_engine.policy import Policy
from shield_engine.store import Store
from shield_engine.store.library import find_gate, gates, save_gate, save_policy
from shield_engine.types import Mode, Task, Variant
from tests.stored_runs import add_dataset, add_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
GATE = 'format = 1\nname = "page"\n[[require]]\nmetric = "recall"\nat_least = 0.9\n'
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def fresh_caches(home: Path) -> Iterator[None]:
    """Give each test a server of its own: what one opened is closed after it."""
    home.mkdir(parents=True, exist_ok=True)
    yield
    st.cache_data.clear()
    st.cache_resource.clear()


def store_runs(home: Path) -> tuple[str, str]:
    """Store two model runs over the same 60 attacks and 300 harmless rows."""
    with Store.open(home / "shield.duckdb") as store:
        dataset = add_dataset(
            store, [1] * 60 + [0] * 300, texts=[f"{n} {HOSTILE}" for n in range(360)]
        )
        older = add_run(store, dataset, [0.9] * 50 + [0.1] * 310)
        newer = add_run(store, dataset, [0.9] * 60 + [0.1] * 300)
    return older.run_id, newer.run_id


def opened(run_id: str | None = None) -> AppTest:
    """Return the page as it first shows."""
    # A page with a path of its own is known only once the navigation has run.
    test = AppTest.from_file(str(APP), default_timeout=60).run()
    test.switch_page("app_pages/reports_gates.py")
    if run_id is not None:
        test.query_params["run"] = run_id
    return test.run()


def table_of(page: AppTest) -> list[tuple[str, str]]:
    """Return outcome and requirement of each row."""
    frame = next(found.value for found in page.dataframe if "Outcome" in found.value.columns)
    return list(zip(frame["Outcome"], frame["Requirement"], strict=True))


def test_empty_store_says_what_to_do() -> None:
    """Without runs there is a sentence and a way on, not an error."""
    page = opened()
    assert not page.exception
    assert any("Nothing to judge yet" in text.value for text in page.markdown)


def test_gate_is_judged_saved_and_loaded_again(home: Path) -> None:
    """A gate typed in is judged at once, kept by name, and comes back with its comments."""
    _, newer = store_runs(home)
    page = opened(newer)
    assert not page.exception
    assert table_of(page)[0] == ("✔ pass", "recall >= 90%")
    text = f"# because\n{GATE.replace('0.9', '0.99')}"
    page.text_area(key="gate_text").set_value(text).run()
    assert table_of(page) == [("? inconclusive", "recall >= 99%")]
    page.button(key="gate_save").click().run()
    assert not page.exception
    page.text_area(key="gate_text").set_value(GATE).run()
    assert table_of(page) == [("✔ pass", "recall >= 90%")]
    page.selectbox(key="gate_stored").set_value("page").run()
    assert page.text_area(key="gate_text").value == text
    page.button(key="gate_delete").click().run()
    assert not page.exception
    assert page.selectbox(key="gate_stored").options == ["New gate"]


def test_text_that_is_no_gate_is_named_and_reports_stay(home: Path) -> None:
    """A wrong key is an error with its name; reports can still be written."""
    _, newer = store_runs(home)
    page = opened(newer)
    page.text_area(key="gate_text").set_value(GATE.replace("at_least", "at_leest")).run()
    assert not page.exception
    assert any("at\\_leest" in box.value for box in page.error)
    labels = [button.label for button in page.get("download_button")]
    assert {"HTML", "Markdown", "JSON", "Parquet"} <= set(labels)
    assert "JUnit XML" not in labels


def test_baseline_is_asked_for_and_compared(home: Path) -> None:
    """A paired requirement asks for a baseline, then passes or fails by it."""
    older, newer = store_runs(home)
    page = opened(older)
    paired = GATE.replace("at_least = 0.9", 'no_worse_than = "baseline"\nby_more_than = 0.01')
    page.text_area(key="gate_text").set_value(paired).run()
    assert not page.exception
    assert any("choose one above" in box.value for box in page.info)
    page.selectbox(key="gate_baseline").set_value(newer).run()
    assert not page.exception
    assert table_of(page)[0][0] == "✘ fail"
    assert page.selectbox(key="gate_baseline_way").value == "as judged"


def test_stored_policy_may_judge(home: Path) -> None:
    """A policy of the run's model is offered, one of another model is not."""
    _, newer = store_runs(home)
    with Store.open(home / "shield.duckdb") as store:
        for name, sha256 in (("fits", "a" * 64), ("other", "b" * 64)):
            save_policy(
                store,
                Policy(
                    name, Task.PROMPT_INJECTION, Mode.ML, 0.95, model_id="tiny",
                    variant=Variant.INT8, model_sha256=sha256,
                ),
            )  # fmt: skip
    page = opened(newer)
    choice = page.selectbox(key="gate_way")
    assert choice.options == ["ML, balanced threshold", "Policy fits v1"]
    page.text_area(key="gate_text").set_value(GATE).run()
    choice.set_value("Policy fits v1").run()
    assert not page.exception
    assert table_of(page)[0][0] == "✘ fail"


def test_incomplete_and_hostile_runs_are_shown_as_such(home: Path) -> None:
    """Failed rows hold back a pass in words; names of others never become markup."""
    with Store.open(home / "shield.duckdb") as store:
        dataset = add_dataset(store, [1] * 60, name=HOSTILE)
        run = add_run(store, dataset, [0.9] * 59 + [None])
        save_gate(store, HOSTILE, {"toml": GATE.replace("page", HOSTILE)})
    page = opened(run.run_id)
    assert not page.exception
    assert any("1 of 60 rows have no score" in box.value for box in page.warning)
    page.selectbox(key="gate_stored").set_value(HOSTILE).run()
    assert not page.exception
    assert table_of(page)[0][0] == "? inconclusive"
    assert not any("<script>" in text.value for text in page.markdown)


def test_three_classes_and_unlabelled_runs_open(home: Path) -> None:
    """A sentiment run starts from its own metrics; without labels nothing passes but speed."""
    with Store.open(home / "shield.duckdb") as store:
        labels = [0, 1, 2] * 30
        scores = [[0.8 if place == label else 0.1 for place in range(3)] for label in labels]
        tone = add_run(store, add_dataset(store, labels, task=Task.SENTIMENT), scores)
        plain = add_run(store, add_dataset(store, [None] * 60, name="log"), [0.2] * 60)
    page = opened(tone.run_id)
    assert not page.exception
    assert table_of(page)[:2] == [("✔ pass", "accuracy >= 60%"), ("✔ pass", "macro_f1 >= 60%")]
    page.selectbox(key="gate_run").set_value(plain.run_id).run()
    assert not page.exception
    assert [outcome for outcome, _ in table_of(page)] == [
        "? inconclusive", "? inconclusive", "✔ pass",
    ]  # fmt: skip


def test_gates_are_kept_by_name() -> None:
    """A gate of a known name is replaced; documents come back as they went in."""
    with Store.in_memory() as store:
        save_gate(store, "b", {"toml": "1"})
        save_gate(store, "a", {"toml": "2"})
        save_gate(store, "b", {"toml": "3"})
        assert [(gate.name, gate.document) for gate in gates(store)] == [
            ("a", {"toml": "2"}), ("b", {"toml": "3"}),
        ]  # fmt: skip
        assert find_gate(store, "a").document == {"toml": "2"}
