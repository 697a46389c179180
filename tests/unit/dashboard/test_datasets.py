"""What a user may pick before a file is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dashboard.datasets.files import (
    allowed_file,
    unmapped,
)
from shield_engine.errors import ConfigError


def write_lines(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def test_a_path_inside_an_allowed_folder_is_taken(tmp_path: Path) -> None:
    """Absolute paths and paths relative to the first folder lead to the same file."""
    file = tmp_path / "a.csv"
    file.write_text("text\nx\n")
    assert allowed_file(str(file), [tmp_path]) == allowed_file("a.csv", [tmp_path]) == file


@pytest.mark.parametrize("written", ["../secret.csv", "link.csv", "/etc/hosts"])
def test_a_path_that_leads_out_of_the_allowed_folders_is_refused(
    tmp_path: Path, written: str
) -> None:
    """Neither dots nor a link nor an absolute path leave the folder."""
    (tmp_path / "secret.csv").write_text("text\nx\n")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(ConfigError, match="outside the folders"):
        allowed_file(written, [root])


def test_without_allowed_folders_no_path_is_taken(tmp_path: Path) -> None:
    """The list is empty by default, and then nothing on the server can be read."""
    file = tmp_path / "a.csv"
    file.write_text("text\nx\n")
    with pytest.raises(ConfigError, match="none"):
        allowed_file(str(file), [])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """An allowed path that is no file says so."""
    with pytest.raises(ConfigError, match=r"absent\.csv is not a file"):
        allowed_file("absent.csv", [tmp_path])


def test_values_without_a_class_are_named() -> None:
    """Class 0 is a class; `None` and an absent value are not."""
    assert unmapped(["a", "b", "c"], {"a": 0, "b": None}) == ["b", "c"]


@pytest.mark.parametrize("written", ["~nosuchuser/x", "loop", "loop/x", "a" * 5000, "a\x00b"])
def test_a_path_that_leads_nowhere_is_told(tmp_path: Path, written: str) -> None:
    """A stranger's home, links in a circle, a name too long and a NUL are errors in words."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError):
        allowed_file(written, [tmp_path])
