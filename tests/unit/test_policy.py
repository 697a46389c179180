"""Policies as values and as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield_engine.config import Bands
from shield_engine.errors import ConfigError, UnknownNameError
from shield_engine.policy import Policy, policy_differences, read_policies, write_policies
from shield_engine.store import Store
from shield_engine.store.library import delete_policy, find_policy, policies, save_policy
from shield_engine.types import Mode, Task, Variant

HYBRID = Policy(
    name="front door",
    task=Task.PROMPT_INJECTION,
    mode=Mode.HYBRID,
    threshold=0.8312345678901234,
    bands=Bands(0.95, 0.001),
    model_id="some-model",
    variant=Variant.INT8,
    model_sha256="ab" * 32,
    rules_version="rules-1",
    note='chosen "by constraint"\nFPR <= 1%',
    evidence={"rows": 385, "figures": {"recall": {"value": 0.9, "low": None}}, "tags": ["a", "b"]},
)
FEELING = Policy(
    name="tone",
    task=Task.SENTIMENT,
    mode=Mode.HEURISTIC,
    threshold=None,
    allowed_labels=("positive",),
)


def test_file_keeps_every_bit(tmp_path: Path) -> None:
    """Two policies come back from a file as they went in; evidence without value is left out."""
    path = tmp_path / "shield.toml"
    path.write_text(write_policies([HYBRID, FEELING]), encoding="utf-8")
    found = read_policies(path)
    figures = {"recall": {"value": 0.9}}
    assert found[Task.PROMPT_INJECTION] == replace(
        HYBRID, evidence={"rows": 385, "figures": figures, "tags": ["a", "b"]}
    )
    assert found[Task.SENTIMENT] == FEELING


@given(threshold=st.floats(0, 1), upper=st.floats(0.5, 1), lower=st.floats(0, 0.49))
def test_numbers_survive_the_file(
    threshold: float, upper: float, lower: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A threshold and bands of any precision are read back bit by bit."""
    path = tmp_path_factory.getbasetemp() / "numbers.toml"
    policy = replace(HYBRID, threshold=threshold, bands=Bands(upper, lower))
    path.write_text(write_policies([policy]), encoding="utf-8")
    found = read_policies(path)[Task.PROMPT_INJECTION]
    assert (found.threshold, found.bands) == (threshold, Bands(upper, lower))


def test_one_policy_a_task() -> None:
    """A file cannot hold two policies for one task."""
    with pytest.raises(ConfigError, match="two are sentiment"):
        write_policies([FEELING, replace(FEELING, name="other")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format = 2\n", "has format 2"),
        ("format = 1\n", "holds no policy"),
        ("format = 1\nprompt = 3\n", "prompt is no table"),
        ("format = 1\n[prompt]\n", "unknown task 'prompt'"),
        ("format = 1\n[sentiment]\nname = 'x'\n", "needs mode"),
        ("format = 1\n[sentiment]\nname = 'x'\nmode = 'fast'\n", "unknown mode 'fast'"),
        (
            "format = 1\n[toxicity]\nname = 'x'\nmode = 'ml'\nthreshold = 0.5\nguard = 3\n",
            "guard is text",
        ),
        (
            "format = 1\n[toxicity]\nname = 'x'\nmode = 'ml'\nthreshold = 0.5\nguard = 'g'\n"
            "model = {id = 'm', variant = 'INT8'}\n",
            "names guard g and a model",
        ),
        (
            "format = 1\n[toxicity]\nname = 'x'\nmode = 'ml'\nthreshold = 0.5\n"
            "guard_version = '1'\n",
            "has a guard_version and names no guard",
        ),
        ("format = 1\n[toxicity]\nname = 'x'\nmode = 'heuristic'\n", "needs a threshold"),
        (
            "format = 1\n[toxicity]\nname = 'x'\nmode = 'ml'\nthreshold = 0.5\n",
            "must name model and variant",
        ),
        (
            "format = 1\n[toxicity]\nname = 'x'\nmode = 'heuristic'\nthreshold = 1.5\n",
            "not between 0 and 1",
        ),
        (
            "format = 1\n[toxicity]\nname = 'x'\nmode = 'heuristic'\nthreshold = true\n",
            "threshold is a number",
        ),
        (
            "format = 1\n[toxicity]\nname = 'x'\nmode = 'heuristic'\nthreshhold = 0.5\n",
            "no threshhold",
        ),
        (
            "format = 1\n[sentiment]\nname = 'x'\nmode = 'heuristic'\nallowed_labels = ['ok']\n",
            "unknown label ok",
        ),
        (
            "format = 1\n[toxicity]\nname = 'x'\ntask = 'sentiment'\nmode = 'heuristic'\n",
            "holds a policy for sentiment",
        ),
        (
            "format = 1\n[toxicity]\nname = 'x'\nmode = 'hybrid'\nthreshold = 0.5\n"
            "bands = {upper = 0.2, lower = 0.3}\nmodel = {id = 'm', variant = 'INT8'}\n",
            "hybrid bands cross",
        ),
        ("format = 1\n[toxicity\n", "is no TOML"),
    ],
)
def test_unfit_file_is_refused_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    """A file that cannot be obeyed names itself and what is wrong."""
    path = tmp_path / "shield.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="policy file") as caught:
        read_policies(path)
    assert said in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere is an error that names it."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        read_policies(tmp_path / "nowhere.toml")


def test_differences_name_what_changed() -> None:
    """Two policies differ in exactly what was changed, evidence included."""
    other = replace(HYBRID, threshold=0.5, evidence={"rows": 400, "tags": ["a", "b"]})
    assert policy_differences(HYBRID, other) == [
        ("threshold", "0.8312345678901234", "0.5"),
        ("evidence.rows", "385", "400"),
        ("evidence.figures.recall.value", "0.9", "-"),
    ]


def test_store_numbers_versions() -> None:
    """Saving a name again makes its next version; older ones stay as they were."""
    with Store.in_memory() as store:
        first = save_policy(store, HYBRID)
        second = save_policy(store, replace(HYBRID, threshold=0.9))
        save_policy(store, FEELING)
        assert (first.version, second.version) == (1, 2)
        assert find_policy(store, "front door") == second_without_nothing(second)
        assert find_policy(store, "front door", 1).threshold == HYBRID.threshold
        assert [policy.title for policy in policies(store)] == [
            "tone v1", "front door v2", "front door v1",
        ]  # fmt: skip
        delete_policy(store, "front door", 1)
        with pytest.raises(UnknownNameError, match="no policy front door v1; stored: front door"):
            find_policy(store, "front door", 1)


def second_without_nothing(policy: Policy) -> Policy:
    """Return a policy as the store gives it back: evidence without missing values."""
    return Policy.from_document(policy.as_document())
