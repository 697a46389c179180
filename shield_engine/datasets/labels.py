"""From the label values of a file to the classes of a task.

Hides the spellings people use. A value that is not known is never guessed at: the caller gets
`None` and blocks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from shield_engine.errors import ConfigError
from shield_engine.types import LABELS, Task

__all__ = ["class_of", "default_label_map", "label_key", "parse_label_map"]

_SYNONYMS: Mapping[Task, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        Task.PROMPT_INJECTION: (
            (
                *("benign", "safe", "legit", "legitimate", "clean", "normal", "harmless", "ok"),
                *("not_injection", "no_injection", "non_injection", "not_jailbreak"),
            ),
            (
                *("injection", "prompt_injection", "jailbreak", "jailbreaking", "attack"),
                *("malicious", "unsafe", "harmful", "adversarial"),
                *("indirect_injection", "direct_injection"),
            ),
        ),
        Task.TOXICITY: (
            (
                *("clean", "non_toxic", "nontoxic", "not_toxic", "benign", "safe", "normal"),
                *("harmless", "non_hateful", "not_hateful", "non_hate", "not_hate"),
                *("not_offensive", "non_offensive", "neither", "civil", "ok"),
            ),
            (
                *("toxic", "hate", "hateful", "hatespeech", "hate_speech", "offensive", "abusive"),
                *("insult", "threat", "obscene", "identity_hate", "severe_toxic", "unsafe"),
                "harmful",
            ),
        ),
        Task.SENTIMENT: (("negative", "neg"), ("neutral", "neu"), ("positive", "pos")),
    }
)
"""Spellings of each class, by class index."""

_BINARY = MappingProxyType({"0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1})
_WHOLE_FLOAT = re.compile(r"([+-]?\d+)\.0+")


def label_key(value: str) -> str:
    """Return the form in which label values are compared.

    Case, outer spaces, and hyphens or spaces for underscores do not matter, nor does the `.0` that
    a spreadsheet adds to a whole number.
    """
    key = value.strip().casefold()
    if whole := _WHOLE_FLOAT.fullmatch(key):
        return whole[1]
    return key if key.startswith("-") else re.sub(r"[\s\-]+", "_", key)


def default_label_map(task: Task) -> dict[str, int]:
    """Return the label values that are understood without any flag, as value to class index.

    Numbers are left out for sentiment: 0/1 and 0/1/2 files disagree on what 1 means.
    """
    known = {name: index for index, names in enumerate(_SYNONYMS[task]) for name in names}
    known.update({name: index for index, name in enumerate(LABELS[task])})
    return known if task is Task.SENTIMENT else {**known, **_BINARY}


def parse_label_map(text: str | Mapping[str, object], task: Task) -> dict[str, int]:
    """Read `"1=attack,0=benign"`, or a mapping of the same, as file value to class index.

    The left side is the value in the file. The right side is a class name of the task, its index,
    or a common synonym.

    Raises:
        ConfigError: A pair cannot be read, the right side is unknown, or a value is given twice.
    """
    if isinstance(text, str):
        pairs: list[tuple[str, object]] = []
        for part in filter(str.strip, re.split(r"[,;]", text)):
            value, sign, name = part.rpartition("=")
            if not sign:
                raise ConfigError(
                    f"label map: {part.strip()!r} is no pair; write VALUE=CLASS, "
                    f"such as 1={LABELS[task][1]},0={LABELS[task][0]}."
                )
            pairs.append((value, name))
    else:
        pairs = [(str(value), name) for value, name in text.items()]
    if not pairs:
        raise ConfigError(
            f"label map: it is empty; write VALUE=CLASS pairs, such as "
            f"1={LABELS[task][1]},0={LABELS[task][0]}."
        )
    indexes: dict[str, int] = {}
    for value, name in pairs:
        key = value.strip()
        index = _class_index(key, name, task)
        if indexes.setdefault(key, index) != index:
            raise ConfigError(
                f"label map: {key!r} is given twice, as {LABELS[task][indexes[key]]!r} and as "
                f"{LABELS[task][index]!r}; keep one."
            )
    return indexes


def class_of(value: str, label_map: Mapping[str, int]) -> int | None:
    """Return the class index of a label value, or `None` if the map does not know it.

    `label_map` is tried as it is written first, then by `label_key`.
    """
    exact = label_map.get(value)
    return label_map.get(label_key(value)) if exact is None else exact


def _class_index(value: str, name: object, task: Task) -> int:
    labels = LABELS[task]
    key = label_key(str(name))
    if isinstance(name, bool):
        key = str(int(name))
    known = default_label_map(task)
    if key in known:
        return known[key]
    if key.isdecimal() and int(key) < len(labels):
        return int(key)
    choices = ", ".join(f"{label} (or {index})" for index, label in enumerate(labels))
    raise ConfigError(
        f"label map: {str(name).strip()!r} (for the value {value!r}) is no class of {task}; "
        f"choose from {choices}."
    )
