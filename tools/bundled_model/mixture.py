"""Which rows each head of the shared model learns from, and which are held out to judge it.

Hides the pools' file names, the weight of each source and the split. Validation takes whole
sources, and a fixed part of the project's own texts, so that it measures transfer.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path

from shield_engine.errors import DatasetError
from shield_engine.training.compose import ComposedRow, compose_injection, compose_toxicity
from shield_engine.types import LABELS, Task

__all__ = ["HEADS", "HELD_OUT", "MAX_TOKENS", "SOURCE_SHARES", "Mixture", "load_mixture"]

HEADS: Mapping[str, int] = {
    "prompt_injection": 2,
    "toxicity": 2,
    "identity_hate": 2,
    "sentiment": 3,
}
"""Heads and their classes; `identity_hate` learns from sets that count hate only."""

MAX_TOKENS: Mapping[str, int] = {
    "prompt_injection": 256,
    "toxicity": 128,
    "identity_hate": 96,
    "sentiment": 96,
}

SOURCE_TOKENS: Mapping[str, int] = {"bipia_indirect": 512}
"""Sources whose texts are not cut at the head's length: their attacks may stand at the end."""

HELD_OUT: Mapping[str, tuple[str, ...]] = {
    "prompt_injection": (
        "hub_benign_hard_negatives",
        "garak_misc_attacks",
        "self_instruct_427",
        "malignant_paraphrase",
        "malignant_raw_jailbreak",
    ),
    "toxicity": (),
    "identity_hate": ("stormfront",),
    "sentiment": ("vader_amazonReviewSnippets",),
}
"""Sources kept for validation."""

_TELLING_LINE = 40  # a line of so many characters stands in one document only
# An order about the answer is out of place in any document; "How do solar panels work?" may well
# belong there, and teaching it as an attack makes every question suspicious.
_ABOUT_THE_ANSWER = re.compile(
    r"\b(your|the) (response|reply|answer|output|explanation|solution|code|implementation|codebase"
    r"|algorithm|message)\b|\bcode (snippet|excerpt|section|block|extract)"
)
_OTHER_TEXTS = 1800
_PROSE = ("semeval", "vader_nyt", "cr_custrev", "tweeteval_offensive", "toxic_spans")
_HATE_ONLY = ("tweeteval_hate", "stormfront")
SOURCE_SHARES: Mapping[str, float] = {
    "s_labs_train": 0.7,
    "t0_prompts_sample": 0.35,
    "glue_sst2_train": 0.65,
    "hatexplain_preproc": 0.75,
    "toxic_spans_pos": 0.75,
}
"""The share of a source that one pass takes: large, uniform sources would drown the small ones."""

_DAVIDSON_TOXIC = 0.4
# Harmless prompts to an assistant are clean for toxicity too; the pools there are all tweets.
_CLEAN_PROMPTS: Mapping[str, int] = {
    "t0_prompts_sample": 200,
    "awesome_chatgpt_prompts_2026": 200,
    "jackhhao_train": 200,
    "s_labs_train": 600,
    "neuralchemy_core_train": 300,
    "project_benign": 500,
    "project_scenario": 300,
}


@dataclass(frozen=True, slots=True)
class Row:
    """A text, the index of its class and where it comes from."""

    text: str
    label: int
    source: str


@dataclass(frozen=True, slots=True)
class Mixture:
    """Rows by head: to train on, and to judge by."""

    training: Mapping[str, tuple[Row, ...]]
    validation: Mapping[str, tuple[Row, ...]]


def load_mixture(
    pools: Path,
    project: Path | None,
    *,
    seed: int,
    source_shares: Mapping[str, float] | None = None,
) -> Mixture:
    """Read pools and project texts, compose, weigh and split them.

    Args:
        pools: Folder of `injection.jsonl.gz`, `toxicity.jsonl.gz`, `sentiment.jsonl.gz` and
            `harmful_requests.jsonl.gz`.
        project: The folder `datasets/training`; none takes the pools alone.
        seed: Decides what is drawn and composed. The held-out rows do not depend on it.
        source_shares: Share of a source that one pass takes; `SOURCE_SHARES` by default.

    Raises:
        DatasetError: A file is missing or malformed.
    """
    draw = random.Random(seed)  # noqa: S311 - draws are no secret
    training: dict[str, list[Row]] = {head: [] for head in HEADS}
    validation: dict[str, list[Row]] = {head: [] for head in HEADS}
    for head, row in _pool_rows(pools):
        if row.source in HELD_OUT[head] or _is_held_out(row.text):
            validation[head].append(row)
        elif draw.random() < _share_of(row, source_shares):
            training[head].append(row)
    if project is not None:
        _add_project_rows(training, validation, pools, project, draw, seed)
    return Mixture(
        {head: tuple(rows) for head, rows in training.items()},
        {head: tuple(rows) for head, rows in validation.items()},
    )


def _add_project_rows(
    training: dict[str, list[Row]],
    validation: dict[str, list[Row]],
    pools: Path,
    project: Path,
    draw: random.Random,
    seed: int,
) -> None:
    harmful = harmful_requests(pools)
    documents = [
        row.text
        for row in training["prompt_injection"]
        if row.label == 0 and 200 < len(row.text) < 4000
    ]
    orders = [
        order
        for order in hidden_orders(
            [row for row in training["prompt_injection"] if row.source == "bipia_indirect"]
        )
        if _ABOUT_THE_ANSWER.search(order)
    ]
    prose = [
        row.text
        for head in ("toxicity", "sentiment")
        for row in training[head]
        if row.source.startswith(_PROSE) and len(row.text) > _TELLING_LINE
    ]
    prose = draw.sample(prose, min(len(prose), 2 * _OTHER_TEXTS))
    compose = partial(
        compose_injection,
        project,
        harmful_requests=harmful,
        documents=documents,
        orders=orders,
        sentences=prose[_OTHER_TEXTS:],
    )
    composed = compose(seed=seed)
    judged = compose(seed=0, part="validation")
    training["prompt_injection"] += map(_row, composed)
    training["prompt_injection"] += [Row(text, 0, "other_texts") for text in prose[:_OTHER_TEXTS]]
    validation["prompt_injection"] += map(_row, judged)
    training["toxicity"] += map(_row, compose_toxicity(project, seed=seed))
    training["toxicity"] += _clean_prompts(training["prompt_injection"], draw)


def hidden_orders(rows: Sequence[Row]) -> list[str]:
    """Return the orders that were put into documents, found by comparing with the clean ones.

    A document with an order and the same document without it share a beginning and an end; what
    lies between is the order. Rows without a clean counterpart give none.
    """
    clean = [row.text for row in rows if row.label == 0]
    by_line: dict[str, set[int]] = {}
    for number, text in enumerate(clean):
        for line in text.split("\n"):
            if len(line) > _TELLING_LINE:
                by_line.setdefault(line, set()).add(number)
    orders: dict[str, None] = {}
    for row in rows:
        if row.label == 0:
            continue
        counts = Counter(
            number for line in row.text.split("\n") for number in by_line.get(line, ())
        )
        if not counts:
            continue
        twin = clean[counts.most_common(1)[0][0]]
        start = _common(row.text, twin)
        rest, other = row.text[start:][::-1], twin[start:][::-1]
        order = row.text[start : len(row.text) - _common(rest, other)].strip()
        if 10 < len(order) <= len(row.text) - len(twin) + 10:
            orders[order] = None
    return list(orders)


def _common(first: str, second: str) -> int:
    """Return how many characters two texts share at their beginning."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    )


def harmful_requests(pools: Path) -> list[str]:
    """Return the pool of requests for harm; it has no labels."""
    return [row["text"] for row in _read(pools / "harmful_requests.jsonl.gz")]


def _pool_rows(pools: Path) -> Iterable[tuple[str, Row]]:
    for name, task in (
        ("injection", Task.PROMPT_INJECTION),
        ("toxicity", Task.TOXICITY),
        ("sentiment", Task.SENTIMENT),
    ):
        names = {label: index for index, label in enumerate(LABELS[task])} | {0: 0, 1: 1}
        for record in _read(pools / f"{name}.jsonl.gz"):
            row = Row(record["text"], names[record["label"]], record["source"])
            is_hate = task is Task.TOXICITY and row.source.startswith(_HATE_ONLY)
            yield ("identity_hate" if is_hate else task.value), row


def _share_of(row: Row, source_shares: Mapping[str, float] | None) -> float:
    if row.source.startswith("davidson") and row.label == 1:
        return _DAVIDSON_TOXIC
    return (SOURCE_SHARES if source_shares is None else source_shares).get(row.source, 1.0)


def _is_held_out(text: str) -> bool:
    """Whether a pool row serves to judge: 2 of 100, whatever the seed."""
    return zlib.crc32(text.encode("utf-8", "replace")) % 100 < 2


def _clean_prompts(rows: Sequence[Row], draw: random.Random) -> list[Row]:
    benign = [row for row in rows if row.label == 0]
    chosen = []
    for source, count in _CLEAN_PROMPTS.items():
        members = [row for row in benign if row.source == source]
        chosen += draw.sample(members, min(count, len(members)))
    return [Row(row.text, 0, "clean_prompts") for row in chosen]


def _row(row: ComposedRow) -> Row:
    return Row(row.text, row.label, row.source)


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON Lines: {error}") from error
