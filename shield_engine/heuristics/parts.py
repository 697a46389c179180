"""The heuristic part of each scanner: a text in, a score with its reasons out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from types import MappingProxyType
from typing import Protocol

from shield_engine.errors import ConfigError, UnknownNameError
from shield_engine.heuristics.normalizer import NORMALIZER_VERSION, Normalized, Normalizer
from shield_engine.heuristics.ruleset import Rule, RuleMatcher, load_rules
from shield_engine.types import RuleHit, Task

__all__ = [
    "HeuristicPart",
    "HeuristicScore",
    "RulePart",
    "Views",
    "combine",
    "select_rules",
]

_NORMALIZER = Normalizer()

_SPANS_PER_RULE = 5  # a reader needs a few places; a text of a megabyte may hold thousands
_SPANS_PER_DISGUISE = 5
_REPEAT_BONUS = 0.3

# What a disguise is worth by itself. Each has honest uses, so none flags alone but text that is
# written to be seen by a machine only.
_DISGUISES = MappingProxyType(
    {
        "base64": (0.15, "A base64 run that decodes to readable text"),
        "bidi_override": (0.25, "A character that reverses the direction of the shown text"),
        "binary": (0.25, "Groups of binary digits that decode to readable text"),
        "escapes": (0.15, "Plain letters written as URL, HTML or code escapes"),
        "hex": (0.2, "Hexadecimal digits that decode to readable text"),
        "hidden_text": (0.65, "Text in tag characters or variation selectors, invisible to people"),
        "invisible_characters": (0.15, "Invisible characters inside a word"),
        "base32": (0.2, "A base32 run that decodes to readable text"),
        "erased": (0.2, "Characters that a backspace takes back"),
        "lookalikes": (0.2, "Letters of another script that look Latin, inside a word"),
        "markup_in_words": (0.15, "Light markup between the letters of words"),
        "respelled": (0.25, "A rule matches only after letters were put back together"),
        "reversed": (0.3, "Words of an instruction written backwards"),
        "rot13": (0.3, "Words of an instruction rotated by 13 letters"),
        "stacked_marks": (0.15, "Letters buried under stacked marks"),
        "symbols_in_words": (0.2, "Emoji or signs between the letters of words"),
        "styled_letters": (0.1, "Letters from mathematical or enclosed alphabets"),
    }
)


@dataclass(frozen=True, slots=True)
class HeuristicScore:
    """What a heuristic part says of one text.

    Attributes:
        score: Risk, 0..1.
        probabilities: One for each of `LABELS[task]`, in that order; they sum to 1.
        hits: Reasons, strongest first.
        normalise_ms: Milliseconds spent on undoing disguises.
        rules_ms: Milliseconds spent on rules or lexicon.
    """

    score: float
    probabilities: tuple[float, ...]
    hits: tuple[RuleHit, ...]
    normalise_ms: float
    rules_ms: float


class Views:
    """The views of a text: worked out when they are first asked for, and once."""

    __slots__ = ("_normalized", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._normalized: Normalized | None = None

    @property
    def normalized(self) -> Normalized:
        """The text with its disguises undone."""
        if self._normalized is None:
            self._normalized = _NORMALIZER.normalize(self._text)
        return self._normalized


class HeuristicPart(Protocol):
    """Scores a text without a model.

    Attributes:
        task: What it looks for.
        version: Hash of everything that decides a score.
    """

    task: Task
    version: str

    def score(self, text: str, views: Views | None = None) -> HeuristicScore:
        """Return the score of any text, however odd; safe to call from several threads.

        `views` are those of `text`, where another part reads them, too.
        """
        ...


def combine(hits: Sequence[RuleHit]) -> float:
    """Return the risk of all hits together.

    Within a category the strongest rule counts, and each further rule closes a small part (its
    weight x .3) of what is left to 1; categories are independent evidence, so their doubts
    multiply: 1 - prod(1 - c). More hits never lower the result; one hit gives its own score.
    """
    by_category: dict[str, dict[str, float]] = {}
    for hit in hits:
        rules = by_category.setdefault(hit.category, {})
        rules[hit.rule_id] = max(hit.score, rules.get(hit.rule_id, 0.0))
    doubt = 1.0
    for category in sorted(by_category):
        first, *others = sorted(by_category[category].values(), reverse=True)
        doubt *= 1 - first
        for weight in others:
            doubt *= 1 - _REPEAT_BONUS * weight
    return round(1 - doubt, 9)


def select_rules(
    task: Task, extra_rules: Sequence[Rule], disabled_rules: Collection[str]
) -> tuple[Rule, ...]:
    """Return the bundled rules of a task with a caller's own added and the disabled left out.

    Raises:
        ConfigError: An own rule has the id of another one.
        UnknownNameError: A disabled id is none of them.
    """
    rules = (*load_rules(None, task), *extra_rules)
    ids: set[str] = set()
    for rule in rules:
        if rule.id in ids:
            raise ConfigError(f"rule {rule.id!r} is there twice for {task}; rename your own rule")
        ids.add(rule.id)
    unknown = sorted(set(disabled_rules) - ids)
    if unknown:
        raise UnknownNameError(
            f"no {task} rule {unknown[0]!r} to disable; known are {', '.join(sorted(ids))}"
        )
    return tuple(rule for rule in rules if rule.id not in disabled_rules)


class RulePart:
    """Heuristic part made of rules over the views of a text."""

    __slots__ = ("_matcher", "task", "version")

    def __init__(self, task: Task, rules: Sequence[Rule]) -> None:
        self.task = task
        self._matcher = RuleMatcher(rules)
        content = {
            "normalizer": NORMALIZER_VERSION,
            "disguises": dict(_DISGUISES),
            "bonus": _REPEAT_BONUS,
            "rules": sorted((asdict(rule) for rule in rules), key=lambda rule: str(rule["id"])),
        }
        encoded = json.dumps(content, sort_keys=True).encode()
        self.version = hashlib.sha256(encoded).hexdigest()[:16]

    def score(self, text: str, views: Views | None = None) -> HeuristicScore:
        """Return risk and matched rules; any text, linear in its length, 0 where nothing is."""
        started = perf_counter()
        normalized = (views or Views(text)).normalized
        normalised = perf_counter()
        hits = self._hits(normalized)
        risk = combine(hits) if hits else 0.0
        ended = perf_counter()
        return HeuristicScore(
            risk,
            (1 - risk, risk),
            hits,
            (normalised - started) * 1000,
            (ended - normalised) * 1000,
        )

    def _hits(self, normalized: Normalized) -> tuple[RuleHit, ...]:
        matched: dict[int, list[RuleHit]] = {}
        disguised: dict[str, list[tuple[int, int]]] = {}
        for view in normalized.views:
            for index in self._matcher.matching(view.text):
                known = matched.setdefault(index, [])
                if len(known) >= _SPANS_PER_RULE:
                    continue
                rule = self._matcher.rules[index]
                for span in self._matcher.spans(index, view.text, _SPANS_PER_RULE):
                    start, end = view.span(*span)
                    if any(hit.start < end and start < hit.end for hit in known):
                        continue
                    if view.kind == "respelled":
                        disguised.setdefault(view.kind, []).append((start, end))
                    hit = RuleHit(rule.id, rule.category, rule.description, rule.weight, start, end)
                    known.append(hit)
        for undone in normalized.undone:
            disguised.setdefault(undone.kind, []).append((undone.start, undone.end))
        hits = [hit for known in matched.values() for hit in known[:_SPANS_PER_RULE]]
        for kind, spans in disguised.items():
            weight, description = _DISGUISES[kind]
            hits += [
                RuleHit(f"disguise.{kind}", "obfuscation", description, weight, *span)
                for span in spans[:_SPANS_PER_DISGUISE]
            ]
        return tuple(sorted(hits, key=lambda hit: (-hit.score, hit.start, hit.end, hit.rule_id)))
