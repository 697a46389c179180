"""Bundled files are found in a checkout and in an installed wheel."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from shield_engine import settings
from shield_engine.errors import ArtifactError
from shield_engine.settings import bundled


def test_registry_is_found_in_this_installation() -> None:
    """The registry's folder holds the models that it names."""
    assert bundled("models", "registry.json").is_file()
    assert bundled("models").is_dir()


def test_missing_file_says_where_it_was_looked_for() -> None:
    """An unknown name is an error that lists both places."""
    with pytest.raises(ArtifactError, match=r"models/none\.json is missing: neither .*_bundled"):
        bundled("models", "none.json")


def test_wheel_carries_its_files_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the layout of a wheel the files lie in the package's own `_bundled` folder."""
    package = tmp_path / "site" / "shield_engine"
    inside = package / "_bundled" / "models"
    inside.mkdir(parents=True)
    (inside / "registry.json").write_text("{}")
    copy = shutil.copy(settings.__file__, package / "settings.py")
    spec = importlib.util.spec_from_file_location("installed_settings", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    assert module.bundled("models", "registry.json") == inside / "registry.json"
