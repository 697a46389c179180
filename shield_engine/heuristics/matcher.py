"""Finds which rules match a text in one pass, and where.

RE2 walks the text once for all patterns together (some microseconds for hundreds of rules); only
a rule that matched is run again, alone, for its spans. RE2's set says "no match" when its automaton
runs out of memory. A pattern that matches every text is in the set for that case: where it is
missing from the answer, the set has given up, and the patterns are tried one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import re2

from shield_engine.heuristics.ruleset import Rule, compile_pattern

__all__ = ["RuleMatcher"]

# 64 MiB is a ceiling, not a cost: states are built as texts need them.
_MAX_SET_BYTES = 64 << 20


class RuleMatcher:
    """All rules of a part, compiled once; reading only, so threads may share it."""

    __slots__ = ("_always", "_patterns", "_set", "rules")

    def __init__(self, rules: Sequence[Rule], *, max_set_bytes: int = _MAX_SET_BYTES) -> None:
        self.rules = tuple(rules)
        self._patterns = tuple(compile_pattern(rule) for rule in self.rules)
        options = re2.Options()
        options.log_errors = False
        options.max_mem = max_set_bytes
        self._set = re2.Set.SearchSet(options)
        for rule in self.rules:
            self._set.Add(f"(?m{'' if rule.case_sensitive else 'i'}:{rule.pattern})")
        self._always = self._set.Add("")
        self._set.Compile()

    def matching(self, text: str) -> list[int]:
        """Return the indices of the rules that match somewhere in `text`, ascending.

        `text` must be free of lone surrogates, as every normalised view is.
        """
        found: list[int] = self._set.Match(text)
        if self._always in found:
            found.remove(self._always)
            return sorted(found)
        return [i for i, pattern in enumerate(self._patterns) if pattern.search(text) is not None]

    def spans(self, index: int, text: str, limit: int) -> list[tuple[int, int]]:
        """Return the first `limit` places where one rule matches, in characters of `text`."""
        return [match.span() for match in islice(self._patterns[index].finditer(text), limit)]
