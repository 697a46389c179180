"""The golden outputs: commands and pages give what they gave, to the last figure and word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

from tests.golden import (
    CASES,
    EXACT,
    GOLDEN,
    LIVE,
    LIVE_TOLERANCE,
    differences,
    golden,
    output,
    place_store,
)

SHOWN = 20  # differences that a failure lists; the first few tell what moved


@pytest.fixture(autouse=True)
def fresh_caches(home: Path) -> Iterator[None]:
    """Give each test a server of its own, over the golden store."""
    place_store(home)
    yield
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.mark.parametrize("case", CASES)
def test_output_is_the_golden_one(case: str, tmp_path: Path) -> None:
    """Numbers are the same to 1e-12 and texts to the letter; live model scores to 1e-3."""
    tolerance = LIVE_TOLERANCE if case.startswith(LIVE) else EXACT
    moved = list(differences(golden(case), output(case, tmp_path), tolerance))
    listed = "\n".join(moved[:SHOWN])
    assert not moved, f"{len(moved)} differences from the golden output:\n{listed}"


def test_every_golden_output_has_its_case() -> None:
    """A case that is dropped leaves no file that nothing reads."""
    names = {path.name.removesuffix(".json.gz") for path in GOLDEN.glob("*.json.gz")}
    assert names == set(CASES)
