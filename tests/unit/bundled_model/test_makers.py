"""The command of the makers of the bundled model, as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def makers(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m tools.bundled_model` in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "tools.bundled_model", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )


@pytest.mark.parametrize("maker", ["fit", "linear-tier", "card"])
def test_each_maker_explains_itself(maker: str) -> None:
    """The overview names each maker, and each has a help of its own."""
    assert maker in makers("--help").stdout
    answer = makers(maker, "--help")
    assert answer.returncode == 0
    assert f"tools.bundled_model {maker}" in answer.stdout


def test_missing_pools_are_named_without_a_traceback(tmp_path: Path) -> None:
    """A folder without the train pools ends with exit 1 and the file that is missing."""
    answer = makers("linear-tier", str(tmp_path), "--out", str(tmp_path))
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert str(tmp_path / "injection.jsonl.gz") in answer.stderr
    assert "Traceback" not in answer.stderr
