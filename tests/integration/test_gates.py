"""`shield gate` and `shield report` as a build server runs them, on the bundled sample."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from shield_engine.cli.app import app
from shield_engine.gates import parse_gate
from shield_engine.policy import Policy, write_policies
from shield_engine.settings import bundled
from shield_engine.store import Store
from shield_engine.types import Mode, Task
from tests.stored_runs import add_dataset, add_run

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = bundled("datasets", "prompt_injection_sample.jsonl")
EXAMPLES = re.findall(
    r"^```(\w+)\n(.*?)^```", (ROOT / "docs" / "ci-gates.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)  # fmt: skip


def shield(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run `shield` in a home of its own."""
    return subprocess.run(
        [
            sys.executable, "-c", "from shield_engine.cli import main; main()",
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "SHIELD_HOME": str(home), "NO_COLOR": "1"},
    )  # fmt: skip


def written(folder: Path, *lines: str) -> Path:
    """Write a gate of these requirements."""
    path = folder / "gate.toml"
    tables = "\n".join(f"[[require]]\n{one}" for one in lines)
    path.write_text(f'format = 1\nname = "ci"\n{tables}\n', encoding="utf-8")
    return path


@pytest.fixture
def run_id(home: Path) -> str:
    """A stored run that finds 28 of 30 attacks and raises no false alarm on 30 rows."""
    home.mkdir(parents=True, exist_ok=True)
    with Store.open(home / "shield.duckdb") as store:
        dataset = add_dataset(store, [1] * 30 + [0] * 30)
        return add_run(store, dataset, [0.9] * 28 + [0.1] * 32, part="heuristic").run_id


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('metric = "recall"\nat_least = 0.8', 0),
        ('metric = "recall"\nat_least = 0.99', 100),
        ('metric = "recall"\nat_least = 0.9', 101),
        ('metric = "recall"\nno_worse_than = "baseline"', 1),
        ('metric = "recal"\nat_least = 0.9', 1),
    ],
)
def test_exit_code_is_the_outcome(
    tmp_path: Path, home: Path, run_id: str, line: str, code: int
) -> None:
    """0 pass, 100 fail, 101 inconclusive, 1 where nothing could be judged."""
    answer = shield("gate", written(tmp_path, line), "--run", run_id, home=home)
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    word = {0: "Gate ci: pass", 100: "Gate ci: fail", 101: "Gate ci: inconclusive", 1: ""}[code]
    assert word in answer.stdout
    assert (code == 1) == answer.stderr.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("file.csv", "--run", "x"),
        ("file.csv",),
        ("--run", "x", "--limit", "3"),
        ("--run", "x", "--mode", "ml", "--policy", "p.toml"),
        ("file.csv", "--task", "toxicity", "--policy", "p.toml", "--variant", "FP32"),
        ("--run", "x", "--seed", "one"),
    ],
)
def test_wrong_usage_exits_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Options that contradict one another are refused before anything is computed."""
    gate = written(tmp_path, 'metric = "recall"\nat_least = 0.9')
    assert CliRunner().invoke(app, ["gate", str(gate), *arguments]).exit_code == 2


def test_outcome_files_are_written(tmp_path: Path, home: Path, run_id: str) -> None:
    """JUnit, Markdown and JSON say the same; `-` puts only that on standard output."""
    gate = written(tmp_path, 'metric = "recall"\nat_least = 0.9', 'metric = "fpr"\nat_most = 0.2')
    out = [tmp_path / name for name in ("gate.xml", "gate.md")]
    out[0].write_text("old", encoding="utf-8")
    answer = shield(
        "gate", gate, "--run", run_id, "--junit", out[0], "--markdown", out[1], "--json", "-",
        "--strict", home=home,
    )  # fmt: skip
    assert answer.returncode == 101
    document = json.loads(answer.stdout)
    assert document["outcome"] == "inconclusive"
    assert [one["outcome"] for one in document["requirements"]] == ["inconclusive", "pass"]
    assert document["requirements"][0]["rows_needed"] > 0
    suite = ET.parse(out[0]).getroot()[0]  # noqa: S314 - our own text
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert out[1].read_text(encoding="utf-8").startswith("### ❔ Gate ci: inconclusive")
    missing = shield("gate", gate, "--run", run_id, "--junit", tmp_path / "no" / "x", home=home)
    assert missing.returncode == 1
    assert "is not a folder" in missing.stderr


def test_policy_and_baseline_policy_decide(tmp_path: Path, home: Path, run_id: str) -> None:
    """A stricter policy fails against the run's own scores under the older one."""
    files = []
    for name, threshold in (("new", 0.95), ("old", 0.5)):
        path = tmp_path / f"{name}.toml"
        policy = Policy(name, Task.PROMPT_INJECTION, Mode.HEURISTIC, threshold)
        path.write_text(write_policies([policy]), encoding="utf-8")
        files.append(path)
    gate = written(tmp_path, 'metric = "recall"\nno_worse_than = "baseline"\nby_more_than = 0.1')
    common = ("gate", gate, "--run", run_id, "--json", "-", "--policy")
    worse = shield(*common, files[0], "--baseline-policy", files[1], home=home)
    assert worse.returncode == 100
    document = json.loads(worse.stdout)
    assert (document["candidate"], document["baseline"]) == ("new (unsaved)", "old (unsaved)")
    assert document["requirements"][0]["baseline_value"] == pytest.approx(28 / 30)
    better = shield(
        *common, files[1], "--baseline", run_id, "--baseline-policy", files[0], home=home
    )
    assert better.returncode == 0


@pytest.mark.parametrize("ending", ["html", "md", "json", "parquet"])
def test_report_is_written_by_its_ending(
    tmp_path: Path, home: Path, run_id: str, ending: str
) -> None:
    """Each format is one file that says what was judged; texts stay out if redacted."""
    out = tmp_path / f"report.{ending}"
    gate = written(tmp_path, 'metric = "recall"\nat_least = 0.9')
    answer = shield(
        "report", run_id, "--out", out, "--gate", gate, "--baseline", run_id, "--redact", home=home
    )
    assert answer.returncode == 0, answer.stderr
    if ending == "parquet":
        table = pq.read_table(out)
        assert table["is_right"].to_pylist().count(False) == 2
        return
    text = out.read_text(encoding="utf-8")
    assert "93.3%" in text or "0.9333333333333333" in text
    assert "text 28" not in text
    assert "inconclusive" in text


def test_report_refuses_what_it_cannot_write(tmp_path: Path, home: Path, run_id: str) -> None:
    """Another ending, an unknown run or a missing folder is an error that says so."""
    for arguments, message in (
        ((run_id, "--out", tmp_path / "r.pdf"), ".pdf is not a report format"),
        (("nope", "--out", tmp_path / "r.md"), "no run nope"),
        ((run_id, "--out", tmp_path / "no" / "r.md"), "is not a folder"),
    ):
        answer = shield("report", *arguments, home=home)
        assert answer.returncode == 1
        assert message in answer.stderr
    assert list(tmp_path.glob("r.*")) == []


def test_example_of_the_docs_gives_what_they_say(tmp_path: Path, home: Path) -> None:
    """The gate and policy of the page, judged on the sample, give its figures (latency aside)."""
    gates = [text for kind, text in EXAMPLES if kind == "toml"]
    (expected,) = (text for kind, text in EXAMPLES if kind == "markdown")
    gate, policy = tmp_path / "release.toml", tmp_path / "rules-only.toml"
    gate.write_text(gates[0], encoding="utf-8")
    policy.write_text(gates[1], encoding="utf-8")
    assert parse_gate(gates[0]).name == "release"
    answer = shield(
        "gate", gate, SAMPLE, "--task", "prompt_injection", "--baseline-policy", policy,
        "--markdown", "-", home=home,
    )  # fmt: skip
    assert answer.returncode == 101, answer.stderr
    rows = [line for line in answer.stdout.splitlines() if line.startswith("| ")]
    wanted = [line for line in expected.splitlines() if line.startswith("| ")]
    assert len(rows) == len(wanted) == 7
    for row, other in zip(rows, wanted, strict=True):
        if "p95_ms" not in row:
            assert row == other


def test_file_is_judged_under_its_policy_without_a_store(tmp_path: Path, home: Path) -> None:
    """A file is scored in the policy's mode; --no-store leaves nothing behind."""
    policy = tmp_path / "shield.toml"
    policy.write_text(
        write_policies([Policy("rules", Task.PROMPT_INJECTION, Mode.HEURISTIC, 0.5)]),
        encoding="utf-8",
    )
    gate = written(tmp_path, 'metric = "escalated"\nat_most = 0.1')
    answer = shield(
        "gate", gate, SAMPLE, "--task", "prompt_injection", "--policy", policy, "--no-store",
        "--limit", "50", "--json", "-", home=home,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert document["candidate"] == "rules (unsaved)"
    assert document["requirements"][0]["n"] == 50
    assert document["stamp"]["model"] is None
    assert not (home / "shield.duckdb").exists()
