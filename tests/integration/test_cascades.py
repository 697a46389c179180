"""Cascades: chosen on stored scores, saved, and executed as they were judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shield_engine.decide.candidates import of_policy
from shield_engine.decide.cascades import (
    Aim,
    Cascade,
    CascadeChoice,
    Chain,
    cascade_figures,
    cascade_policy,
    chain_of,
    choose_cascade,
    sources_of,
)
from shield_engine.engine import Shield
from shield_engine.errors import ConfigError
from shield_engine.evaluate import EvaluationSpec, SuiteItem, evaluate_file
from shield_engine.guards import add_guard
from shield_engine.policy import read_policies, write_policies
from shield_engine.runs.execution import RunSpec, execute, start
from shield_engine.settings import Settings, bundled
from shield_engine.store import Store
from shield_engine.types import Mode, Task
from tests.hostile_api import Api, serving

ITEM = SuiteItem(
    "sample", bundled("datasets", "prompt_injection_sample.jsonl"), Task.PROMPT_INJECTION
)


def risk_of(text: str) -> float:
    """Return a risk that the text itself decides."""
    return sum(text.encode()) % 997 / 996


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    """Serve a guard and declare it."""
    with serving(Api(risk_of)) as served:
        declared = {
            "name": "house",
            "task": "prompt_injection",
            "kind": "http",
            "url": served.url,
            "body": {"input": "{text}"},
            "score": "score",
            "version": "3",
            "concurrency": 4,
            "price_per_1000": 2.0,
        }
        add_guard(settings.guards_path, declared)
        yield served


@pytest.fixture
def shield(settings: Settings) -> Iterator[Shield]:
    """Return an engine of this test's home."""
    engine = Shield.create(settings)
    yield engine
    engine.close()


def scored_chain(store: Store, shield: Shield) -> Chain:
    """Score the sample with the bundled parts and the guard; chain all four."""
    first = evaluate_file(store, shield, ITEM, EvaluationSpec()).run_id
    run = store.runs.find(first or "")
    guarded = start(store, shield, run.dataset_id, RunSpec(model_id="house"))
    other = execute(store, shield, guarded.run_id)
    return chain_of(store, [*sources_of(run), sources_of(other)[-1]])


def banded(chain: Chain, *bands: tuple[float | None, float | None], threshold: float) -> Cascade:
    """Return the chain's stages with these bands."""
    stages = [source.stage for source in chain.sources]
    ends = [*bands, (None, None)]
    return Cascade(
        tuple(
            replace(stage, pass_at=low, stop_at=high)
            for stage, (low, high) in zip(stages, ends, strict=True)
        ),
        threshold,
    )


def test_a_cascade_is_executed_as_its_stored_scores_say(
    settings: Settings, shield: Shield, api: Api, tmp_path: Path
) -> None:
    """Row by row, an evaluation and single scans give the stored verdicts, and ask no one more."""
    path = tmp_path / "shield.toml"
    with closing(Store.open(settings.store_path)) as store:
        chain = scored_chain(store, shield)
        assert [source.stage.title for source in chain.sources] == [
            "rules",
            "linear tier",
            "injection-minilm-l6 INT8",
            "house 3",
        ]
        cascade = banded(chain, (None, 0.9), (0.02, None), (0.1, 0.9), threshold=0.5)
        risk, asked = cascade.risk(chain.risks)
        figures = cascade_figures(chain, cascade)
        assert all(0 < share < 1 for share in figures.reached[1:])
        assert figures.price_per_1000 == 2.0 * asked[-1].mean()
        choice = CascadeChoice(cascade, figures, figures, True, "", ())
        policy = cascade_policy(chain, choice, Aim(), "front")
        path.write_text(write_policies([policy]), encoding="utf-8")
        read = read_policies(path)
        assert read[policy.task].cascade == policy.cascade
        api.asked.clear()
        judged = evaluate_file(store, shield, ITEM, EvaluationSpec(policies=read))
        assert judged.error is None
        run = store.runs.find(judged.run_id or "")
        model = store.runs.scores(run.run_id).model
        assert model is not None
        assert np.array_equal(model[:, 1], risk)
        assert (judged.modes[Mode.ML].metrics["recall"].value, run.scorer) == (
            figures.recall,
            "front",
        )
        texts = [text for _, text, _ in store.datasets.texts(run.dataset_id, 0, run.rows)]
        needed = {text for text, is_asked in zip(texts, asked[-1], strict=True) if is_asked}
        assert set(api.asked) == needed
        assert of_policy(policy, run).threshold == 0.5
        with pytest.raises(ConfigError, match="was scored by model injection-minilm"):
            of_policy(policy, store.runs.find(chain.sources[0].run_id))
    obeying = Shield.from_policy(path, settings)
    flagged = [not obeying.scan(text).is_valid for text in texts]
    obeying.close()
    assert flagged == (risk >= 0.5).tolist()


def test_a_stage_that_fails_or_changed_is_an_error(
    settings: Settings, shield: Shield, api: Api
) -> None:
    """A failing stage is the row's error, and another declaration of a stage is refused."""
    with closing(Store.open(settings.store_path)) as store:
        chain = scored_chain(store, shield)
        cascade = banded(chain, (None, None), (None, None), (None, None), threshold=0.5)
        figures = cascade_figures(chain, cascade)
        choice = CascadeChoice(cascade, figures, figures, True, "", ())
        policy = cascade_policy(chain, choice, Aim(), "front")
        shield.check_policy(policy)
        failing = replace(policy, name="other")
        api.fault_of = lambda _text, _times: "401"
        judged = evaluate_file(
            store,
            shield,
            replace(ITEM, file=_short(settings.home)),
            EvaluationSpec(policies={policy.task: failing}),
        )
        assert (judged.modes[Mode.ML].n, judged.modes[Mode.ML].errors) == (0, 3)
    changed = replace(policy.cascade[-1], sha256="a" * 64)
    with pytest.raises(ConfigError, match="was made for house 3 with aaaaaaaaaaaa"):
        shield.check_policy(replace(policy, cascade=(*policy.cascade[:-1], changed)))
    with pytest.raises(ConfigError, match="has the name of a guard or model"):
        shield.check_policy(replace(policy, name="house"))


def _short(folder: Path) -> Path:
    path = folder / "short.csv"
    path.write_text("text,label\none,0\ntwo,1\nthree,0\n", encoding="utf-8")
    return path


def test_the_cheapest_cascade_that_proves_the_aim_is_chosen(
    settings: Settings, shield: Shield, api: Api
) -> None:
    """It asks the priced guard for few texts, keeps the aim where chosen, and is judged elsewhere."""
    with closing(Store.open(settings.store_path)) as store:
        chain = scored_chain(store, shield)
    # A perfect but dear last guard: the stages before it can only save money.
    perfect = replace(
        chain, risks=np.vstack((chain.risks[:-1], np.where(chain.labels == 1, 0.9, 0.1)))
    )
    aim = Aim(recall=0.8, fpr=0.05, cost="price")
    choice = choose_cascade(perfect, aim)
    assert choice.cascade is not None
    assert choice.chosen is not None
    assert choice.judged is not None
    assert aim.is_met(choice.chosen)
    assert choice.holds == aim.is_met(choice.judged)
    assert choice.chosen.price_per_1000 < 1.0
    recalls = [figures.recall for _, figures in choice.frontier]
    assert len(recalls) > 1
    impossible = choose_cascade(perfect, Aim(recall=1.0, fpr=0.0))
    assert impossible.cascade is None
    assert "no cascade of these stages proves" in impossible.problem
