"""What was typed into a form or a command as the fields of an entry in `guards.toml`. Pure.

Left empty means left out, so an entry has only what its user said. What cannot be read is named by
its field; whether the entry holds together is said by `shield_engine.guards`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from shield_engine.errors import ConfigError

__all__ = ["entry_values"]


def entry_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that were filled in, read from what was typed.

    Raises:
        ConfigError: One cannot be read; the message begins with its name.
    """
    values = {}
    for name, value in given.items():
        filled = value.strip() if isinstance(value, str) else value
        if filled is None or filled == "":
            continue
        read = _READERS.get(name)
        try:
            values[name] = filled if read is None else read(filled)
        except ValueError as error:
            raise ConfigError(f"{name} {error}") from error
    return values


def _table(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError('is a JSON object, such as {"input": "{text}"}')
    return value


def _headers(text: str) -> dict[str, str]:
    """Return headers written one a line; a line that is none is not repeated: it may be a secret."""
    headers = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or not value.strip():
            raise ValueError(f"has on line {number} no NAME: VALUE")
        headers[name.strip()] = value.strip()
    return headers


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _verdicts(text: str) -> list[Any]:
    """Return verdicts as JSON has them: `true` and 1 are no words."""
    return [_verdict(word) for word in _words(text)]


def _verdict(word: str) -> Any:
    try:
        value = json.loads(word)
    except ValueError:
        return word
    return word if value is None else value


def _ends(text: str) -> list[float]:
    try:
        low, high = (float(word) for word in _words(text))
    except ValueError as error:
        raise ValueError(f"is two numbers, such as -1, 1; got {text!r}") from error
    return [low, high]


_READERS: Mapping[str, Callable[[str], Any]] = {
    "body": _table,
    "flagged": _verdicts,
    "headers": _headers,
    "languages": _words,
    "options": _table,
    "range": _ends,
}
