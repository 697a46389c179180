"""Documents against the classes they fill: strict values, and one sentence for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest

from shield_engine.documents import Check, Constraint, OneOf, Shape, read_toml
from shield_engine.errors import ConfigError
from shield_engine.types import Mode


def doubled(value: str) -> str:
    """Return the text twice; an empty one is refused."""
    if not value:
        raise ValueError("says nothing")
    return value * 2


@dataclass(frozen=True, slots=True)
class Inner:
    """A table within a document."""

    low: float = 0.0

    def __post_init__(self) -> None:
        if self.low < 0:
            raise ConfigError("low lies below 0")


@dataclass(frozen=True, slots=True)
class Sample:
    """A document with a field of each kind."""

    name: str
    mode: Mode
    count: Annotated[int, Constraint("is from 1, got {value!r}", lambda value: value >= 1)] = 1
    word: Annotated[str, Check(doubled)] = ""
    colour: Annotated[str, OneOf(("red", "blue"))] = "red"
    names: tuple[str, ...] = ()
    pair: Annotated[tuple[str, ...], Constraint("is {{a, b}}, got {value!r}", len)] = ("a",)
    inner: Inner = field(default_factory=Inner)
    is_open: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)
    root: Path = Path()


SHAPE = Shape(Sample, names={"is_open": "open"})
GOOD = {"name": "a", "mode": "ml"}


def read(**values: Any) -> Sample:
    """Read a document from a folder."""
    fail = lambda key, sentence: ConfigError(f"{key}: {sentence}")  # noqa: E731
    return SHAPE.read(values, fail, root=Path("/folder"))


def test_a_document_becomes_the_object_it_describes() -> None:
    """Enums, tuples and nested tables arrive typed; what the caller gives is put in."""
    sample = read(
        **GOOD,
        count=2,
        word="x",
        names=["b"],
        pair=["c"],
        inner={"low": 1},
        open=True,
        notes={"k": [1]},
    )
    assert sample == Sample(
        "a", Mode.ML, 2, "xx", "red", ("b",), ("c",), Inner(1.0), True, {"k": [1]}, Path("/folder")
    )
    assert type(sample.inner.low) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "name: name is text, got 3"),
        ({"mode": "fast"}, "mode: unknown mode 'fast'; choose one of heuristic, ml, hybrid, both"),
        ({"mode": ["ml"]}, "unknown mode"),
        ({"count": 0}, "count: count is from 1, got 0"),
        ({"count": True}, "count is from 1, got True"),
        ({"count": "2"}, "count is from 1, got '2'"),
        ({"word": ""}, "word: word says nothing"),
        ({"word": 1}, "word is text, got 1"),
        ({"colour": "green"}, "unknown colour 'green'; choose one of red, blue"),
        ({"names": "b"}, "names: names is a list, got 'b'"),
        ({"names": ["b", 7]}, r"names: names\[1\] is text, got 7"),
        ({"pair": []}, r"pair: pair is \{a, b\}, got \[\]"),
        ({"pair": ["a", 1]}, r"pair: pair is \{a, b\}, got \['a', 1\]"),
        ({"inner": 1}, "inner is a table, got 1"),
        ({"inner": {"low": "0"}}, "inner: inner.low is a number, got '0'"),
        ({"inner": {"low": 0, "high": 1}}, "inner: inner.high is not known"),
        ({"inner": {"low": -1}}, "low lies below 0"),
        ({"inner": {"low": True}}, "inner.low is a number, got True"),
        ({"open": 1}, "open: open is true or false, got 1"),
        ({"notes": [1]}, r"notes is a table, got \[1\]"),
        ({"nam": "a", "zoo": 1}, "nam: unknown key nam, zoo; there are name, mode, count"),
        ({"is_open": True}, "unknown key is_open"),
        ({"root": "/other"}, "unknown key root"),
        ({"name": "\ud800"}, "None: cannot be read"),
    ],
)
def test_what_is_wrong_is_one_sentence_about_its_key(changes: dict[str, Any], message: str) -> None:
    """A value of a wrong type, an unmet rule or an unknown key is named, and never converted."""
    with pytest.raises(ConfigError, match=message):
        read(**GOOD | changes)


def test_missing_keys_are_named_together() -> None:
    """All that is missing is one sentence, before what is wrong with the rest."""
    with pytest.raises(ConfigError, match=r"^None: needs name, mode$"):
        read(count=0)


def test_bottomless_values_are_an_error() -> None:
    """Nesting that cannot be written is refused, not a crash."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigError, match="nested too deeply"):
        read(**GOOD, notes={"deep": deep})


def test_toml_that_cannot_be_read_says_where(tmp_path: Path) -> None:
    """A missing file, bytes that are no text and broken TOML each name the document."""
    with pytest.raises(ConfigError, match="the file cannot be read: No such file"):
        read_toml(tmp_path / "none.toml", "the file")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="the file is no TOML"):
        read_toml(tmp_path / "bytes.toml", "the file")
    with pytest.raises(ConfigError, match=r"the text is no TOML.*line 2"):
        read_toml("a = 1\nb = \nc = 2", "the text")


@pytest.mark.parametrize(
    "text",
    [
        f"a = {'9' * 5000}",
        f"a = 0x{'f' * 5000}",
        f"a = [{{ b = -{'9' * 20} }}]",
        f"a = {'[' * 5000}{']' * 5000}",
        f"a{'.a' * 5000} = 1",
        f"a = {'{ a = ' * 5000}",
    ],
    ids=["digits", "hexadecimal", "65 bits", "lists", "dotted", "tables"],
)
def test_numbers_and_nesting_beyond_measure_are_refused(text: str) -> None:
    """Python refuses to write such numbers out, and to go so deep: the file is told to be no TOML."""
    with pytest.raises(ConfigError, match="the file is no TOML: "):
        read_toml(text, "the file")


def test_a_path_no_file_can_have_is_told() -> None:
    """A NUL, or more letters than a name may have, is an error in words."""
    for path in ("a\x00b", "a" * 5000):
        with pytest.raises(ConfigError, match="the file cannot be read: "):
            read_toml(Path(path), "the file")
