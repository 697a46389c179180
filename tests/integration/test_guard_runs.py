"""Runs over outside guards: stored like any run, nothing asked twice, stopped when it is no use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import stamina

from shield_engine.decide.figures import evaluate_run
from shield_engine.decide.views import mode_view
from shield_engine.engine import Shield
from shield_engine.errors import ConfigError, GuardError
from shield_engine.guards import add_guard
from shield_engine.runs.estimate import estimate
from shield_engine.runs.execution import RunSpec, execute, start
from shield_engine.settings import Settings
from shield_engine.store import RunStatus, Store
from shield_engine.types import Mode, Task
from tests.hostile_api import Api, serving
from tests.stored_runs import add_dataset


def risk_of(text: str) -> float:
    """Return a risk that the text itself decides."""
    return int(text.rsplit(" ", 1)[-1]) % 10 / 10


@pytest.fixture
def shield(settings: Settings) -> Iterator[Shield]:
    """Return an engine of this test's home."""
    engine = Shield.create(settings)
    yield engine
    engine.close()


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """Return an empty store."""
    opened = Store.open(settings.store_path)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _no_backoff() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2, cap=True):
        yield


def declare(settings: Settings, api: Api, **changes: object) -> None:
    """Write the served API into this home's guards.toml."""
    values: dict[str, object] = {
        "name": "house",
        "task": "prompt_injection",
        "kind": "http",
        "url": api.url,
        "body": {"input": "{text}"},
        "score": "score",
        "concurrency": 4,
        "attempts": 2,
        "timeout_s": 5,
        "version": "3",
        "threshold": 0.75,
        "price_per_1000": 2.0,
    }
    add_guard(settings.guards_path, values | changes)


def test_a_guard_takes_the_place_of_the_model(
    settings: Settings, shield: Shield, store: Store
) -> None:
    """A run stores rules and guard; every mode follows from them at the guard's own threshold."""
    dataset = add_dataset(store, [0, 1] * 50)
    with serving(Api(risk_of)) as api:
        declare(settings, api)
        spec = RunSpec(model_id="house")
        expected = estimate(store, shield, dataset.dataset_id, spec)
        run = execute(store, shield, start(store, shield, dataset.dataset_id, spec).run_id)
    assert (expected.calls, expected.price) == (100, 0.2)
    assert (run.status, run.rows_done, run.errors) == (RunStatus.DONE, 100, 0)
    assert run.scorer == "house 3"
    scores = store.runs.scores(run.run_id)
    assert scores.model is not None
    assert np.allclose(scores.model[:, 1], [n % 10 / 10 for n in range(100)])
    thresholds = shield.thresholds(Task.PROMPT_INJECTION, model_id="house")
    figures = evaluate_run(store, run.run_id, thresholds=thresholds)
    assert set(figures) == set(Mode)
    assert figures[Mode.ML].threshold == 0.75
    assert mode_view(scores, Mode.ML, 0.75).predicted.sum() == 20
    assert not any(settings.answers.iterdir())


def test_batches_are_asked_ahead(settings: Settings, shield: Shield, store: Store) -> None:
    """A guard that takes lists is asked with lists, each text once."""
    dataset = add_dataset(store, [0] * 90, texts=[f"text {n % 45}" for n in range(90)])
    with serving(Api(risk_of)) as api:
        declare(settings, api, body={"input": "{texts}"}, score="results[].score", batch=16)
        run = start(store, shield, dataset.dataset_id, RunSpec(model_id="house"))
        assert execute(store, shield, run.run_id).errors == 0
    assert len(api.asked) == 45
    assert max(api.asked.values()) == 1


def test_a_failure_is_a_row_error_and_can_be_asked_again(
    settings: Settings, shield: Shield, store: Store
) -> None:
    """Rows that failed are errors, not scores; retrying asks about those alone."""
    dataset = add_dataset(store, [0, 1] * 30)

    def fault_of(text: str, times: int) -> str | None:
        return "html" if times == 1 and text.endswith("7") else None

    with serving(Api(risk_of, fault_of)) as api:
        declare(settings, api)
        run = start(store, shield, dataset.dataset_id, RunSpec(model_id="house"))
        run = execute(store, shield, run.run_id)
        assert (run.rows_done, run.errors) == (60, 6)
        assert "house: the answer is no JSON" in (store.runs.first_error(run.run_id) or "")
        run = execute(store, shield, run.run_id, retry_errors=True)
    assert run.errors == 0
    assert {text for text, times in api.asked.items() if times == 2} == {
        f"text {n}" for n in range(7, 60, 10)
    }


def test_a_run_stops_early_when_the_guard_answers_nothing(
    settings: Settings, shield: Shield, store: Store
) -> None:
    """Twenty failures without an answer stop the run, say why, and leave it to be resumed."""
    dataset = add_dataset(store, [0, 1] * 300)
    faults = ["401"]
    with serving(Api(risk_of, lambda _text, _times: faults[0] if faults else None)) as api:
        declare(settings, api)
        run = start(store, shield, dataset.dataset_id, RunSpec(model_id="house"))
        with pytest.raises(GuardError, match=r"20 calls failed one after the other.*status 401"):
            execute(store, shield, run.run_id)
        assert sum(api.asked.values()) < 40
        assert store.runs.find(run.run_id).is_resumable
        faults.clear()
        assert execute(store, shield, run.run_id).rows_done == 600


def test_another_question_under_the_same_name_is_refused(
    settings: Settings, shield: Shield, store: Store
) -> None:
    """A run does not go on with a guard whose declaration changed what it answers."""
    dataset = add_dataset(store, [0, 1] * 3)
    with serving(Api(risk_of)) as api:
        declare(settings, api)
        run = start(store, shield, dataset.dataset_id, RunSpec(model_id="house"))
        text = settings.guards_path.read_text()
        time.sleep(0.01)
        settings.guards_path.write_text(text.replace('score = "score"', 'score = "other"'))
        with pytest.raises(ConfigError, match="began with model SHA-256"):
            execute(store, shield, run.run_id)
    assert api.asked == {}


KILLED = """
from contextlib import closing
from shield_engine.engine import Shield
from shield_engine.runs.execution import RunSpec, execute, start
from shield_engine.settings import Settings
from shield_engine.store import Store
settings = Settings.from_env()
shield = Shield.create(settings)
with closing(Store.open(settings.store_path)) as store:
    runs = store.runs.all()
    run = runs[0] if runs else start(
        store, shield, store.datasets.all()[0].dataset_id, RunSpec(model_id="house"))
    run = execute(store, shield, run.run_id)
    print(run.rows_done, run.errors)
"""


def test_nothing_is_asked_again_after_a_kill(settings: Settings) -> None:
    """With faults at random and kill -9 in the middle, no text is asked after it was answered."""
    with closing(Store.open(settings.store_path)) as store:
        add_dataset(store, [0, 1] * 500)

    def fault_of(text: str, times: int) -> str | None:
        number = int(text.rsplit(maxsplit=1)[-1])
        return ("429", "500", "html", "wrong", "cut")[number % 5] if number % 7 == 0 else None

    env = {**os.environ, "SHIELD_HOME": str(settings.home), "SHIELD_WORKERS": "2"}
    with serving(Api(risk_of, fault_of)) as api:
        declare(settings, api, attempts=1)
        for answers in (200, 500):
            worker = subprocess.Popen([sys.executable, "-c", KILLED], env=env)
            deadline = time.monotonic() + 120
            while sum(api.answered.values()) < answers and time.monotonic() < deadline:
                time.sleep(0.005)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        done = subprocess.run(
            [sys.executable, "-c", KILLED], env=env, capture_output=True, text=True, check=True
        )
    failing = len(range(0, 1_000, 7))
    assert done.stdout.split() == ["1000", str(failing)]
    # What was in flight when the process died had been answered, and nobody was there to hear it.
    again = sum(times - 1 for times in api.answered.values())
    assert again <= 2 * 4
    assert not list(Path(settings.answers).glob("*.jsonl"))
