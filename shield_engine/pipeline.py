"""Several scanners over one text or many, and the vault that input and output scans share.

`Anonymize` hides personal data and keys of a prompt in the vault, and `Deanonymize` puts them back
into the answer. A conversation needs a vault of its own: a placeholder of another one stands for
nothing and stays as it is.
"""

from __future__ import annotations

import ipaddress
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, reduce
from types import MappingProxyType
from typing import Any

from shield_engine.errors import ConfigError
from shield_engine.heuristics import RuleMatcher, bundled_rules
from shield_engine.scanners import Scanner
from shield_engine.types import Entity, ScanResult, Timings

__all__ = ["Anonymize", "Deanonymize", "PipelineResult", "ScannerPipeline", "Vault"]

_PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_]{0,40}_[0-9]{1,9}\]")


class Vault:
    """A locked map from placeholder to JSON value, shared by the scans of one conversation.

    Values are copied in and out, so nobody changes a stored value by accident.
    """

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._placeholders: dict[tuple[str, str], str] = {}
        self._numbers: Counter[str] = Counter()
        self._lock = threading.RLock()

    def set(self, key: str, value: Any) -> None:
        """Store a JSON value under `key`.

        Raises:
            ConfigError: `value` is not JSON (NaN is not).
        """
        try:
            encoded = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"vault value of {key!r} is not JSON: {error}") from error
        with self._lock:
            self._values[key] = encoded

    def hide(self, kind: str, value: str, taken: Container[str] = ()) -> str:
        """Return the placeholder of `value`, `[KIND_n]`, and store the value under it if it is new.

        Args:
            kind: What the value is, such as `email`.
            value: What is hidden; the same value has the same placeholder.
            taken: Placeholders that a new value must not get.
        """
        with self._lock:
            key = self._placeholders.get((kind, value), "")
            if self.get(key) != value:
                while not key or key in taken or key in self._values:
                    self._numbers[kind] += 1
                    key = f"[{kind.upper()}_{self._numbers[kind]}]"
                self._placeholders[kind, value] = key
                self.set(key, value)
            return key

    def get(self, key: str, default: Any = None) -> Any:
        """Return a copy of the value under `key`, or `default`."""
        with self._lock:
            encoded = self._values.get(key)
        return default if encoded is None else json.loads(encoded)

    def remove(self, key: str) -> bool:
        """Drop `key`; return whether it was there."""
        with self._lock:
            return self._values.pop(key, None) is not None

    def contains(self, key: str) -> bool:
        """Return whether `key` is stored."""
        with self._lock:
            return key in self._values

    def keys(self) -> tuple[str, ...]:
        """Return the keys, oldest first."""
        with self._lock:
            return tuple(self._values)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._values.clear()
            self._placeholders.clear()  # numbers go on: an old placeholder gets no new value

    __contains__ = contains

    def __len__(self) -> int:
        with self._lock:
            return len(self._values)


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """What all scanners said of one text.

    Attributes:
        text: The text to pass on.
        results: One result per scanner that ran, in the pipeline's order.
        skipped: Names of scanners that a short circuit left out.
        total_ms: Wall time of the whole scan.
    """

    text: str
    results: tuple[ScanResult, ...]
    skipped: tuple[str, ...] = ()
    total_ms: float = 0.0

    @property
    def is_valid(self) -> bool:
        """True if every scanner that ran lets the text pass."""
        return all(result.is_valid for result in self.results)

    @property
    def risk_score(self) -> float:
        """The highest risk."""
        return max((result.risk_score for result in self.results), default=0.0)

    @property
    def combined(self) -> ScanResult:
        """One result: maximum risk, valid only if all are."""
        if not self.results:
            return ScanResult.passed(self.text)
        return reduce(ScanResult.combine, self.results)

    def __iter__(self) -> Iterator[ScanResult]:
        return iter(self.results)


class ScannerPipeline:
    """Runs input scanners over prompts and output scanners over answers.

    Each scanner gets the text the one before it returned. Two instances of one kind may stand
    side by side if their names differ.
    """

    def __init__(
        self,
        scanners: Sequence[Scanner],
        output_scanners: Sequence[Scanner] = (),
        *,
        short_circuit: bool = False,
        vault: Vault | None = None,
        threads: int = 1,
    ) -> None:
        for side in (scanners, output_scanners):
            names = [scanner.name for scanner in side]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ConfigError(
                    f"two scanners are named {', '.join(twice)}; set ScannerConfig.name"
                )
        self.scanners = tuple(scanners)
        self.output_scanners = tuple(output_scanners)
        self.short_circuit = short_circuit
        self.vault = vault if vault is not None else Vault()
        self._threads = threads

    def execute(self, text: str) -> PipelineResult:
        """Scan a prompt."""
        return self._run(self.scanners, text)

    def execute_output(self, text: str) -> PipelineResult:
        """Scan a model's answer, with the vault its prompt was scanned with."""
        return self._run(self.output_scanners, text)

    def execute_batch(self, texts: Sequence[str]) -> list[PipelineResult]:
        """Scan many prompts over the pipeline's threads; results keep the order of `texts`."""
        if self._threads == 1 or len(texts) < 2:
            return [self.execute(text) for text in texts]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(self.execute, texts))

    def _run(self, scanners: Sequence[Scanner], text: str) -> PipelineResult:
        started = time.perf_counter()
        results: list[ScanResult] = []
        for position, scanner in enumerate(scanners):
            result = scanner.scan(text)
            text = result.text
            results.append(result)
            if self.short_circuit and not result.is_valid:
                skipped = tuple(later.name for later in scanners[position + 1 :])
                break
        else:
            skipped = ()
        return PipelineResult(
            text=text,
            results=tuple(results),
            skipped=skipped,
            total_ms=(time.perf_counter() - started) * 1_000,
        )


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
