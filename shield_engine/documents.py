"""Documents that people write (registry, policy, gate, suite, rules) against the classes they fill.

pydantic reads the annotations of a plain dataclass, strictly; the first thing that is wrong becomes
one sentence in this project's words. Hides pydantic, which is loaded with the first document.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shield_engine.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema, ErrorDetails

__all__ = ["Check", "Constraint", "OneOf", "Shape", "read_toml"]

_T = TypeVar("_T", bound="DataclassInstance")

_WANTED: Mapping[str, str] = MappingProxyType(
    {
        "string": "text",
        "float": "a number",
        "int": "a whole number",
        "bool": "true or false",
        "tuple": "a list",
        "dict": "a table",
        "dataclass": "a table",
    }
)
"""What a field of each of pydantic's types holds."""

_CONSTRAINT = "unmet_constraint"
_MOST_LEVELS = 100


@dataclass(frozen=True, slots=True)
class Constraint:
    """Annotates a field: whatever is wrong with it, its type included, has this one sentence.

    Not for a dataclass whose own errors must be seen: they are replaced, too.

    Attributes:
        sentence: Goes on after the field's name; may quote the `{value!r}`.
        is_met: What must be true of a value of the right type.
    """

    sentence: str
    is_met: Callable[[Any], object] = lambda _: True

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the field's own schema, all of whose errors are this one."""
        from pydantic_core import core_schema

        return core_schema.custom_error_schema(
            core_schema.no_info_after_validator_function(self._met, handler(kind)),
            custom_error_type=_CONSTRAINT,
            custom_error_message=self.sentence,
        )

    def _met(self, value: Any) -> Any:
        if value is not None and not self.is_met(value):
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class Check:
    """Annotates a field: a function that returns the value to keep, or raises `ValueError`.

    Its message goes on after the field's name.
    """

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the field's own schema with this check behind it."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.function, handler(kind))


@dataclass(frozen=True, slots=True)
class OneOf:
    """Annotates a text field: only these values."""

    choices: tuple[str, ...]

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of the choices."""
        from pydantic_core import core_schema

        return core_schema.literal_schema(list(self.choices))


@dataclass(frozen=True)
class Shape(Generic[_T]):
    """How a document fills a dataclass, and in which words it is told what is wrong.

    Attributes:
        kind: The dataclass; its annotations say what each field holds.
        names: Field → what the document calls it, where that differs.
        unknown: Of `{keys}` that do not belong; `{known}` are those that do, and `{hint}` the one
            that the first `{key}` may mean.
        missing: Of `{keys}` that the document lacks; `{known}` are all.
        choice: Of a `{value}` that is none of the `{choices}`.
        wrong: Of a `{value}` of a wrong type; `{wanted}` is the right one.
        problem: Of a `{problem}` that a field's own check found.
    """

    kind: type[_T]
    names: Mapping[str, str] = field(default_factory=dict)
    unknown: str = "unknown key {keys}; there are {known}"
    missing: str = "needs {keys}"
    choice: str = "unknown {key} {value!r}; choose one of {choices}"
    wrong: str = "{key} is {wanted}, got {value!r}"
    problem: str = "{key} {problem}"

    def read(
        self,
        document: Mapping[str, Any],
        fail: Callable[[str | None, str], Exception],
        **given: Any,
    ) -> _T:
        """Return the object that the document describes.

        Args:
            document: Plain JSON or TOML values.
            fail: Makes the error, of the key at fault (if it is one key's) and the sentence.
            given: Fields that the caller fills; the document must not have them.
        """
        from pydantic import ValidationError

        known = {key: name for key, name in self._known.items() if name not in given}
        unknown = sorted(set(document) - set(known))
        if unknown:
            close = get_close_matches(unknown[0], known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            words = {"key": unknown[0], "keys": ", ".join(unknown), "known": ", ".join(known)}
            raise fail(unknown[0], self.unknown.format(**words, hint=hint))
        values = {known[key]: value for key, value in document.items()} | given
        try:
            # As JSON, because strict pydantic takes names of an enum and lists for tuples from JSON
            # only. What JSON lacks, TOML's dates, is text.
            text = json.dumps(values, default=str)
            return self._adapter.validate_json(text, strict=True, extra="forbid")
        except RecursionError as error:
            raise fail(None, "is nested too deeply") from error
        except ValidationError as error:
            key, sentence = self._first(error.errors(include_url=False))
            raise fail(key, sentence) from error

    @cached_property
    def _known(self) -> dict[str, str]:
        """Each key of the document, with the field that it fills."""
        return {self.names.get(item.name, item.name): item.name for item in fields(self.kind)}

    @cached_property
    def _adapter(self) -> TypeAdapter[_T]:
        from pydantic import TypeAdapter

        return TypeAdapter(self.kind)

    def _first(self, errors: list[ErrorDetails]) -> tuple[str | None, str]:
        """Return the key of what is wrong first, and the sentence; missing keys go together."""
        missing = [self._place(error["loc"]) for error in errors if error["type"] == "missing"]
        if missing:
            keys, known = ", ".join(missing), ", ".join(self._known)
            return None, self.missing.format(keys=keys, known=known)
        error = errors[0]
        key, details = self._place(error["loc"]), error.get("ctx", {})
        if not key:  # a lone surrogate, or more levels than pydantic reads
            return None, f"cannot be read: {error['msg']}"
        head = key.partition(".")[0].partition("[")[0]
        words = {"key": key, "value": error["input"]}
        kind = error["type"].partition("_")[0]
        if error["type"] in {"enum", "literal_error"}:
            choices = details["expected"].replace("'", "").replace(" or ", ", ")
            return head, self.choice.format(**words, choices=choices)
        if kind in _WANTED:
            return head, self.wrong.format(**words, wanted=_WANTED[kind])
        problem = str(details.get("error", error["msg"]))
        if error["type"] == _CONSTRAINT:
            problem = problem.format(value=error["input"])
        elif error["type"] == "unexpected_keyword_argument":  # within an inner table
            problem = "is not known"
        return head, self.problem.format(**words, problem=problem)

    def _place(self, loc: tuple[str | int, ...]) -> str:
        """Return a place as a reader writes it: `model.id`, `labels[1]`."""
        first, *rest = loc or ("",)
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)
        return self.names.get(str(first), str(first)) + "".join(steps)


def read_toml(source: Path | str, where: str) -> dict[str, Any]:
    """Return the tables of a TOML file, or of a TOML text.

    Raises:
        ConfigError: It cannot be read or is no TOML (the message has the line).
    """
    try:
        text = source if isinstance(source, str) else source.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is no TOML: {error}") from error
    except ValueError as error:  # a NUL in the path
        raise ConfigError(f"{where} cannot be read: {error}") from error
    try:
        document = tomllib.loads(text)
        _check_measure(document)
    except RecursionError as error:
        raise ConfigError(f"{where} is no TOML: it is nested too deeply") from error
    except ValueError as error:  # no TOML, or more digits than Python reads
        raise ConfigError(f"{where} is no TOML: {error}") from error
    return document


def _check_measure(document: dict[str, Any]) -> None:
    """Refuse what later cannot be written out: numbers over 64 bits and deep nesting."""
    level: list[Any] = [document]
    for _ in range(_MOST_LEVELS):
        if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in level):
            raise ValueError("it holds a whole number over 64 bits")
        inner = (
            value.values() if isinstance(value, dict) else value
            for value in level
            if isinstance(value, dict | list)
        )
        level = [value for values in inner for value in values]
        if not level:
            return
    raise ValueError("it is nested too deeply")
