"""The documents keep up with the code, and the house's rules on modules hold."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import typer

import shield_engine
from shield_engine import errors, settings
from shield_engine.cli.app import app
from shield_engine.config import MLConfig, ScannerConfig
from shield_engine.heuristics import Rule, bundled_rules, load_rules
from shield_engine.metrics.table import METRIC_NAMES
from shield_engine.ml.registry import ModelEntry, ModelRegistry
from shield_engine.pipeline import Anonymize, Deanonymize
from shield_engine.scanners import KINDS
from shield_engine.types import LABELS, Mode, Task, Variant

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = (
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "models/README.md")),
    ROOT / "datasets" / "README.md",
    *sorted(DOCS.glob("*.md")),
)
HEAVY = ("streamlit", "plotly", "duckdb", "pandas", "onnxruntime", "tokenizers", "torch", "sklearn")
# Set by the loader of a registry file, not written in it.
NOT_WRITTEN = {"root"}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(shield_engine.__path__, "shield_engine.")
    if "._bundled" not in module.name
)


def text_of(page: str) -> str:
    """Return a page of the docs."""
    return (DOCS / page).read_text(encoding="utf-8")


def commands() -> dict[str, Any]:
    """Return every subcommand of `shield` by name, as the parser knows it."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def anchor_of(heading: str) -> str:
    """Return the fragment that a heading gets when it is rendered."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower())
    return kept.strip().replace(" ", "-")


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )


@pytest.mark.parametrize("name", sorted(commands()))
def test_command_and_its_options_are_documented(name: str) -> None:
    """A command has a section of its own that names each of its options."""
    page = text_of("command-line.md")
    assert f"## `shield {name}" in page
    section = page.split(f"## `shield {name}", 1)[1].split("\n## ", 1)[0]
    for parameter in commands()[name].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("--") and option != "--help":
                assert re.search(rf"`{option}[ `]", section), f"shield {name} {option}"


def test_documented_options_exist() -> None:
    """No section of a command shows an option that the command does not have."""
    page = text_of("command-line.md")
    for name, command in commands().items():
        section = page.split(f"## `shield {name}", 1)[1].split("\n## ", 1)[0]
        rows = re.findall(r"^\| `(--[a-z-]+)", section, flags=re.MULTILINE)
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(rows) <= known, name


def test_every_setting_is_documented() -> None:
    """Each variable that the settings read is a row of the settings page, and no other is."""
    source = Path(settings.__file__).read_text(encoding="utf-8")
    read = set(re.findall(r"SHIELD_[A-Z_]+", source))
    rows = set(re.findall(r"^\| `(SHIELD_[A-Z_]+)`", text_of("settings.md"), flags=re.MULTILINE))
    assert read
    assert rows == read


def test_variables_named_anywhere_exist() -> None:
    """No page names a variable that the settings do not read."""
    known = set(re.findall(r"SHIELD_[A-Z_]+", Path(settings.__file__).read_text(encoding="utf-8")))
    for page in PAGES:
        named = set(re.findall(r"SHIELD_[A-Z_]+", page.read_text(encoding="utf-8")))
        assert named <= known, page.name


def test_every_choice_of_a_scanner_is_documented() -> None:
    """The settings page names what a caller can choose for a scanner, and each preset."""
    page = text_of("settings.md")
    for choice in fields(ScannerConfig):
        assert re.search(rf"`(ScannerConfig\.)?{choice.name}`", page), choice.name
    presets = [name for name, kind in vars(MLConfig).items() if isinstance(kind, classmethod)]
    assert presets
    for preset in presets:
        assert f"`MLConfig.{preset}()`" in page


def test_every_registry_field_is_documented() -> None:
    """Each field of a registry entry is a row of the model guide, and no other is."""
    page = text_of("adding-a-model.md")
    table = page.split("## Field by field", 1)[1].split("\n## ", 1)[0]
    rows = set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE))
    assert rows == {entry.name for entry in fields(ModelEntry)} - NOT_WRITTEN


def test_every_rule_field_is_documented() -> None:
    """Each field of a rule is a row of the scanner guide, and no other is."""
    page = text_of("adding-a-scanner.md")
    table = page.split("### A rule file", 1)[1].split("\n## ", 1)[0]
    rows = set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE))
    assert rows == {rule.name for rule in fields(Rule)}


@pytest.mark.parametrize("task", list(Task))
def test_every_scanner_is_documented(task: Task) -> None:
    """README names the scanner; the guides name its task and its labels."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"`{KINDS[task].__name__}`" in readme
    guide = text_of("adding-a-model.md")
    for word in (task.value, *LABELS[task]):
        assert f"`{word}`" in guide


def test_scanners_that_change_a_text_are_documented() -> None:
    """README names them, and the guide has a row for each kind of placeholder."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in (Anonymize.__name__, Deanonymize.__name__):
        assert f"`{name}`" in readme
    rows = re.findall(r"^\| `\[([A-Z]+)_n\]`", text_of("adding-a-scanner.md"), flags=re.MULTILINE)
    kinds = {rule.category.upper() for rule in bundled_rules("personal_data")}
    assert set(rows) == kinds
    assert len(rows) == len(kinds)


def test_modes_variants_and_metrics_are_documented() -> None:
    """The pages on the command and on its output name every mode, variant and metric."""
    command, output = text_of("command-line.md"), text_of("evaluation-output.md")
    for word in (*Mode, *Variant):
        assert f"`{word.value}`" in command
    for metric in METRIC_NAMES:
        assert f"`{metric}`" in output


@pytest.mark.parametrize("name", sorted(set(errors.__all__)))
def test_every_error_class_is_documented(name: str) -> None:
    """Troubleshooting names each error class that a caller may catch."""
    assert f"`{name}`" in text_of("troubleshooting.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Each link to a file of the project resolves, and so does its heading."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if fragment:
            headings = re.findall(r"^#+ (.+)$", prose_of(target), flags=re.MULTILINE)
            assert fragment in {anchor_of(heading) for heading in headings}, link


def test_readme_example_runs() -> None:
    """The library example of README runs as it stands and prints what it says."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], check=True, capture_output=True, text=True
    )
    printed = re.findall(r"^# (.+)$", example, flags=re.MULTILINE)
    assert answer.stdout.splitlines() == printed


def test_example_of_a_rule_file_is_one(tmp_path: Path) -> None:
    """The rule file of the scanner guide passes every check of a user's own file."""
    page = text_of("adding-a-scanner.md")
    path = tmp_path / "rules.toml"
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    path.write_text(example, encoding="utf-8")
    assert len(load_rules(path, Task.PROMPT_INJECTION)) == 1


def test_example_of_a_registry_is_one(tmp_path: Path) -> None:
    """The registry of the model guide follows the schema once its hashes are filled in."""
    page = text_of("adding-a-model.md")
    path = tmp_path / "registry.json"
    example = next(
        block
        for block in re.findall(r"^```json\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
        if '"models"' in block
    )
    path.write_text(example.replace("64 hexadecimal digits", "0f" * 32), encoding="utf-8")
    assert ModelRegistry.load(path).get("my-injection").labels == ("benign", "injection")


def test_every_page_can_be_reached_from_the_readme() -> None:
    """README links each page of the docs and the two other read-mes."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"]({page.relative_to(ROOT)}" in readme, page.name


@pytest.mark.parametrize("name", MODULES)
def test_exports_are_sorted_and_real(name: str) -> None:
    """A module's `__all__` names things it has, each once: constants, classes, functions."""
    module: ModuleType = importlib.import_module(name)
    exported = getattr(module, "__all__", None)
    if exported is None:
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        assert not re.search(r"^(class|def|async def) [^_]", source, flags=re.MULTILINE), (
            f"{name} has public names and no __all__"
        )
        return
    ranked = sorted(exported, key=lambda word: (_rank(word), word))
    assert exported == ranked
    assert len(set(exported)) == len(exported)
    for word in exported:
        assert hasattr(module, word), f"{name}.{word}"


def _rank(word: str) -> int:
    """Return where a name's kind stands: CONSTANTS, then Classes, then functions."""
    if word.isupper():
        return 0
    return 1 if word[0].isupper() else 2


def test_every_dependency_is_imported() -> None:
    """No package is installed for nothing: each one that we ask for is imported somewhere."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {re.split(r"[<>=\[]", line)[0].lower() for line in project["dependencies"]}
    imported: set[str] = set()
    for path in (*ROOT.glob("shield_engine/**/*.py"), *ROOT.glob("dashboard/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    providers = importlib.metadata.packages_distributions()
    used = {
        provider.lower().replace("_", "-")
        for name in imported
        for provider in providers.get(name, ())
    }
    assert asked - used == set()


@pytest.mark.parametrize("name", ["shield_engine", "shield_engine.cli", "shield_engine.types"])
def test_importing_the_engine_is_light(name: str) -> None:
    """A fresh process that imports the engine has loaded no heavy package."""
    code = f"import sys, {name}; print(','.join(p for p in {HEAVY!r} if p in sys.modules), end='')"
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert answer.stdout == ""
