"""`shield guards` and `--guard`: from "I have an API" to its figures beside ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shield_engine.cli.app import app
from shield_engine.errors import ConfigError
from tests.hostile_api import Api, serving


def run(*arguments: str) -> str:
    """Run the command in this process and return what it printed."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def risk_of(text: str) -> float:
    """Return a high risk for texts with the word attack."""
    return 0.9 if "attack" in text else 0.2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a labelled file whose labels the API gets right."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": f"an {'attack' if n % 3 == 0 else 'apple'} {n}", "label": int(n % 3 == 0)}
        for n in range(30)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_an_api_is_added_checked_scored_and_removed(home: Path, file: Path, tmp_path: Path) -> None:
    """Five commands: add, list, check, eval with its figures under `guards`, remove."""
    with serving(Api(risk_of)) as api:
        run(
            "guards", "add", "house", "--url", api.url, "--task", "prompt_injection",
            "--body", '{"input": "{text}"}', "--score", "score", "--concurrency", "4",
        )  # fmt: skip
        assert "house" in run("guards")
        out = tmp_path / "out.json"
        table = run(
            "eval", str(file), "--task", "prompt_injection", "--modes", "ml,hybrid",
            "--guard", "house", "--json", str(out), "--no-store",
        )  # fmt: skip
        assert "rules + house" in table
        assert run("scan", "an attack", "--guard", "house", "--mode", "ml").count("house") == 2
    (dataset,) = json.loads(out.read_text())["datasets"]
    modes = dataset["guards"]["house"]["modes"]
    assert set(modes) == {"ml", "hybrid"}
    assert modes["ml"]["metrics"]["accuracy"]["value"] == 1.0
    assert modes["ml"]["threshold"] == 0.5
    run("guards", "remove", "house")
    assert "house" not in run("guards")


def test_a_failing_probe_fails_the_command(home: Path) -> None:
    """A guard that says the same of everything fails its check with exit code 100."""
    run(
        "guards",
        "add",
        "flat",
        "--callable",
        "tests.unit.guards.test_python:risk",
        "--task",
        "prompt_injection",
    )
    result = CliRunner().invoke(app, ["guards", "check", "flat"])
    assert result.exit_code == 100
    assert "FAIL" in result.output


def test_known_models_are_listed_with_what_is_here(home: Path) -> None:
    """The catalogue names models, and says that none was fetched."""
    text = run("guards", "catalogue")
    assert "protectai" in text
    assert "not fetched here" in text


def test_a_guards_file_that_is_not_there_is_named(home: Path, file: Path) -> None:
    """`--guards` with a wrong path is an error before anything is scored."""
    result = CliRunner().invoke(
        app, ["eval", str(file), "--task", "prompt_injection", "--guards", "none.toml"]
    )
    assert isinstance(result.exception, ConfigError)
    assert "guards file none.toml is not there" in str(result.exception)
