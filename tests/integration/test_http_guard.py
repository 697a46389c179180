"""A guard behind HTTP gives each text a score or an error, from a server that fails on purpose."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
import stamina

from shield_engine.errors import ConfigError
from shield_engine.guards.entry import HttpEntry
from shield_engine.guards.http import HttpGuard
from shield_engine.types import Task
from tests.hostile_api import Api, serving

ENTRY = HttpEntry(
    name="house",
    task=Task.PROMPT_INJECTION,
    url="",
    body={"input": "{text}", "nested": [{"model": "m"}]},
    score="score",
    timeout_s=0.2,
    concurrency=4,
    attempts=3,
)


def entry_of(api: Api, **changes: object) -> HttpEntry:
    """Return the entry of a served API."""
    return replace(ENTRY, url=api.url, **changes)


def risk_of(text: str) -> float:
    """Return a risk that the text itself decides."""
    return len(text) % 10 / 10


@pytest.fixture(autouse=True)
def _no_backoff() -> object:
    """Retry at once; the number of tries stays the entry's."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


def test_a_text_gets_the_risk_at_its_path() -> None:
    """The risk at the JMESPath becomes the two probabilities, whatever the text holds."""
    texts = ["", "plain", "\ud800 lone", "emoji 🙂", '{"quoted": "{text}"}']
    with serving(Api(risk_of)) as api, closing(HttpGuard(entry_of(api))) as guard:
        for text in texts:
            (reply,) = guard.ask([text])
            assert reply.error is None
            assert reply.probabilities == (1 - risk_of(text), risk_of(text))
    assert sorted(api.answered) == sorted(texts)


def test_a_batch_is_one_call() -> None:
    """`{texts}` sends a list, and the path gives a list of risks back."""
    with serving(Api(risk_of)) as api:
        entry = entry_of(api, body={"input": "{texts}"}, score="results[].score", batch=8)
        with closing(HttpGuard(entry)) as guard:
            replies = guard.ask(["a", "bb", "ccc"])
    assert [reply.probabilities for reply in replies] == [(0.9, 0.1), (0.8, 0.2), (0.7, 0.3)]
    assert sum(api.answered.values()) == 3


@pytest.mark.parametrize(
    ("fault", "tries", "reason"),
    [
        ("500", 3, "status 500"),
        ("401", 1, "status 401"),
        ("html", 1, "the answer is no JSON"),
        ("wrong", 1, "the answer has nothing at score"),
        ("range", 1, "the score 1.7 at score is not in 0..1"),
        ("nan", 1, "the score nan at score is not in 0..1"),
        ("text", 1, "what stands at score is str, not a number"),
        ("redirect", 1, "status 302: redirects are not followed"),
        ("stall", 3, "no answer within 0.2 s"),
        ("cut", 3, "the call failed: RemoteProtocolError"),
        ("429", 3, "status 429"),
    ],
)
def test_a_fault_is_a_row_error(fault: str, tries: int, reason: str) -> None:
    """Each way of failing gives an error with its reason and no score; only passing ones repeat."""
    with (
        serving(Api(risk_of, lambda _text, _times: fault)) as api,
        closing(HttpGuard(entry_of(api))) as guard,
    ):
        (reply,) = guard.ask(["secret words"])
    assert reply.probabilities is None
    assert reply.error is not None
    assert reply.error.startswith(reason)
    assert "secret words" not in reply.error
    assert api.asked["secret words"] == tries


def test_thousands_of_rows_with_random_faults_are_each_a_score_or_an_error() -> None:
    """Of 1,000 texts with random faults each is scored right or is an error, none asked again."""
    faults = ["500", "401", "html", "wrong", "range", "429", "cut", *[None] * 12]
    draw = random.Random(7)
    plan = {f"text {n}": [draw.choice(faults) for _ in range(3)] for n in range(1_000)}

    def fault_of(text: str, times: int) -> str | None:
        return plan[text][min(times, 3) - 1]

    with (
        serving(Api(risk_of, fault_of)) as api,
        closing(HttpGuard(entry_of(api, timeout_s=30))) as guard,
        ThreadPoolExecutor(8) as pool,
    ):
        replies = dict(zip(plan, pool.map(lambda text: guard.ask([text])[0], plan), strict=True))
    for text, reply in replies.items():
        assert (reply.probabilities is None) == (reply.error is not None)
        if reply.probabilities is not None:
            assert reply.probabilities[1] == risk_of(text)
    assert set(api.answered) == {text for text, reply in replies.items() if reply.probabilities}
    assert max(api.answered.values()) == 1
    assert api.most_at_once <= ENTRY.concurrency


def test_a_secret_is_read_when_it_is_sent_and_stands_nowhere_else() -> None:
    """`env:NAME` is replaced in the request only; without the variable the guard is refused."""
    headers = {"Authorization": "Bearer env:HOUSE_KEY"}
    with serving(Api(risk_of)) as api:
        entry = entry_of(api, headers=headers)
        with closing(HttpGuard(entry, env={"HOUSE_KEY": "s3cret"})) as guard:
            guard.ask(["text"])
        assert api.headers["Authorization"] == "Bearer s3cret"
        assert "s3cret" not in repr(entry)
        with pytest.raises(ConfigError, match=r"header Authorization .* HOUSE_KEY is not set"):
            HttpGuard(entry, env={})


def test_a_secret_does_not_leave_without_tls() -> None:
    """Plain http to another machine is refused if a header holds a secret."""
    entry = replace(ENTRY, url="http://10.0.0.5/guard", headers={"Authorization": "env:KEY"})
    with pytest.raises(ConfigError, match=r"10\.0\.0\.5 is asked by plain http"):
        HttpGuard(entry, env={"KEY": "s3cret"})


def test_offline_asks_this_machine_only() -> None:
    """With the offline switch another machine is refused before any call."""
    entry = replace(ENTRY, url="https://api.example.com/guard")
    with pytest.raises(ConfigError, match=r"offline is on, api\.example\.com is not asked"):
        HttpGuard(entry, offline=True)


def test_an_unknown_path_is_named() -> None:
    """An expression that is no JMESPath is refused with its place."""
    with pytest.raises(ConfigError, match=r"guard house: 'results\[' is no JMESPath"):
        HttpGuard(replace(ENTRY, url="http://127.0.0.1:1/", score="results["))
