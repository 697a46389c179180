"""Scores without a model: rules over a normalised text, or a lexicon.

Hides normalisation, matching and rule files; a caller sees one `score` per task.
"""

from collections.abc import Collection, Sequence

from shield_engine.errors import ConfigError
from shield_engine.heuristics.lexicon import LexiconPart
from shield_engine.heuristics.linear import LinearTier, linear_tier
from shield_engine.heuristics.normalizer import (
    NORMALIZER_VERSION,
    Normalized,
    Normalizer,
    normalize,
)
from shield_engine.heuristics.parts import (
    HeuristicPart,
    HeuristicScore,
    RulePart,
    Views,
    select_rules,
)
from shield_engine.heuristics.ruleset import Rule, RuleMatcher, bundled_rules, load_rules
from shield_engine.types import Task

__all__ = [
    "NORMALIZER_VERSION",
    "HeuristicPart",
    "HeuristicScore",
    "LinearTier",
    "Normalized",
    "Normalizer",
    "Rule",
    "RuleMatcher",
    "Views",
    "bundled_rules",
    "heuristic_for",
    "linear_tier",
    "load_rules",
    "normalize",
]


def heuristic_for(
    task: Task, *, extra_rules: Sequence[Rule] = (), disabled_rules: Collection[str] = ()
) -> HeuristicPart:
    """Return the ready heuristic part of a task.

    Raises:
        ConfigError: An own rule repeats an id, or sentiment, which has no rules, was given some.
        UnknownNameError: A disabled id is no rule.
    """
    if task is Task.SENTIMENT:
        if extra_rules or disabled_rules:
            raise ConfigError("sentiment has a lexicon, not rules: none can be added or disabled")
        return LexiconPart()
    return RulePart(task, select_rules(task, extra_rules, disabled_rules))
