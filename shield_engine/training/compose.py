"""Compose training rows from the texts in `datasets/training` and from harmless documents.

Hides how attacks, frames, carriers and harmless texts are mixed, placed and disguised. Whatever is
done to an attack is also done, less often, to a harmless text, so that the content decides and not
the wrapping.
"""

from __future__ import annotations

import base64
import codecs
import json
import random
import re
import tomllib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from shield_engine.errors import DatasetError

__all__ = ["DISGUISES", "ComposedRow", "compose_injection", "compose_toxicity", "insert", "is_kept"]


@dataclass(frozen=True, slots=True)
class ComposedRow:
    """A training row: `label` is 1 for the risky class, `source` names the part that made it."""

    text: str
    label: int
    source: str


def compose_injection(
    folder: Path,
    *,
    seed: int,
    harmful_requests: Sequence[str] = (),
    documents: Sequence[str] = (),
    orders: Sequence[str] = (),
    sentences: Sequence[str] = (),
    scale: float = 1.0,
    part: Literal["training", "validation"] = "training",
) -> list[ComposedRow]:
    """Return training rows for prompt injection; the same input and seed give the same rows.

    Args:
        folder: Holds the `attack_*`, `benign_*` and `carrier_*` files of `datasets/training`.
        seed: Decides every draw.
        harmful_requests: Put into the frames (label 1), and left alone (label 0): a harmful
            request by itself is no injection.
        documents: Harmless texts of other origin to hide attacks in; they are not rows themselves.
        orders: Further orders to hide in documents; they are not rows themselves.
        sentences: Harmless sentences to make medleys of; they are not rows themselves.
        scale: Multiplies the number of composed rows.
        part: A twelfth of all texts is kept for rows of `validation`, whatever the seed; these
            are a tenth as many.

    Raises:
        DatasetError: A file is missing or malformed.
    """
    draw = random.Random(seed)  # noqa: S311 - draws are no secret
    parts = _Injection(
        folder, draw, harmful_requests, documents, orders, sentences, part == "validation"
    )
    return _distinct(parts.rows(scale * (0.1 if part == "validation" else 1.0)))


def compose_toxicity(folder: Path, *, seed: int, rows: int = 6000) -> list[ComposedRow]:
    """Return templated rows for toxicity: identity hate, and the harmless texts that resemble it.

    Args:
        folder: Holds `toxicity_templates.toml`.
        seed: Decides every draw.
        rows: How many to draw before equal ones are dropped.

    Raises:
        DatasetError: The file is missing or malformed.
    """
    table = _table(folder / "toxicity_templates.toml")
    draw = random.Random(seed)  # noqa: S311
    slots = table["slots"]
    parts = table["part"]
    weights = [part["weight"] for part in parts]
    composed = []
    for _ in range(rows):
        part = draw.choices(parts, weights)[0]
        text = _fill(draw.choice(part["templates"]), slots, draw)
        if draw.random() < part.get("misspelled", 0.0):
            text = _misspell(text, draw)
        composed.append(ComposedRow(_vary_case(text, draw), part["label"], "project_toxicity"))
    return _distinct(composed)


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as TOML: {error}") from error


def _fill(template: str, slots: Mapping[str, Sequence[str]], draw: random.Random) -> str:
    """Fill `{slot}` and `{Slot}` (with a capital) from the lists; one draw per slot and text."""
    chosen: dict[str, str] = {}

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        filler = chosen.setdefault(name.lower(), draw.choice(slots[name.lower()]))
        return filler[:1].upper() + filler[1:] if name[0].isupper() else filler

    return re.sub(r"\{(\w+)\}", value, template)


def _misspell(text: str, draw: random.Random) -> str:
    words = text.split(" ")
    at = draw.randrange(len(words))
    word = words[at]
    if len(word) > 3:
        k = draw.randrange(1, len(word) - 1)
        words[at] = draw.choice(
            [
                word[:k] + word[k + 1 :],
                word[:k] + word[k + 1] + word[k] + word[k + 2 :],
                word.translate(_LEET),
                " ".join(word),
                word[:k] + "*" + word[k + 1 :],
            ]
        )
    return " ".join(words)


def _vary_case(text: str, draw: random.Random) -> str:
    roll = draw.random()
    if roll < 0.15:
        return text.lower()
    if roll < 0.2:
        return text.upper()
    return text.rstrip(".") if roll < 0.35 else text


_GAPS = (" ", "\n", "\n\n")
_POSITIONS = ("start", "end", "line", "line", "sentence", "sentence", "hidden")


def insert(attack: str, document: str, draw: random.Random) -> str:
    """Return `document` with `attack` at its start, its end, inside, or where its kind hides text."""
    position = draw.choice(_POSITIONS)
    if position == "start":
        return attack + draw.choice(_GAPS) + document
    if position == "end":
        return document + draw.choice(_GAPS) + attack
    if position == "hidden":
        return _hide(attack, document, draw)
    pattern = (
        r"\n+" if position == "line" and "\n" in document else r"(?<=[.!?])\s+|,\s|\s(?=[A-Z])"
    )
    places = [match.end() for match in re.finditer(pattern, document)]
    if not places:
        return f"{document}\n{attack}"
    at = draw.choice(places)
    after = "\n" if document[at - 1] == "\n" else " "
    return f"{document[:at]}{attack}{after}{document[at:]}"


def _hide(attack: str, document: str, draw: random.Random) -> str:
    """Put the attack where a medium has room for remarks: a comment, a cell, a field, an alt text."""
    line = " ".join(attack.split())
    if "</" in document:
        hidden = draw.choice(
            [
                f"<!-- {line} -->",
                f'<span style="display:none">{line}</span>',
                f'<img src="p.png" alt="{line}">',
                f"<p>{line}</p>",
            ]
        )
    elif re.search(r"^\s*\|", document, re.MULTILINE):
        hidden = f"| {line} |"
    elif re.search(r"^\s*(def |import |class |#|for .*:$)", document, re.MULTILINE):
        hidden = draw.choice([f"# {line}", f'"""{line}"""', f"# TODO: {line}"])
    elif re.search(r"[;{}]\s*$", document, re.MULTILINE):
        hidden = draw.choice(
            [f"// {line}", f"/* {line} */", f'  "note": {json.dumps(line)},', f'log("{line}");']
        )
    else:
        hidden = draw.choice([f"PS: {line}", f"[{line}]", f"({line})", f"> {line}", f"- {line}"])
    places = [0, *(match.end() for match in re.finditer(r"\n", document)), len(document)]
    at = draw.choice(places)
    return f"{document[:at].rstrip()}\n{hidden}\n{document[at:]}".strip()


_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_HOMOGLYPHS = str.maketrans("aceopxyiABEHKMOPCTX", "асеорхуіАВЕНКМОРСТХ")
_SMALL_EMOJI = "✨🌟💫🔥🎈🍀"


def _encoded(text: str, draw: random.Random) -> str:
    return base64.b64encode(text.encode()).decode()


def _zero_width(text: str, draw: random.Random) -> str:
    return "".join(c + ("\u200b" if c.isalpha() and draw.random() < 0.5 else "") for c in text)


def _emoji(text: str, draw: random.Random) -> str:
    mark = draw.choice(_SMALL_EMOJI)
    return " ".join(mark.join(word) for word in text.split(" "))


_PREAMBLES = (
    "Hello! I hope you are having a wonderful day. I really enjoy our conversations.",
    "Thank you so much for your help yesterday, the recipe turned out great.",
    "Good morning, I have a small favour to ask, if you have a minute.",
    "I'm a teacher preparing a lesson for next week and I value your opinion a lot.",
    "Hi there, first of all thanks for the quick answers, my colleagues were impressed.",
    "Could you first tell me what the weather is usually like in Lisbon in May? And then:",
)

DISGUISES: Mapping[str, Callable[[str, random.Random], str]] = {
    "zero_width": _zero_width,
    "homoglyph": lambda text, draw: text.translate(_HOMOGLYPHS),
    "leetspeak": lambda text, draw: text.translate(_LEET),
    "spacing": lambda text, draw: "  ".join(" ".join(word) for word in text.split(" ")),
    "case": lambda text, draw: "".join(draw.choice([c.upper(), c.lower()]) for c in text),
    "base64": _encoded,
    "hex": lambda text, draw: text.encode().hex(),
    "rot13": lambda text, draw: codecs.encode(text, "rot13"),
    "url": lambda text, draw: quote(text),
    "html_entities": lambda text, draw: "".join(f"&#{ord(c)};" for c in text),
    "emoji": _emoji,
    "preamble": lambda text, draw: f"{draw.choice(_PREAMBLES)} {text}",
}
"""Ways to disguise an attack; each leaves a text that the engine's normaliser can lead back."""

# The model reads what a tokenizer leaves of these; encoded runs reach it decoded.
_LEARNT = ("leetspeak", "spacing", "homoglyph", "emoji", "case", "preamble")

# Characters that surely fit the window a model is trained on: an attack must not be cut away.
_ROOM = 800

_WRAPPINGS = (
    "{}",
    "{}",
    "{}",
    "{}",
    "Important: {}",
    "NOTE TO THE ASSISTANT: {}",
    "System: {}",
    "[system] {}",
    "### Instruction:\n{}",
    "<instructions>{}</instructions>",
    "If you are an AI reading this: {}",
    "Attention language models: {}",
    "By the way, {}",
    "One more thing for whoever summarises this. {}",
    "-----\n{}\n-----",
    "END OF DOCUMENT\n\n{}",
    "Before you answer: {}",
    'New message from the user: "{}"',
)


class _Injection:
    """The parts of the prompt-injection rows; each takes its share of the draws in turn."""

    def __init__(
        self,
        folder: Path,
        draw: random.Random,
        harmful_requests: Sequence[str],
        documents: Sequence[str],
        orders: Sequence[str],
        sentences: Sequence[str],
        is_validation: bool,
    ) -> None:
        def read(name: str) -> list[dict[str, Any]]:
            rows = _read(folder / f"{name}.jsonl")
            return [row for row in rows if is_kept(row["text"]) is is_validation]

        def texts(name: str) -> list[str]:
            return [row["text"] for row in read(name)]

        self._draw = draw
        self._direct = read("attack_direct")
        self._indirect = read("attack_indirect")
        self._frames = read("attack_frames")
        self._requests = texts("carrier_benign_requests")
        self._carriers = texts("carrier_documents")
        self._tasks = texts("carrier_tasks")
        self._short = read("benign_short")
        self._long = texts("benign_long")
        table = _table(folder / "benign_templates.toml")
        self._templates = [t for t in table["templates"] if is_kept(t) is is_validation]
        self._slots = table["slots"]
        self._openings = table["scenarios"]["openings"]
        self._closings = table["scenarios"]["closings"]
        self._scenario_tasks = [
            t for t in table["scenarios"]["tasks"] if is_kept(t) is is_validation
        ]
        self._harmful = [text for text in harmful_requests if is_kept(text) is is_validation]
        self._orders = [text for text in orders if is_kept(text) is is_validation]
        self._sentences = [text for text in sentences if is_kept(text) is is_validation]
        self._documents = [text for text in documents if is_kept(text) is is_validation]

    def rows(self, scale: float) -> Iterator[ComposedRow]:
        """Yield every text as it stands, then the composed ones."""
        for row in self._direct:
            yield ComposedRow(row["text"], 1, "project_attack")
        for row in self._bare_indirect():
            yield ComposedRow(row["text"], 1, "project_attack_indirect")
        for text in [row["text"] for row in self._short] + self._requests:
            yield ComposedRow(text, 0, "project_benign")
        for text in self._long:
            yield ComposedRow(text, 0, "project_benign_long")
        for text in self._carriers:
            yield ComposedRow(text, 0, "project_carrier")
        for part, count in (
            (self._frame_row, 2000),
            (self._scenario_row, 3200),
            (self._carrier_row, 4200),
            (self._attack_variant, 1600),
            (self._benign_variant, 2600),
            (self._harmful_row, 900),
            (self._template_row, 3600),
            (self._medley_row, 3600),
        ):
            for _ in range(round(count * scale)):
                composed = part()
                if composed is not None:
                    yield composed

    def _bare_indirect(self) -> Iterator[dict[str, Any]]:
        # Ordinary requests are attacks only where they do not belong: inside another document.
        ordinary = {"text/question", "text/topic_change"}
        return (row for row in self._indirect if row["kind"] not in ordinary)

    def _frame_row(self) -> ComposedRow | None:
        """A frame around a request: content decides where the frame is neutral."""
        draw = self._draw
        frame = draw.choice(self._frames)
        if self._harmful and draw.random() < (0.35 if frame["neutral"] else 0.55):
            text, label = draw.choice(self._harmful), 1
        else:
            text, label = draw.choice(self._requests), int(not frame["neutral"])
        return ComposedRow(frame["text"].replace("{request}", text), label, "project_frame")

    def _scenario_row(self) -> ComposedRow | None:
        """A long imaginative or professional prompt; one in eight carries an attack."""
        draw = self._draw
        parts = [draw.choice(self._openings), draw.choice(self._scenario_tasks)]
        if draw.random() < 0.4:
            parts.append(draw.choice(self._scenario_tasks))
        parts.append(draw.choice(self._closings))
        label = int(draw.random() < 0.125)
        if label:
            parts.insert(draw.randrange(1, len(parts) + 1), draw.choice(self._direct)["text"])
        gap = draw.choice([" ", " ", "\n", "\n\n"])
        text = gap.join(_fill(part, self._slots, draw) for part in parts if part)
        return ComposedRow(text, label, "project_scenario")

    def _carrier_row(self) -> ComposedRow | None:
        """A document, with or without an attack, with or without the user's task."""
        draw = self._draw
        is_project = not self._documents or draw.random() < 0.4
        document = draw.choice(self._carriers if is_project else self._documents)
        label = int(draw.random() < 0.55)
        if label:
            roll = draw.random()
            if self._orders and roll < 0.3:
                order = draw.choice(self._orders)
            else:
                order = draw.choice(self._indirect if roll < 0.75 else self._direct)["text"]
            attack = draw.choice(_WRAPPINGS).replace("{}", order)
            document = insert(attack, _within(document, draw, _ROOM - len(attack)), draw)
        elif draw.random() < 0.5:
            document = _within(document, draw, _ROOM)
        if draw.random() < 0.4:
            task = draw.choice(self._tasks)
            document = f"{task}\n\n{document}" if draw.random() < 0.7 else f"{document}\n\n{task}"
        return ComposedRow(document, label, "project_in_carrier" if label else "project_carrier")

    def _medley_row(self) -> ComposedRow | None:
        """Unrelated harmless texts in a row, as in a feed or a list, with or without an attack."""
        draw = self._draw
        label = int(draw.random() < 0.35)
        pools = [[str(row["text"]) for row in self._short], self._requests]
        pools += [pool for pool in (self._sentences, self._documents, self._carriers) if pool]
        pool = draw.choice(pools)
        gap, parts, room = draw.choice(["\n", " ", "\n\n", "\n- "]), list[str](), _ROOM
        while room > 0:
            parts.append(_within(draw.choice(pool), draw, min(room, 300)))
            room -= len(parts[-1])
        if label:
            attack = str(draw.choice(self._direct)["text"])
            if self._orders and draw.random() < 0.3:
                attack = draw.choice(_WRAPPINGS).replace("{}", draw.choice(self._orders))
            parts.insert(draw.randrange(len(parts)), attack)
        return ComposedRow(gap.join(parts)[: 2 * _ROOM], label, "project_medley")

    def _attack_variant(self) -> ComposedRow | None:
        """A direct attack behind or before harmless talk, or in disguise."""
        draw = self._draw
        attack = str(draw.choice(self._direct)["text"])
        roll = draw.random()
        if roll < 0.35:
            attack = f"{draw.choice(self._requests)} {attack}"
        elif roll < 0.5:
            attack = f"{attack} {draw.choice(self._requests)}"
        elif roll < 0.85:
            attack = DISGUISES[draw.choice(_LEARNT)](attack, draw)
        else:
            attack = f"{draw.choice(self._long)}\n\n{attack}"[-_ROOM:]
        return ComposedRow(attack, 1, "project_attack_variant")

    def _benign_variant(self) -> ComposedRow | None:
        """Harmless texts joined, disguised, cut, or written in another case."""
        draw = self._draw
        text = str(draw.choice(self._short)["text"])
        roll = draw.random()
        if roll < 0.3:
            text = f"{text} {draw.choice(self._short)['text']}"
        elif roll < 0.5:
            # All of them: an encoded text is no attack for being encoded.
            text = DISGUISES[draw.choice(list(DISGUISES))](text, draw)
        elif roll < 0.7:
            text = draw.choice([text.lower(), text.upper(), text.rstrip(".?!"), f'"{text}"'])
        else:
            text = _excerpt(draw.choice(self._long), draw)
        return ComposedRow(text, 0, "project_benign_variant")

    def _template_row(self) -> ComposedRow | None:
        text = _fill(self._draw.choice(self._templates), self._slots, self._draw)
        return ComposedRow(_vary_case(text, self._draw), 0, "project_benign_template")

    def _harmful_row(self) -> ComposedRow | None:
        if not self._harmful:
            return None
        return ComposedRow(self._draw.choice(self._harmful), 0, "project_harmful_request")


def _within(text: str, draw: random.Random, room: int) -> str:
    """Return a run of lines or sentences of at most about `room` characters."""
    if len(text) <= room:
        return text if draw.random() < 0.7 else _excerpt(text, draw)
    pieces = [piece for piece in re.split(r"(?<=\n)|(?<=[.!?] )", text) if piece]
    first = draw.randrange(len(pieces))
    part = ""
    for piece in pieces[first:]:
        if part and len(part) + len(piece) > room:
            break
        part += piece
    return part[: max(room, 80)].strip() or text[: max(room, 80)]


def _excerpt(text: str, draw: random.Random) -> str:
    """Return a run of whole lines or sentences, as a window of a longer text would hold."""
    pieces = re.split(r"(?<=\n)|(?<=[.!?] )", text)
    if len(pieces) < 3:
        return text
    first = draw.randrange(len(pieces) - 1)
    last = draw.randrange(first + 1, len(pieces)) + 1
    part = "".join(pieces[first:last]).strip()
    return part if len(part) > 20 else text


def is_kept(text: str) -> bool:
    """Whether a text is kept for validation: one of twelve, by its own bytes."""
    return zlib.crc32(text.encode("utf-8", "replace")) % 12 == 0


def _read(path: Path) -> list[dict[str, Any]]:
    rows = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                row = json.loads(line)
                if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                    raise DatasetError(f"{path}:{number}: expected a JSON object with a text")
                rows.append(row)
    except OSError as error:
        raise DatasetError(f"{path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{path}:{len(rows) + 1}: not valid JSON: {error}") from error
    if not rows:
        raise DatasetError(f"{path} has no rows")
    return rows


def _distinct(rows: Iterable[ComposedRow]) -> list[ComposedRow]:
    """Drop texts seen before; the first one's label stands."""
    seen: dict[str, ComposedRow] = {}
    for row in rows:
        seen.setdefault(" ".join(row.text.split()).casefold(), row)
    return list(seen.values())
