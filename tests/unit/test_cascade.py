"""What ends a text in a cascade, and which cascades a policy may hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield_engine.decision import Stage, stage_risk
from shield_engine.errors import ConfigError
from shield_engine.policy import Policy, policy_differences, read_policies, write_policies
from shield_engine.types import Mode, Task, Variant

SHARES = st.floats(0, 1)
STAGES = (
    Stage("rules", version="r1", stop_at=0.9),
    Stage("linear", version="l1", pass_at=0.02),
    Stage("model", "tiny", Variant.INT8, sha256="ab" * 32, pass_at=0.1, stop_at=0.8),
    Stage("guard", "house", version="3", sha256="cd" * 32),
)
POLICY = Policy("front", Task.TOXICITY, Mode.ML, 0.4, cascade=STAGES)
HEAD = "format = 1\n[toxicity]\nname = 'x'\nmode = 'ml'\nthreshold = 0.5\n"


@given(
    risks=st.lists(SHARES, min_size=1),
    bands=st.tuples(SHARES, SHARES),
    threshold=st.floats(0, 1, exclude_min=True),
)
def test_a_stage_ends_a_text_on_its_own_side_of_the_threshold(
    risks: list[float], bands: tuple[float, float], threshold: float
) -> None:
    """Whatever the threshold of the last stage, flagged is flagged and passed is passed, in bulk too."""
    stage = Stage("rules", pass_at=min(bands), stop_at=max(bands))
    ended = stage_risk(stage, np.array(risks), threshold)
    for risk, end in zip(risks, ended, strict=True):
        if risk >= max(bands):
            assert threshold <= end <= 1
        elif risk <= min(bands):
            assert 0 <= end < threshold
        else:
            assert np.isnan(end)
        np.testing.assert_equal(float(stage_risk(stage, risk, threshold)), end)


def test_a_cascade_survives_its_file(tmp_path: Path) -> None:
    """Stages come back as they went in, are told apart one by one, and name what scores."""
    path = tmp_path / "shield.toml"
    path.write_text(write_policies([POLICY]), encoding="utf-8")
    assert read_policies(path)[Task.TOXICITY] == POLICY
    assert POLICY.scorer == "rules → linear tier → tiny INT8 → house 3"
    other = replace(POLICY, cascade=(*STAGES[:2], replace(STAGES[2], stop_at=0.7), STAGES[3]))
    assert policy_differences(POLICY, other) == [("cascade[3].stop_at", "0.8", "0.7")]
    assert POLICY.scorer_sha256 != other.scorer_sha256
    assert POLICY.scorer_sha256 == replace(POLICY, name="other", version=3).scorer_sha256


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cascade": STAGES[3:]}, "has 2 to 4 stages, got 1"),
        ({"cascade": (*STAGES[:3], *STAGES[2:])}, "has 2 to 4 stages, got 5"),
        ({"cascade": STAGES[:3]}, "the last stage decides at the threshold and has no bands"),
        ({"threshold": 0.0}, "needs a threshold above 0"),
        ({"mode": Mode.HYBRID}, "a cascade is of mode ml"),
        ({"guard": "house"}, "names a model or guard beside it"),
        ({"cascade": (replace(STAGES[2], pass_at=0.9), STAGES[3])}, "pass_at lies below stop_at"),
        ({"cascade": (replace(STAGES[0], stop_at=1.5), STAGES[3])}, "stop_at of policy front"),
        ({"cascade": (STAGES[0], Stage("guard"))}, "a guard needs a name"),
        ({"cascade": (STAGES[0], Stage("model", "tiny"))}, "a model needs a variant"),
    ],
)
def test_a_cascade_that_decides_nothing_is_refused(changes: dict[str, object], said: str) -> None:
    """Each contradiction in a chain has a sentence of its own."""
    with pytest.raises(ConfigError, match=said):
        replace(POLICY, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("[[toxicity.cascade]]\npart = 'oracle'\n", "choose one of rules, linear, model, guard"),
        ("[[toxicity.cascade]]\npart = 'rules'\nstop = 1\n", r"cascade\[0\].stop is not known"),
        ("[[toxicity.cascade]]\npart = 'rules'\nstop_at = 'x'\n", "stop_at is a number"),
        ("[[toxicity.cascade]]\nstop_at = 0.5\n", r"needs cascade\[0\].part"),
    ],
)
def test_a_stage_of_a_file_is_checked(stages: str, said: str, tmp_path: Path) -> None:
    """A stage's fault is said with its place."""
    path = tmp_path / "shield.toml"
    path.write_text(HEAD + stages, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_policies(path)
