"""Bundled files are found in a checkout and in an installed wheel."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from shield_engine import settings
from shield_engine.errors import ArtifactError, ConfigError
from shield_engine.settings import Settings, bundled, file_sha256, replacing, write_file


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


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """What was there stays if the writing fails, nothing is left beside it, and a link stays one."""
    path, link = tmp_path / "figures.json", tmp_path / "latest.json"
    write_file(path, "old\n")
    link.symlink_to(path)
    with pytest.raises(TypeError), replacing(path) as partial:
        partial.write_bytes("half")  # type: ignore[arg-type]
    assert path.read_text() == "old\n"
    write_file(link, b"new\n")
    assert path.read_bytes() == b"new\n"
    assert link.is_symlink()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["figures.json", "latest.json"]


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    """The three letters of the standard's own example (FIPS 180-2, B.1)."""
    write_file(tmp_path / "abc", b"abc")
    assert file_sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize("name", ["SHIELD_HOME", "SHIELD_REGISTRY", "SHIELD_DATA_ROOTS"])
@pytest.mark.parametrize("value", ["~nosuchuser/x"])
def test_the_home_of_nobody_is_told(name: str, value: str) -> None:
    """A folder in the home of an unknown user is a wrong setting, with its name."""
    with pytest.raises(ConfigError, match="nosuchuser"):
        Settings.from_env({name: value})
