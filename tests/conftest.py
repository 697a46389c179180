"""Fixtures for all tests: a home of their own, the public data beside a developer's checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from shield_engine.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a SHIELD_HOME of its own and keep it off the network."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SHIELD_HOME", str(folder))
    monkeypatch.setenv("SHIELD_OFFLINE", "1")
    for name in ("SHIELD_REGISTRY", "SHIELD_DATA_ROOTS", "SHIELD_MAX_MODEL_MB", "SHIELD_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def settings(home: Path) -> Settings:
    """Settings of this test's own home."""
    return Settings(home=home, offline=True, workers=2)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data that is never committed; absent in a user's clone."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not here (public data, kept outside the repository)")
    return folder
