"""Laws of the heuristic parts, over texts of any kind."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from shield_engine.heuristics import heuristic_for, load_rules, normalize
from shield_engine.heuristics.ruleset import RuleMatcher
from shield_engine.types import Task

PARTS = [heuristic_for(task) for task in Task]
RULES = {task: load_rules(None, task) for task in (Task.PROMPT_INJECTION, Task.TOXICITY)}
MATCHERS = {task: RuleMatcher(rules) for task, rules in RULES.items()}
ORACLES = {
    task: [
        re.compile(
            rule.pattern, re.ASCII | re.MULTILINE | (0 if rule.case_sensitive else re.IGNORECASE)
        )
        for rule in rules
    ]
    for task, rules in RULES.items()
}

_A_FILE = 40
_BROKEN = ("\ud800", "\x00", "\u202e", "\u200b", "%E0%A4", "\ufffd\u0301")

pieces = st.one_of(
    st.sampled_from([rule.example for rules in RULES.values() for rule in rules]),
    st.sampled_from(
        ["\u200b", "\u202e", "\x00", "\n", " ", "%41", "&#65;", "QWxs", "0x41", "👩‍👧"]
    ),
    st.text(max_size=20),
    st.text(alphabet=st.characters(codec=None, categories=("Cs", "Ll", "Lo")), max_size=8),
)
texts = st.lists(pieces, max_size=6).map("".join)


@settings(max_examples=150, deadline=None)
@given(texts)
def test_any_text_has_a_score_with_spans_inside_it(text: str) -> None:
    """No text raises; scores lie in 0..1, probabilities sum to 1, spans lie in the text."""
    for part in PARTS:
        result = part.score(text)
        assert 0 <= result.score <= 1
        assert abs(sum(result.probabilities) - 1) < 1e-9
        for hit in result.hits:
            assert 0 <= hit.start < hit.end <= len(text)
        assert part.score(text).hits == result.hits


@settings(max_examples=150, deadline=None)
@given(texts)
def test_matcher_agrees_with_pythons_re(text: str) -> None:
    """For every normalised view, the filtering matcher and `re` name the same rules."""
    _compare(text)


def test_matcher_agrees_with_pythons_re_on_public_texts(shared_data: Path) -> None:
    """The same on a sample of every public file, whole and with pieces of other texts inside."""
    draw = random.Random(11)
    for path in sorted(shared_data.glob("*/**/*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts = [json.loads(line)["text"][:5_000] for line in lines]
        for text in draw.sample(texts, min(_A_FILE, len(texts))):
            _compare(text)
            place = draw.randrange(len(text) + 1)
            _compare(text[:place] + draw.choice(_BROKEN) + text[place:])


def _compare(text: str) -> None:
    for view in normalize(text).views:
        for task, matcher in MATCHERS.items():
            expected = [i for i, oracle in enumerate(ORACLES[task]) if oracle.search(view.text)]
            assert matcher.matching(view.text) == expected
