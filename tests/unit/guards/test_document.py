"""`guards.toml` is read strictly, and edited without touching what else stands in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shield_engine.errors import ConfigError, UnknownNameError
from shield_engine.guards.document import (
    add_guard,
    find_guard,
    presets,
    read_guards,
    remove_guard,
)
from shield_engine.types import Task

FILE = """\
# Ours.
[[guard]]
name = "moderation"
task = "toxicity"
kind = "http"
url = "https://api.example.com/v1/moderations"
headers = { Authorization = "env:MODERATION_KEY" }
body = { input = "{text}", model = "omni" }
score = "results[0].category_scores.harassment"
timeout_s = 10

# The second.
[[guard]]
name = "house-rules"
task = "prompt_injection"
kind = "python"
callable = "my_package.guards:risk"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file of two guards."""
    file = tmp_path / "guards.toml"
    file.write_text(FILE)
    return file


def test_guards_are_read_in_order(path: Path) -> None:
    """Every entry becomes a guard of its kind, with what the file leaves out by default."""
    moderation, rules = read_guards(path)
    assert (moderation.name, moderation.kind, moderation.task) == (
        "moderation",
        "http",
        Task.TOXICITY,
    )
    assert (rules.kind, rules.threshold, rules.concurrency) == ("python", 0.5, 1)


def test_a_missing_file_has_no_guards(tmp_path: Path) -> None:
    """Without the file there are simply no guards."""
    assert read_guards(tmp_path / "guards.toml") == ()


@pytest.mark.parametrize("name", sorted(presets()))
def test_a_preset_is_a_guard_that_lacks_only_its_name(tmp_path: Path, name: str) -> None:
    """Each preset by itself is a whole entry, and a field of the entry wins over it."""
    file = tmp_path / "guards.toml"
    guard = add_guard(file, {"name": "theirs", "preset": name, "timeout_s": 3})
    assert guard.kind == "http"
    assert guard.timeout_s == 3
    assert read_guards(file) == (guard,)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("timeout_s = 10", "timeout_s = -1", "line 10: guard moderation: timeout_s is a number"),
        ("timeout_s = 10", 'timeout_s = "x"', "line 10: guard moderation: timeout_s is a number"),
        ("timeout_s = 10", "threshold = 1.5", "line 10: guard moderation: threshold is a number"),
        ("timeout_s = 10", "concurrency = 0", "line 10: guard moderation: concurrency is a whole"),
        ("timeout_s = 10", 'preset = "x"', "line 10: guard moderation: no preset 'x'; there are"),
        ("timeout_s = 10", "range = [1, 0]", "line 2: guard moderation: range is"),
        ("timeout_s = 10", "timeout = 10", "line 10: guard moderation: unknown key timeout"),
        ('"{text}"', '"{txt}"', r"line 2: guard moderation: body has no \{text\}"),
        ('"toxicity"', '"tox"', "line 4: guard moderation: unknown task 'tox'"),
        ('"toxicity"', '"sentiment"', "line 2: guard moderation: sentiment needs three"),
        ('"http"', '"htp"', "line 5: guard moderation: kind 'htp' is none of http, python, onnx"),
        ('url = "https:', 'url = "ftp:', "line 6: guard moderation: url is an address"),
        ("https://api", "https://me:pw@api", "line 6: guard moderation: url holds a password"),
        ("env:MODERATION_KEY", "sk-1", "line 7: guard moderation: headers has Authorization writ"),
        ("score =", 'verdict = "x"\nscore =', "line 2: guard moderation: needs either score"),
        ('name = "moderation"', 'name = "house-rules"', "line 13: a second guard is called house"),
        ('name = "moderation"', 'name = " "', "line 2: guard  : a guard needs a name"),
        ("[[guard]]", "[[guards]]", r"holds \[\[guard\]\] entries and nothing else"),
        ("[[guard]]", "[[guard", "is no TOML"),
        ("callable =", "call =", "line 17: guard house-rules: unknown key call"),
    ],
)
def test_a_bad_entry_is_named_with_line_and_field(
    path: Path, old: str, new: str, message: str
) -> None:
    """What cannot be used is refused with file, line, guard and field."""
    path.write_text(FILE.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        read_guards(path)
    assert str(path) in str(caught.value)


def test_adding_and_removing_leave_the_rest_to_the_letter(path: Path) -> None:
    """A new entry goes behind, a removed one takes nothing else with it."""
    add_guard(path, {"name": "lakera", "preset": "lakera", "headers": {"X-Key": "env:KEY"}})
    assert path.read_text().startswith(FILE)
    remove_guard(path, "moderation")
    text = path.read_text()
    assert text.startswith('# Ours.\n[[guard]]\nname = "house-rules"')
    assert [guard.name for guard in read_guards(path)] == ["house-rules", "lakera"]
    with pytest.raises(UnknownNameError, match="no guard moderation; there are: house-rules, lak"):
        remove_guard(path, "moderation")


def test_a_bad_addition_leaves_the_file(path: Path) -> None:
    """A second guard of one name is refused, and the file stays as it was."""
    with pytest.raises(ConfigError, match="a second guard is called moderation"):
        add_guard(path, {"name": "moderation", "preset": "lakera"})
    assert path.read_text() == FILE


def test_the_fingerprint_is_of_what_decides(path: Path) -> None:
    """Another key, price or limit is the same guard; another question or model is not."""
    first, _ = read_guards(path)
    for old, new, is_same in (
        ("timeout_s = 10", "timeout_s = 2\nprice_per_1000 = 3", True),
        ("env:MODERATION_KEY", "env:OTHER", True),
        ('"omni"', '"omni-2"', False),
        ("harassment", "hate", False),
    ):
        path.write_text(FILE.replace(old, new))
        assert (read_guards(path)[0].fingerprint == first.fingerprint) is is_same


def test_an_unknown_guard_is_named_with_the_known(path: Path) -> None:
    """Asking for a name that is not there tells which are."""
    with pytest.raises(UnknownNameError, match="no guard x; there are: moderation, house-rules"):
        find_guard(read_guards(path), "x")
