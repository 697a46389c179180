r"""Rules as data: what a rule is, how a file of them is read and checked, and which match a text.

A rule file is TOML (or JSON of the same shape): an optional table `fragments`, whose values stand
wherever a pattern says `${name}`, and a list `rules`. Patterns follow RE2, ignore case unless
`case_sensitive` is true, and see ASCII classes only (`\w`, `\b`); `^` and `$` are those of a line.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import re2

from shield_engine.documents import Shape
from shield_engine.errors import ConfigError
from shield_engine.heuristics.normalizer import Normalizer
from shield_engine.types import Task

__all__ = ["Rule", "bundled_rules", "compile_pattern", "load_rules"]

_FRAGMENT = re.compile(r"\$\{([a-z0-9_]+)\}")
_NAME = re.compile(r"[a-z][a-z0-9_.-]*\Z")
# RE2 and `re` disagree about these, or only one of them knows them.
_NOT_PORTABLE = re.compile(r"\\[zZCpPQEaGKRX]|\[\[:")


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern and what a match is worth.

    Attributes:
        id: Unique name within a task, `lower-case-with-dashes`.
        category: What kind of risk it shows (`instruction_override`, `threat`).
        pattern: RE2 expression with all fragments filled in.
        weight: Score of a text in which this rule alone matches, 0 < weight <= 1. From .6 on a
            rule flags by itself; from .9 on it ends a hybrid scan.
        description: One sentence for the reader of a result.
        example: A text in which the rule must match.
        counter_example: A text that looks alike and in which it must not.
        case_sensitive: True where the case carries the meaning (`DAN`).

    Raises:
        ConfigError: A field cannot be used; the message names the rule and the field.
    """

    id: str
    category: str
    pattern: str
    weight: float
    description: str
    example: str
    counter_example: str
    case_sensitive: bool = False

    def __post_init__(self) -> None:
        for name in ("id", "category"):
            if not _NAME.match(getattr(self, name)):
                raise ConfigError(
                    f"rule {self.id!r}: {name} {getattr(self, name)!r} is not a name; use lower-case "
                    "letters, digits, '-', '_' and '.', starting with a letter"
                )
        if not 0 < self.weight <= 1:
            raise ConfigError(
                f"rule {self.id!r}: weight {self.weight} is outside 0..1; use above 0, at most 1"
            )
        odd = _NOT_PORTABLE.search(self.pattern)
        if odd:
            raise ConfigError(
                f"rule {self.id!r}: pattern uses {odd.group()!r}, which is not the same everywhere; "
                "use plain character classes, and '^' or '$' for the bounds of a line"
            )
        if compile_pattern(self).match("") is not None:
            raise ConfigError(
                f"rule {self.id!r}: pattern matches the empty text and so every text; "
                "make at least one character of it required"
            )


def compile_pattern(rule: Rule) -> Any:
    """Return the rule's pattern as a compiled RE2 expression.

    Raises:
        ConfigError: RE2 does not accept it.
    """
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = rule.case_sensitive
    try:
        # Compiled on its own, past re2's cache of 128: a rule set is larger than that.
        return re2.compile(f"(?m){rule.pattern}", options)
    except re2.error as error:
        detail = error.args[0]
        reason = detail.decode(errors="replace") if isinstance(detail, bytes) else detail
        raise ConfigError(
            f"rule {rule.id!r}: pattern is not a valid RE2 expression ({reason}); "
            "look-around and back-references are not available"
        ) from error


def load_rules(path: Path | None, task: Task) -> tuple[Rule, ...]:
    """Return the bundled rules of a task, or those of a user's own file.

    A user's file is checked whole before any of it is used: every example must match its rule and
    no counter-example may, after normalisation, as in a scan.

    Raises:
        ConfigError: The file cannot be read or an entry cannot be used; names file and entry.
    """
    if path is None:  # sentiment is scored from a lexicon, not from rules
        return () if task is Task.SENTIMENT else bundled_rules(task.value)
    return _checked(_parse(_read(path), path.suffix, str(path)), str(path))


@lru_cache(maxsize=4)
def bundled_rules(name: str) -> tuple[Rule, ...]:
    """Return the rules of a bundled file: a task's name, or `personal_data`."""
    source = resources.files("shield_engine.heuristics") / "rules" / f"{name}.toml"
    return _parse(source.read_text(encoding="utf-8"), ".toml", source.name)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such rule file; check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start} is not UTF-8; save the rule file as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def _parse(text: str, suffix: str, name: str) -> tuple[Rule, ...]:
    if suffix not in {".toml", ".json"}:
        raise ConfigError(
            f"{name}: a rule file ends in .toml or .json, not {suffix or 'nothing'!r}"
        )
    try:
        content = json.loads(text) if suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also more digits than Python reads
        raise ConfigError(f"{name}: not valid {suffix[1:].upper()}: {error}") from error
    entries = content.get("rules") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{name}: has no list 'rules'; add one [[rules]] table for each rule")
    fragments = content.get("fragments", {})
    if not isinstance(fragments, dict):
        raise ConfigError(f"{name}: 'fragments' is not a table of names and patterns")
    rules = tuple(_rule(entry, fragments, number, name) for number, entry in enumerate(entries, 1))
    seen: set[str] = set()
    for number, rule in enumerate(rules, 1):
        if rule.id in seen:
            raise ConfigError(f"{name}: rules entry {number}: id {rule.id!r} is there twice")
        seen.add(rule.id)
    return rules


def _rule(entry: object, fragments: Mapping[str, object], number: int, name: str) -> Rule:
    where = f"{name}: rules entry {number}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: is not a table of fields")
    where += f" ({entry.get('id', 'without id')!s})"
    values = dict(entry)
    try:
        if isinstance(pattern := entry.get("pattern"), str):
            values["pattern"] = _fill(pattern, fragments, ())
        return _RULE.read(values, lambda _, sentence: ConfigError(sentence))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


_RULE = Shape(
    Rule,
    unknown="unknown field {keys}; the fields are {known}",
    missing="missing field {keys}; the fields are {known}",
    wrong="field {key!r} has the value {value!r} of a wrong type",
)


def _fill(pattern: str, fragments: Mapping[str, object], above: tuple[str, ...]) -> str:
    """Return the pattern with each `${name}` replaced by that fragment, as a group."""

    def fragment(match: re.Match[str]) -> str:
        name = match.group(1)
        value = fragments.get(name)
        if not isinstance(value, str):
            raise ConfigError(f"no fragment {name!r}; known are {', '.join(sorted(fragments))}")
        if name in above:
            raise ConfigError(f"fragment {name!r} contains itself")
        return f"(?:{_fill(value, fragments, (*above, name))})"

    return _FRAGMENT.sub(fragment, pattern)


def _checked(rules: Iterable[Rule], name: str) -> tuple[Rule, ...]:
    rules = tuple(rules)
    normalizer = Normalizer()
    for number, rule in enumerate(rules, 1):
        pattern = compile_pattern(rule)
        for field, text, should in (
            ("example", rule.example, True),
            ("counter_example", rule.counter_example, False),
        ):
            views = normalizer.normalize(text).views
            if any(pattern.search(view.text) for view in views) is not should:
                raise ConfigError(
                    f"{name}: rules entry {number} ({rule.id}): the pattern "
                    f"{'does not match its' if should else 'matches its'} {field} {text!r}"
                )
    return rules


_END = b"\x01\x02\x03\x04"


class RuleMatcher:
    """All rules of a part, compiled once; reading only, so threads may share it.

    RE2's filter walks the text once for the literal words that the rules cannot match without; only a
    rule whose words are all there is run, alone. One automaton for the whole of all patterns (RE2's
    set) is faster on a text like the last one, but 136 injection rules make so many states that texts
    which differ keep building new ones: 365 us for a text of 200 characters against 40 here, and 27 s
    against .3 for a megabyte of prose.

    The filter says "no match" when its automaton runs out of memory. A word that no text holds is
    written behind every text for that case: where its rule is missing from the answer, the filter has
    given up, and every rule is tried.
    """

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
