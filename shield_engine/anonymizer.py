"""Hides personal data and keys in a prompt, and puts them back into the answer.

What is hidden lies in the vault that both scanners share, so a conversation needs a vault of its
own: a placeholder of another one stands for nothing and stays as it is.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from shield_engine.heuristics import RuleMatcher, bundled_rules
from shield_engine.pipeline import Vault
from shield_engine.types import Entity, ScanResult, Timings

__all__ = ["Anonymize", "Deanonymize"]

_PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_]{0,40}_[0-9]{1,9}\]")


@cache
def _matcher() -> RuleMatcher:
    """Return the compiled rules; every conversation has scanners of its own, and shares these."""
    return RuleMatcher(bundled_rules("personal_data"))


class Anonymize:
    """Replaces what it finds by placeholders such as `[EMAIL_1]`; the text then passes.

    Finds e-mail addresses, phone numbers, payment cards, IBANs, IP addresses, and keys of known
    services. A value has one placeholder in a vault, however often it occurs.
    """

    def __init__(self, vault: Vault, *, name: str = "Anonymize") -> None:
        self.name = name
        self._vault = vault
        self._matcher = _matcher()

    def scan(self, text: str) -> ScanResult:
        """Return the text to pass on, and where in the text as given its values stood."""
        started = time.perf_counter()
        entities = self._entities(text)
        # A placeholder that somebody wrote himself must not come to stand for a hidden value.
        taken = frozenset(_PLACEHOLDER.findall(text)) if entities else frozenset()
        parts, end = [], 0
        for entity in entities:
            parts += [text[end : entity.start], self._vault.hide(entity.type, entity.text, taken)]
            end = entity.end
        result = ScanResult.passed("".join([*parts, text[end:]]), scanner=self.name)
        elapsed = Timings(total_ms=(time.perf_counter() - started) * 1_000)
        return replace(result, entities=tuple(entities), timings=elapsed)

    def _entities(self, text: str) -> list[Entity]:
        """Return what is to be hidden, in order; of overlapping matches the weightiest."""
        # RE2 reads UTF-8, which has no lone surrogates; one character stays one.
        encodable = text.encode("utf-8", "replace").decode()
        matches = []
        for index in self._matcher.matching(encodable):
            rule = self._matcher.rules[index]
            for start, longest in self._matcher.spans(index, encodable, len(text)):
                value = _checked(rule.category, text[start:longest])
                end = start + len(value)
                if value:
                    matches.append(Entity(rule.category, start, end, value, rule.weight, rule.id))
        is_hidden = bytearray(len(text))
        entities = []
        for match in sorted(matches, key=lambda match: (-match.score, match.start)):
            if not any(is_hidden[match.start : match.end]):
                is_hidden[match.start : match.end] = b"\x01" * (match.end - match.start)
                entities.append(match)
        return sorted(entities, key=lambda entity: entity.start)


class Deanonymize:
    """Puts the values that `Anonymize` hid back into an answer."""

    def __init__(self, vault: Vault, *, name: str = "Deanonymize") -> None:
        self.name = name
        self._vault = vault

    def scan(self, text: str) -> ScanResult:
        """Return the answer with the vault's values; placeholders it does not know stay."""
        return ScanResult.passed(_PLACEHOLDER.sub(self._value, text), scanner=self.name)

    def _value(self, match: re.Match[str]) -> str:
        value = self._vault.get(match.group())
        return value if isinstance(value, str) else match.group()


def _is_card(value: str) -> bool:
    """Luhn: every second digit from the right is doubled, and the digit sum ends in 0."""
    digits = [int(letter) for letter in reversed(value) if letter.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return len(digits) >= 13 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_iban(value: str) -> bool:
    """ISO 13616: with the first four behind and letters as 10..35, the remainder by 97 is 1."""
    compact = value.replace(" ", "")
    return (
        len(compact) >= 15
        and int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1
    )


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return any(letter.isdigit() for letter in value)  # `abc::add` is a name in some languages


_CHECKS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {"card": _is_card, "iban": _is_iban, "ip": _is_address}
)


def _checked(category: str, value: str) -> str:
    """Return the longest part, cut at blanks from the right, whose check holds; "" if none."""
    check = _CHECKS.get(category)
    while check is not None and value and not check(value):
        value = value.rpartition(" ")[0]
    return value
