"""The names a user imports from `shield_engine`, and what importing them costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import shield_engine

HEAVY = (
    "duckdb",
    "numpy",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "pydantic",
    "streamlit",
    "tokenizers",
)


def loaded_by(statement: str) -> list[str]:
    """Return which heavy packages a fresh process holds after one statement."""
    code = f"import json, sys; {statement}; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def test_every_public_name_is_real_and_sorted() -> None:
    """`__all__` is sorted, every name in it resolves, and `dir` shows just those."""
    assert list(shield_engine.__all__) == sorted(shield_engine.__all__)
    for name in shield_engine.__all__:
        assert getattr(shield_engine, name).__name__ == name
    assert dir(shield_engine) == list(shield_engine.__all__)


@pytest.mark.parametrize(
    "statement",
    ["import shield_engine", "from shield_engine import Mode, ScannerConfig, Task, Variant"],
)
def test_importing_loads_no_heavy_package(statement: str) -> None:
    """Neither the package nor its plain values bring numpy or any other heavy package."""
    assert loaded_by(statement) == []


def test_the_engine_is_the_same_object_wherever_it_is_imported_from() -> None:
    """`from shield_engine import Shield` gives the class of `shield_engine.engine`."""
    from shield_engine import engine

    assert shield_engine.Shield is engine.Shield


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not public is refused by its name."""
    with pytest.raises(AttributeError, match="no attribute 'Shelf'"):
        shield_engine.Shelf  # noqa: B018 - asking is the test
