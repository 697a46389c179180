"""`guards.toml`: which guards there are, read, checked and edited.

Every entry is checked before any is used; what is wrong is named with its line and field. Comments
and order of the file stay when an entry is added or taken away.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w

from shield_engine.documents import Shape, read_toml
from shield_engine.errors import ConfigError, UnknownNameError
from shield_engine.guards.entry import GuardEntry, HttpEntry, OnnxEntry, PythonEntry

__all__ = ["add_guard", "find_guard", "presets", "read_guards", "remove_guard"]

_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*guard[ \t]*\]\]", re.MULTILINE)
_KINDS: Mapping[str, type[GuardEntry]] = MappingProxyType(
    {kind.kind: kind for kind in (HttpEntry, PythonEntry, OnnxEntry)}
)
_SHAPES: Mapping[str, Shape[Any]] = MappingProxyType(
    {name: Shape(kind) for name, kind in _KINDS.items()}
)


@cache
def presets() -> Mapping[str, Mapping[str, Any]]:
    """Return the known shapes of services, by name."""
    path = Path(__file__).with_name("presets.toml")
    return MappingProxyType(read_toml(path, "the presets"))


def read_guards(path: Path) -> tuple[GuardEntry, ...]:
    """Return the guards of a file, in its order; none if it is not there.

    Raises:
        ConfigError: An entry cannot be used; the message names file, line, guard and field.
    """
    return _parsed(path, _text(path)) if path.exists() else ()


def find_guard(guards: Sequence[GuardEntry], name: str) -> GuardEntry:
    """Return the guard of that name.

    Raises:
        UnknownNameError: There is none.
    """
    for guard in guards:
        if guard.name == name:
            return guard
    known = ", ".join(guard.name for guard in guards) or "none"
    raise UnknownNameError(f"no guard {name}; there are: {known}")


def add_guard(path: Path, values: Mapping[str, Any], taken: Collection[str] = ()) -> GuardEntry:
    """Write one entry behind those of a file, and return it.

    Args:
        path: The file; made if it is not there.
        values: The entry's fields.
        taken: Names that no guard may have, such as those of models.

    Raises:
        ConfigError: The file or the new entry cannot be used; the file stays as it was.
    """
    if values.get("name") in taken:
        raise ConfigError(f"name {values['name']} is that of a model; choose another")
    before = _text(path) if path.exists() else ""
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    plain = {key: value for key, value in values.items() if key not in tables}
    try:
        entry = "[[guard]]\n" + tomli_w.dumps(plain)
        if tables:
            entry += "\n" + tomli_w.dumps({"guard": tables})
    except TypeError as error:  # of null, which JSON has and TOML lacks
        raise ConfigError(f"{', '.join(tables) or 'a field'}: TOML has no null") from error
    text = f"{before.rstrip()}\n\n{entry}".lstrip()
    guards = _parsed(path, text)
    _write(path, text)
    return guards[-1]


def remove_guard(path: Path, name: str) -> None:
    """Take one entry out of a file; all others stay to the letter.

    Raises:
        UnknownNameError: There is none of that name.
    """
    guards = read_guards(path)
    position = guards.index(find_guard(guards, name))
    text = _text(path)
    starts = [match.start() for match in _HEADER.finditer(text)] + [len(text)]
    text = text[: starts[position]] + text[starts[position + 1] :]
    if _parsed(path, text) != guards[:position] + guards[position + 1 :]:
        raise ConfigError(f"{path}: the entry of {name} cannot be told from its neighbours")
    _write(path, text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _parsed(path: Path, text: str) -> tuple[GuardEntry, ...]:
    document = read_toml(text, str(path))
    entries = document.get("guard", [])
    if set(document) - {"guard"} or not isinstance(entries, list):
        raise ConfigError(f"{path}: holds [[guard]] entries and nothing else")
    lines = [text.count("\n", 0, match.start()) + 1 for match in _HEADER.finditer(text)]
    guards: list[GuardEntry] = []
    for number, values in enumerate(entries):
        line = lines[number] if number < len(lines) else 1
        guard = _entry(values, _Place(path, text, line))
        if any(guard.name == other.name for other in guards):
            raise ConfigError(f"{path}, line {line}: a second guard is called {guard.name}")
        guards.append(guard)
    return tuple(guards)


class _Place:
    """Where an entry stands, for its errors."""

    def __init__(self, path: Path, text: str, line: int) -> None:
        self._path = path
        self._rest = text.split("\n")[line - 1 :]
        self._line = line

    def is_named_in(self, sentence: str) -> bool:
        """Return whether a message says already where the entry stands."""
        return sentence.startswith(str(self._path))

    def error(self, name: object, key: str | None, sentence: str) -> ConfigError:
        """Return the error of a field, at its own line if the entry has it."""
        line = self._line
        for offset, content in enumerate(self._rest[1:], start=1):
            if _HEADER.match(content):
                break
            if key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", content):
                line = self._line + offset
                break
        title = f"guard {name}" if isinstance(name, str) else "a guard"
        return ConfigError(f"{self._path}, line {line}: {title}: {sentence}")


def _entry(values: Mapping[str, Any], place: _Place) -> GuardEntry:
    name = values.get("name")
    known = presets()
    preset = values.get("preset")
    if preset is not None and preset not in known:
        raise place.error(name, "preset", f"no preset {preset!r}; there are {', '.join(known)}")
    base = {"kind": "http", **known[preset]} if preset is not None else {}
    fields = {**base, **{key: value for key, value in values.items() if key != "preset"}}
    kind = fields.pop("kind", None)
    if kind not in _SHAPES:
        raise place.error(name, "kind", f"kind {kind!r} is none of {', '.join(_SHAPES)}")
    try:
        entry: GuardEntry = _SHAPES[kind].read(
            fields, lambda key, sentence: place.error(name, key, sentence)
        )
    except ConfigError as error:
        sentence = str(error)
        if place.is_named_in(sentence):
            raise
        # Said by the entry itself, which does not know where it stands.
        raise place.error(name, None, sentence.removeprefix(f"guard {name}: ")) from error
    return entry


def _write(path: Path, text: str) -> None:
    tomllib.loads(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
