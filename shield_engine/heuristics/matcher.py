"""Finds which rules match a text, and where.

RE2's filter walks the text once for the literal words that the rules cannot match without; only a
rule whose words are all there is run, alone. One automaton for the whole of all patterns (RE2's
set) is faster on a text like the last one, but 136 injection rules make so many states that texts
which differ keep building new ones: 365 us for a text of 200 characters against 40 here, and 27 s
against .3 for a megabyte of prose.

The filter says "no match" when its automaton runs out of memory. A word that no text holds is
written behind every text for that case: where its rule is missing from the answer, the filter has
given up, and every rule is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import re2

from shield_engine.heuristics.ruleset import Rule, compile_pattern

__all__ = ["RuleMatcher"]

_END = b"\x01\x02\x03\x04"


class RuleMatcher:
    """All rules of a part, compiled once; reading only, so threads may share it."""

    __slots__ = ("_end", "_filter", "_patterns", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._patterns = tuple(compile_pattern(rule) for rule in self.rules)
        self._filter = re2.Filter()
        for rule in self.rules:
            self._filter.Add(f"(?m{'' if rule.case_sensitive else 'i'}:{rule.pattern})")
        self._end = self._filter.Add(_END)
        self._filter.Compile()

    def matching(self, text: str) -> list[int]:
        """Return the indices of the rules that match somewhere in `text`, ascending.

        `text` must be free of lone surrogates, as every normalised view is.
        """
        # Encoded once: from a `str`, RE2 would do so for each rule, and count characters besides.
        data = text.encode()
        candidates = self._filter.Match(data + _END, potential=True)
        if candidates is None or self._end not in candidates:
            candidates = range(len(self.rules))
        return [
            index
            for index in sorted(candidates)
            if index != self._end and self._patterns[index].search(data) is not None
        ]

    def spans(self, index: int, text: str, limit: int) -> list[tuple[int, int]]:
        """Return the first `limit` places where one rule matches, in characters of `text`."""
        haystack = text.encode() if text.isascii() else text  # in ASCII a byte is a character
        return [match.span() for match in islice(self._patterns[index].finditer(haystack), limit)]
