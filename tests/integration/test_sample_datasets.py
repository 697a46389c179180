"""The bundled datasets keep what `datasets/README.md` promises of them."""

from __future__ import annotations

import base64
import gzip
import json
import re
import unicodedata
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shield_engine.types import LABELS, Task

FOLDER = Path(__file__).resolve().parents[2] / "datasets"
SAMPLES = {task: f"{task.value}_sample.jsonl" for task in Task}
FIELDS = {"id", "text", "label", "category", "language", "difficulty"}
BASE64_RUN = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")


def read_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of one of the bundled JSONL files."""
    lines = (FOLDER / name).read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def fold(text: str) -> str:
    """Return only the letters and digits of a text, lower case, compatibility forms undone."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).lower())


@pytest.fixture(params=list(Task), ids=str)
def task(request: pytest.FixtureRequest) -> Task:
    """Each task that has a labelled sample."""
    chosen: Task = request.param
    return chosen


def test_every_row_is_complete_and_has_an_id_of_its_own(task: Task) -> None:
    """Rows have exactly the documented fields, non-blank texts, known values and unique ids."""
    rows = read_rows(SAMPLES[task])
    allowed = LABELS[task] if task is Task.SENTIMENT else (0, 1)
    for row in rows:
        assert set(row) == FIELDS, row["id"]
        assert row["text"].strip(), row["id"]
        assert row["label"] in allowed, row["id"]
        assert row["difficulty"] in {"easy", "hard"}, row["id"]
        assert re.fullmatch(r"[a-z]{2}", row["language"]), row["id"]
    assert len({row["id"] for row in rows}) == len(rows)


def test_no_text_stands_twice_in_the_labelled_samples() -> None:
    """Two rows never share a text, not even across samples or when only case or marks differ."""
    texts = Counter(fold(row["text"]) for name in SAMPLES.values() for row in read_rows(name))
    assert [text for text, count in texts.items() if count > 1] == []


def test_size_and_balance(task: Task) -> None:
    """A sample has 320 to 400 rows, and no label takes more than 56 % or less than 28 % of them."""
    rows = read_rows(SAMPLES[task])
    assert 320 <= len(rows) <= 400
    shares = {label: n / len(rows) for label, n in Counter(row["label"] for row in rows).items()}
    assert len(shares) == len(LABELS[task])
    assert min(shares.values()) >= 0.28
    assert max(shares.values()) <= 0.56


def test_every_category_is_large_enough_to_slice(task: Task) -> None:
    """Each category has at least 8 rows; only for sentiment does it say nothing of the label."""
    rows = read_rows(SAMPLES[task])
    sizes = Counter(row["category"] for row in rows)
    assert min(sizes.values()) >= 8
    if task is not Task.SENTIMENT:
        pairs = {(row["category"], row["label"]) for row in rows}
        assert len(pairs) == len(sizes)


def test_readme_states_the_true_counts(task: Task) -> None:
    """The README's tables give each file's rows and each category's rows as they are."""
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = read_rows(SAMPLES[task])
    assert f"| `{SAMPLES[task]}` | {len(rows)} |" in readme
    section = readme.split(f"## {task.value.replace('_', ' ').capitalize()}\n")[1].split("\n## ")[0]
    for category in {row["category"] for row in rows}:
        found = Counter(row["label"] for row in rows if row["category"] == category)
        if task is Task.SENTIMENT:
            cells = " | ".join(str(found[label]) for label in LABELS[task])
        else:
            [(label, count)] = found.items()
            cells = f"{label} | {count}"
        assert f"| `{category}` | {cells} |" in section


def test_injection_sample_is_wide_enough() -> None:
    """It has ten languages, 25 long rows with both labels among them, and 30 obfuscated rows."""
    rows = read_rows(SAMPLES[Task.PROMPT_INJECTION])
    long_rows = [row for row in rows if len(row["text"].split()) >= 200]
    assert len({row["language"] for row in rows}) >= 10
    assert len(long_rows) >= 25
    assert {row["label"] for row in long_rows} == {0, 1}
    assert sum(row["category"] == "obfuscated" for row in rows) >= 30


def test_base64_of_obfuscated_rows_decodes() -> None:
    """Every base64 run in an obfuscated row decodes to readable text, and there are several."""
    rows = read_rows(SAMPLES[Task.PROMPT_INJECTION])
    runs = [
        run
        for row in rows
        if row["category"] == "obfuscated"
        for run in BASE64_RUN.findall(row["text"])
        if not re.fullmatch(r"[0-9a-fx]+", run)
    ]
    assert len(runs) >= 5
    for run in runs:
        assert base64.b64decode(run, validate=True).decode("utf-8").isprintable(), run


def test_samples_share_no_text_with_the_public_data(shared_data: Path) -> None:
    """No labelled row equals a row of the training pools or of the public test sets."""
    ours = {fold(row["text"]): row["id"] for n in SAMPLES.values() for row in read_rows(n)}
    assert "" not in ours
    files = sorted(shared_data.rglob("*.jsonl.gz"))
    assert files
    shared: set[str] = set()
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            theirs = {fold(json.loads(line)["text"]) for line in lines}
        shared.update(ours[text] for text in ours.keys() & theirs)
    assert shared == set()


def test_chat_log_is_a_plausible_log() -> None:
    """It has 3,000 rows in time order over three days; 25 to 35 % of user messages repeat."""
    rows = read_rows("chat_log_sample.jsonl")
    times = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    messages = [message for row in rows for message in row["messages"]]
    users = [message["content"] for message in messages if message["role"] == "user"]
    repeats = 1 - len(set(users)) / len(users)
    assert len({row["id"] for row in rows}) == len(rows) == 3000
    assert times == sorted(times)
    assert timedelta(days=2) < times[-1] - times[0] <= timedelta(days=3)
    assert {len(row["messages"]) for row in rows} == {1, 2, 3, 4}
    assert {message["role"] for message in messages} == {"system", "user", "assistant", "tool"}
    assert 0.25 <= repeats <= 0.35
    assert (FOLDER / "chat_log_sample.jsonl").stat().st_size < 1_500_000


def test_suite_names_every_sample_once() -> None:
    """The suite points at existing files and at columns that they have."""
    entries = json.loads((FOLDER / "suite.json").read_text(encoding="utf-8"))["datasets"]
    assert {Task(entry["task"]): entry["path"] for entry in entries} == SAMPLES
    for entry in entries:
        assert {entry["text"], entry["label"], entry["slice"]} <= FIELDS


def test_catalogue_entries_are_complete() -> None:
    """Each entry names its task, licence, home, columns and a map on to labels of that task."""
    entries = json.loads((FOLDER / "catalogue.json").read_text(encoding="utf-8"))
    assert len(entries) >= 18
    assert len({entry["name"] for entry in entries}) == len(entries)
    assert {Task(entry["task"]) for entry in entries} == set(Task)
    for entry in entries:
        name, columns, labels = entry["name"], entry["columns"], entry["label_map"]
        known = LABELS[Task.SENTIMENT] if entry["task"] == Task.SENTIMENT else (0, 1)
        assert set(entry) == {
            *("name", "task", "licence", "home", "columns", "label_map", "rows", "note")
        }, name
        assert {"text", "label"} <= set(columns) <= {"text", "label", "slice"}, name
        assert columns["text"], name
        assert labels, name
        assert set(labels.values()) <= set(known), name
        assert ("*" in labels) == (columns["label"] is None), name
        assert entry["rows"] is None or entry["rows"] > 0, name
        assert entry["home"].startswith("https://"), name
        assert entry["licence"].strip(), name
        assert entry["note"].endswith("."), name
