"""Undoes the ways a text is disguised, and remembers where every character came from.

The module hides two things: which disguises are known, and how a span of a rewritten text leads
back to the text as given. A text becomes one or more views. The first is the text with only the
safe, character-level foldings (compatibility forms, accents, look-alikes, invisible characters);
the others exist only where something was found: letters put back together, escapes resolved,
encoded runs decoded. Rules run over every view, so a guess that is wrong costs a little time and
no accuracy.

All work is linear in the length of the text: each pattern consumes what it looks at, views of one
kind are joined into one, and decoding stops at a depth of three.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from string import ascii_letters

import re2

from shield_engine.heuristics.decoding import (
    BASE32,
    BASE64,
    BINARY,
    ESCAPE,
    HEX,
    from_base32,
    from_base64,
    from_binary,
    from_hex,
    readable,
    unescape,
)
from shield_engine.hostile_text import INVISIBLE

__all__ = [
    "NORMALIZER_VERSION",
    "Normalized",
    "Normalizer",
    "Undone",
    "View",
    "hidden_readings",
    "normalize",
]

NORMALIZER_VERSION = "6"
"""Part of every heuristic version: raise it whenever a view of some text changes."""

_Note = Callable[[str, int, int], None]

_MAX_DEPTH = 3
_LONGEST_FOLD = (
    6  # one code point of NFKC grows to 18 characters, a million of them to as many pages
)


# Words an attack is written with; they show that a rotated, reversed or glued run is text.
# Six letters or more, so that neither their rotation nor their reversal is a word somewhere.
_TELLTALES = (
    "admin",
    "assistant",
    "bypass",
    "disregard",
    "everything",
    "forget",
    "guidelines",
    "ignore",
    "instruction",
    "jailbreak",
    "override",
    "password",
    "previous",
    "prompt",
    "reveal",
    "secret",
    "system",
    "unrestricted",
)
_GLUE = (
    "all",
    "and",
    "above",
    "developer",
    "earlier",
    "follow",
    "hidden",
    "initial",
    "instructions",
    "mode",
    "my",
    "now",
    "of",
    "please",
    "prior",
    "print",
    "repeat",
    "restrictions",
    "rules",
    "show",
    "the",
    "this",
    "you",
    "your",
)

_MARKS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"

# Those that no eye tells from the Latin letter; a word made of these alone may be forged.
_TWINS = frozenset("асеорхуіјѕһԁԛԝӏοναɡ")
# Lower case only: folding has already taken the case of what is not ASCII.
_LOOKALIKES = {
    lookalike: letter
    for letter, lookalikes in {
        "a": "аαɑᴀӓǝə", "b": "вьбβʙ", "c": "сϲᴄ", "d": "ԁᴅժ", "e": "еєεзᴇё", "f": "ғϝք", "g": "ԍɡɢց",
        "h": "һнʜհ", "i": "іїιɩɪӏ", "j": "јϳᴊյ", "k": "кκᴋ", "l": "ʟι", "m": "мᴍ", "n": "пηиɴոռй",
        "o": "оοσօᴏө", "p": "рρᴘ", "q": "ԛգ", "r": "гʀᴦ", "s": "ѕꜱς", "t": "тτᴛ", "u": "υսᴜц",
        "v": "νѵᴠ", "w": "ѡԝωᴡш", "x": "хχ", "y": "уγүʏ", "z": "ᴢʐζ",
    }.items()
    for lookalike in lookalikes
}  # fmt: skip

_FOLDS = {
    "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O",
    "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th",
    "ħ": "h", "Ħ": "H", "ŧ": "t", "Ŧ": "T", "ı": "i", "İ": "I", "ſ": "s",
    "‘": "'", "’": "'", "‚": "'", "‛": "'", "′": "'", "`": "'", "´": "'",
    "“": '"', "”": '"', "„": '"', "‟": '"', "«": '"', "»": '"', "″": '"',
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-",
    "\u0085": "\n", "\u2028": "\n", "\u2029": "\n", "\x0b": " ",
    "。": ".", "、": ",", "…": "...",
}  # fmt: skip

_LEET = str.maketrans(
    {
        "0": "o", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g", "6": "b",
        "@": "a", "$": "s", "!": "i", "|": "l", "€": "e", "£": "l", "¢": "c", "¥": "y", "+": "t",
    }
)  # fmt: skip

# Colours and cursor moves of a terminal, titles of its window, and what backspaces erase.
_TERMINAL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z^_])|(?P<erased>\x08+)"
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_INVISIBLE_RUN = re.compile(f"[{INVISIBLE}]+")
_HIDDEN_IN_WORD = re.compile(f"(?<=[A-Za-z])[{INVISIBLE}]+(?=[A-Za-z])")
_BIDI_OVERRIDE = re.compile("[\u202d\u202e]")
_MARK = re.compile(f"[{_MARKS}]")
# A flag such as Scotland's is a black flag and up to seven tag characters.
_TAG_RUN = re.compile("\U0001f3f4[\U000e0020-\U000e007f]{1,7}|([\U000e0020-\U000e007f]{2,})")
_SELECTOR_RUN = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_STYLED_WORD = re.compile(
    "[\U0001d400-\U0001d7ff\u24b6-\u24e9\U0001f130-\U0001f189\uff21-\uff3a\uff41-\uff5a]{3,}"
)
_SYMBOL_IN_WORD = re.compile("(?<=[A-Za-z])[\u2190-\u2bff\U0001f000-\U0001faff]+(?=[A-Za-z])")
_MARKUP_IN_WORD = re.compile(
    r"(?<=[A-Za-z])(?:\*\*|~~|<!--[^<>\n]{0,40}-->"
    r"|</?(?:b|em|font|i|mark|s|small|span|strong|sub|sup|u|wbr)>)(?=[A-Za-z])"
)
_EAST_ASIAN = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_WORD = re.compile(r"[^\W_]+")
_OTHER_SCRIPT = re.compile(r"[Ͱ-ԯ԰-֏]")

_TOKEN = re.compile(r"[A-Za-z0-9@$!|€£¢¥+]+")
_SPACED = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z0-9@$!](?:[ \t._*/|,~-][A-Za-z0-9@$!]){3,}(?![A-Za-z0-9])"
)
_REPEATED = re.compile(r"([A-Za-z])\1{2,}")
_GLUED = re.compile(r"[A-Za-z]{12,}")
_KNOWN_WORD = re.compile(
    "|".join(sorted({*_TELLTALES, *_GLUE}, key=len, reverse=True)), re.IGNORECASE
)
_ROTATED = re.compile(
    "|".join(codecs.encode(w, "rot13") for w in _TELLTALES if len(w) > 5), re.IGNORECASE
)
_REVERSED = re.compile("|".join(w[::-1] for w in _TELLTALES if len(w) > 5), re.IGNORECASE)

# One linear pass that lets ordinary ASCII text through: nothing below can find anything in a text
# that this does not match.
_SUSPICIOUS = "|".join(
    (
        r"%[0-9A-Fa-f]{2}",
        r"\\x[0-9A-Fa-f]{2}",
        r"\\u[0-9A-Fa-f]{4}",
        r"&[#A-Za-z][0-9A-Za-z]{1,30};",
        r"[A-Za-z0-9+/_-]{16}",
        f"(?i:{_KNOWN_WORD.pattern})[A-Za-z]*(?i:{_KNOWN_WORD.pattern})",
        r"(?:[0-9A-Fa-f]{2}[ :,-](?:0x)?){7}",
        r"[01]{8} [01]{8}",
        r"[A-Za-z][0-9@$!|+]+[A-Za-z]",
        r"\b[0-9][A-Za-z]{2}",
        r"(?:^|[^0-9A-Za-z_])[@$][A-Za-z]{2}",
        r"[A-Za-z][0-9$@]\b",
        r"[A-Za-z]\$\$",
        r"(?:[A-Za-z0-9@$!][ \t._*/|,~-]){3}[A-Za-z0-9@$!](?:[^A-Za-z0-9]|\z)",
        r"[A-Za-z]_",
        r"(?i:" + "|".join(c * 3 for c in "abcdefghijklmnopqrstuvwxyz") + ")",
        f"(?i:{_ROTATED.pattern})",
        f"(?i:{_REVERSED.pattern})",
        r"\x0b",
        r"[A-Za-z](?:\*\*|~~|<!--|</?[a-z]{1,6}>)[A-Za-z<]",
        r"[A-Za-z]<!--",
    )
)


@dataclass(frozen=True, slots=True)
class Undone:
    """One disguise that was removed, as a span of the text as given."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a text and the way back to the text as given.

    Attributes:
        text: The reading.
        kind: `text` for the first view, else the disguise that was undone to get here.
        parent: The view this one was made from; `None` where that is the text as given.
    """

    text: str
    kind: str
    parent: View | None = None
    is_reversed: bool = False
    _view_starts: array[int] = field(default_factory=lambda: array("q"))
    _view_ends: array[int] = field(default_factory=lambda: array("q"))
    _source_starts: array[int] = field(default_factory=lambda: array("q"))
    _source_ends: array[int] = field(default_factory=lambda: array("q"))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where `text[start:end]` stands in the text as given.

        A character that stands for a longer run (a ligature, an encoded run) leads to all of it.
        """
        if end <= start:
            first = self._source(start)[0] if start < len(self.text) else self._source_length()
            last = first
        else:
            first, last = self._source(start)[0], self._source(end - 1)[1]
        if self.is_reversed:
            first, last = len(self.text) - last, len(self.text) - first
        return (first, last) if self.parent is None else self.parent.span(first, last)

    @property
    def is_mostly_disguised(self) -> bool:
        """True if a fifth of the parent's characters, in several places, is written otherwise."""
        rewritten = sum(self._source_ends) - sum(self._source_starts)
        places = len(self._source_starts)
        return rewritten >= _RESPELLED_SHARE * self._source_length() and places >= _RESPELLED_PLACES

    def _source(self, position: int) -> tuple[int, int]:
        edit = bisect_right(self._view_starts, position) - 1
        if edit < 0:
            return position, position + 1
        if position < self._view_ends[edit]:
            return self._source_starts[edit], self._source_ends[edit]
        moved = position - self._view_ends[edit] + self._source_ends[edit]
        return moved, moved + 1

    def _source_length(self) -> int:
        if not self._view_ends:
            return len(self.text)
        return len(self.text) - self._view_ends[-1] + self._source_ends[-1]


@dataclass(frozen=True, slots=True)
class Normalized:
    """A text as its views, the plainest first, and what was undone on the way."""

    views: tuple[View, ...]
    undone: tuple[Undone, ...] = ()

    @property
    def text(self) -> str:
        """The first view: safe foldings only."""
        return self.views[0].text

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where `text[start:end]` stands in the text as given."""
        return self.views[0].span(start, end)


def _rewrite(
    text: str, kind: str, changes: Iterable[tuple[int, int, str]], parent: View | None
) -> View:
    """Return `text` with each `(start, end, replacement)` made, in ascending order."""
    pieces: list[str] = []
    view_starts, view_ends = array("q"), array("q")
    source_starts, source_ends = array("q"), array("q")
    position = length = 0
    for start, end, replacement in changes:
        pieces += (text[position:start], replacement)
        length += start - position
        view_starts.append(length)
        length += len(replacement)
        view_ends.append(length)
        source_starts.append(start)
        source_ends.append(end)
        position = end
    pieces.append(text[position:])
    return View(
        "".join(pieces), kind, parent, False, view_starts, view_ends, source_starts, source_ends
    )


def _extract(kind: str, runs: Iterable[tuple[int, int, str]], parent: View | None) -> View:
    """Return the decoded runs alone, one a line, each leading back to the whole of its run."""
    pieces: list[str] = []
    columns = array("q"), array("q"), array("q"), array("q")
    length = 0
    for start, end, decoded in runs:
        piece = decoded + "\n"
        for column, value in zip(columns, (length, length + len(piece), start, end), strict=True):
            column.append(value)
        pieces.append(piece)
        length += len(piece)
    return View("".join(pieces), kind, parent, False, *columns)


@lru_cache(maxsize=8192)
def _fold(char: str) -> str:
    """Return a character without compatibility form, accent, or (outside ASCII) case."""
    if char in _FOLDS:
        return _FOLDS[char]
    folded = []
    for part in unicodedata.normalize("NFKC", char):
        base = unicodedata.normalize("NFD", part)[0]
        if part.isascii() or base.isascii():
            folded.append(_FOLDS.get(part, base))
        else:
            folded.append(_FOLDS.get(part) or (part.lower() if len(part.lower()) == 1 else part))
    whole = "".join(folded)
    return whole if len(whole) <= _LONGEST_FOLD else char


def _unleet(token: str) -> str:
    """Return a token with digits and signs read as letters; `1` is an l beside an l, else an i."""
    if token.isalpha() or not any(c.isalpha() for c in token):
        return token
    body = token.rstrip("!+|")
    word = body.translate(_LEET).lower()
    word = re.sub(r"(?<=[l1])1|1(?=[l1])", "l", word)
    return word.replace("1", "i").replace("2", "z") + token[len(body) :]


def _unglue(match: re.Match[str]) -> str:
    """Return a run of letters with the known words in it set apart, if they are most of it."""
    run = match.group()
    words = _KNOWN_WORD.findall(run)
    if len(words) < 2 or sum(map(len, words)) < 0.6 * len(run):
        return run
    return " ".join(piece for piece in _KNOWN_WORD.sub(r" \g<0> ", run).split(" ") if piece)


class Normalizer:
    """Turns a text into its views; holds nothing but compiled patterns, so threads may share it."""

    __slots__ = ("_scrambled", "_suspicious")

    def __init__(self) -> None:
        self._suspicious = re2.compile(_SUSPICIOUS)
        # `re` takes 40 us to find none of these thirty words in 200 characters, RE2 takes 1.
        self._scrambled = re2.compile(f"(?i:{_ROTATED.pattern}|{_REVERSED.pattern})")

    def normalize(self, text: str) -> Normalized:
        """Return the views of a text.

        Any `str` will do: a lone surrogate is as invisible as a control character. Plain ASCII text
        without a trace of a disguise comes back as its only view, after one linear pass.
        """
        printed = _as_printed(text)
        if printed is not None or not text.isascii() or _CONTROL.search(text):
            source = text if printed is None else printed[0].text
            base, undone, hidden = _fold_text(source, printed and printed[0])
            undone += printed[1] if printed else []
            views = [base, *hidden]
        else:
            if self._suspicious.search(text) is None and not _is_rotated(text):
                return Normalized((View(text, "text"),))
            undone = []
            views = [View(text.replace("\x0b", " "), "text")]
        for view in tuple(views):
            self._expand(view, 1, views, undone)
        return Normalized(tuple(views), tuple(undone))

    def _expand(self, view: View, depth: int, views: list[View], undone: list[Undone]) -> None:
        """Add what lies under `view`: other readings of its letters, and decoded runs."""
        is_rotated = _is_rotated(view.text)
        if view.text.isascii() and self._suspicious.search(view.text) is None and not is_rotated:
            return
        views += _respell(view)
        for decoded, runs in _decode(
            view, is_scrambled=is_rotated or self._scrambled.search(view.text) is not None
        ):
            views.append(decoded)
            undone += [Undone(decoded.kind, *view.span(start, end)) for start, end in runs]
            if decoded.kind in {"rot13", "reversed"}:
                views += _respell(decoded)
            elif depth < _MAX_DEPTH:
                if not decoded.text.isascii():
                    inner, seen, hidden = _fold_text(decoded.text, decoded)
                    views += (inner, *hidden)
                    undone += seen
                else:
                    inner = decoded
                self._expand(inner, depth + 1, views, undone)


def _as_printed(text: str) -> tuple[View, list[Undone]] | None:
    """Return a text as a terminal shows it, and what backspaces erased; `None` if that is all of it.

    Colours are no disguise by themselves: logs are full of them.
    """
    if "\x1b" not in text and "\x08" not in text:
        return None
    changes: list[tuple[int, int, str]] = []
    erased: list[Undone] = []
    end = 0
    for match in _TERMINAL.finditer(text):
        start = match.start()
        if backspaces := match.group("erased"):
            start = max(end, start - len(backspaces))
            erased.append(Undone("erased", start, match.end()))
        changes.append((start, match.end(), ""))
        end = match.end()
    return _rewrite(text, "printed", changes, None), erased[:5]


def _fold_text(text: str, parent: View | None = None) -> tuple[View, list[Undone], list[View]]:
    """Return the folded view of a text outside ASCII, what was undone, and hidden texts.

    Distinct characters are folded once. Those that stay one character are translated in place;
    only what vanishes or grows becomes an edit, so a page of Russian costs no offsets at all.
    """
    undone: list[Undone] = []
    hidden: list[View] = []
    distinct = {char for char in set(text) if char > "\x7e" or char < " " or char == "`"} - set(
        "\t\n\f\r"
    )
    table: dict[int, str] = {}
    growing: list[str] = []
    for char in distinct:
        if _INVISIBLE_RUN.match(char) or _MARK.match(char):
            continue
        folded = _fold(char)
        if len(folded) == 1:
            table[ord(char)] = folded
        else:
            growing.append(char)
    has_invisible = any(_INVISIBLE_RUN.match(char) for char in distinct)
    has_marks = any(_MARK.match(char) for char in distinct)

    def note(kind: str, start: int, end: int) -> None:
        span = (start, end) if parent is None else parent.span(start, end)
        undone.append(Undone(kind, *span))

    if has_invisible:
        hidden += _hidden_texts(text, parent, note)
    if table and not _EAST_ASIAN.search(text):
        for match in _STYLED_WORD.finditer(text):
            note("styled_letters", *match.span())
    if growing or has_invisible or has_marks:
        grown = f"[{re.escape(''.join(sorted(growing)))}]" if growing else r"\b\B"
        finder = re.compile(
            f"(?P<grown>{grown})|(?P<marked>[^\\W\\d_][{_MARKS}]+)|[{INVISIBLE}{_MARKS}]+"
        )
        view = _rewrite(text, "text", _folding_edits(text, finder, note), parent)
    else:
        view = View(text, "text", parent)
    folded_text, swapped = _unmask(view.text.translate(table))
    for start, end in swapped:
        undone.append(Undone("lookalikes", *view.span(start, end)))
    arrays = view._view_starts, view._view_ends, view._source_starts, view._source_ends
    return View(folded_text, "text", parent, False, *arrays), undone, hidden


def _folding_edits(
    text: str, finder: re.Pattern[str], note: _Note
) -> Iterator[tuple[int, int, str]]:
    """Yield the edits that take away marks and invisible characters and spell out ligatures."""
    for match in finder.finditer(text):
        run = match.group()
        if match.lastgroup == "grown":
            yield *match.span(), _fold(run)
        elif match.lastgroup == "marked":
            if len(run) > 3:  # no orthography puts three marks on one letter
                note("stacked_marks", *match.span())
            # Thirty marks are more than any letter composes with; the rest only costs time.
            yield *match.span(), _fold(unicodedata.normalize("NFC", run[:30])[0])
        else:
            yield *match.span(), ""


def _hidden_texts(text: str, parent: View | None, note: _Note) -> Iterator[View]:
    """Yield texts written in tag characters or variation selectors; note invisible characters."""
    for match in _HIDDEN_IN_WORD.finditer(text):
        if match.group().strip("\u00ad"):  # a soft hyphen alone is typography
            note("invisible_characters", *match.span())
    for match in _BIDI_OVERRIDE.finditer(text):
        note("bidi_override", *match.span())
    runs = []
    for match in _TAG_RUN.finditer(text):
        if match.group(1):
            letters = "".join(chr(ord(c) - 0xE0000) for c in match.group(1) if c < "\U000e007f")
            runs.append((match.start(1), match.end(1), letters))
    for match in _SELECTOR_RUN.finditer(text):
        codes = (ord(c) for c in match.group())
        data = bytes(c - 0xFE00 if c < 0xFE10 else c - 0xE0100 + 16 for c in codes)
        if decoded := readable(data):
            runs.append((*match.span(), decoded))
    if runs:
        runs.sort()
        for start, end, _ in runs:
            note("hidden_text", start, end)
        yield _extract("hidden_text", runs, parent)


def _unmask(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the text with look-alike letters read as Latin, and the spans of those words.

    A word counts if it mixes them with Latin letters. One without Latin letters counts if it is
    made of twins only, in a text that is mostly Latin and has no other letter of those scripts:
    "Привет" is a greeting, not a forged word, and so is a Russian word beside an English name.
    """
    if not any(char in _LOOKALIKES for char in set(text)):
        return text, []
    is_foreign = any(
        char not in _LOOKALIKES and char.isalpha() and _OTHER_SCRIPT.match(char)
        for char in set(text)
    )
    foreign = sum(text.count(char) for char in _LOOKALIKES)
    is_latin = not is_foreign and sum(map(text.count, ascii_letters)) > foreign
    spans: list[tuple[int, int]] = []

    def read(match: re.Match[str]) -> str:
        word = match.group()
        if word.isascii() or not any(char in _LOOKALIKES for char in word):
            return word
        is_mixed = any("A" <= char <= "z" for char in word)
        if len(word) < 3 or not (
            is_mixed or (is_latin and len(word) > 3 and _TWINS.issuperset(word))
        ):
            return word
        if any(char.isalpha() and char > "\x7f" and char not in _LOOKALIKES for char in word):
            return word
        spans.append(match.span())
        return "".join(_LOOKALIKES.get(char, char) for char in word)

    # Whole words, told apart in `read`: a pattern that looks for the letter inside the word goes
    # over a long word once for each of its letters (minutes for a megabyte).
    return _WORD.sub(read, text), spans


def _respell(view: View) -> list[View]:
    """Return readings of the letters: spaced-out and glued words, leetspeak, repeated letters."""
    text = view.text
    changes: list[tuple[int, int, str]] = []
    position = 0
    for match in _SPACED.finditer(text):
        if sum(map(str.isalpha, match.group())) * 3 < len(match.group()):
            continue
        changes += _respell_tokens(text, position, match.start())
        joined = _unleet(match.group()[::2])
        spelled = _GLUED.sub(_unglue, joined) if len(joined) > 11 else joined
        changes.append((*match.span(), spelled))
        position = match.end()
    changes += _respell_tokens(text, position, len(text))
    plain = _rewrite(text, "respelled", changes, view) if changes else view
    views = [plain] if changes else []
    if _REPEATED.search(plain.text):
        for keep in (1, 2):
            edits = ((*m.span(), m.group(1) * keep) for m in _REPEATED.finditer(plain.text))
            views.append(_rewrite(plain.text, "respelled", edits, plain))
    return views


def _respell_tokens(text: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    for match in _TOKEN.finditer(text, start, end):
        token = match.group()
        if token.isalpha():
            if len(token) < 12:
                if text[match.end() : match.end() + 1] == "_" and match.end() < end:
                    yield match.end(), match.end() + 1, " "
                continue
            spelled = _GLUED.sub(_unglue, token)
        else:
            spelled = _unleet(token)
        if spelled != token:
            yield match.start(), match.end(), spelled


def _decode(view: View, *, is_scrambled: bool) -> Iterator[tuple[View, list[tuple[int, int]]]]:
    """Yield each decoded view with the spans (of `view`) that count as hiding something."""
    text = view.text
    escapes = [(*m.span(), unescape(m.group())) for m in ESCAPE.finditer(text)]
    if escapes:
        # Spaces, signs and accents are escaped for good reasons; plain letters never are.
        odd = [(s, e) for s, e, out in escapes if any(c.isascii() and c.isalpha() for c in out)]
        decoded = _rewrite(text, "escapes", escapes, view)
        if decoded.text != text:
            yield decoded, odd if len(odd) > 2 else []
    between = [(*m.span(), "") for m in _SYMBOL_IN_WORD.finditer(text)]
    if len(between) > 3:
        yield _rewrite(text, "symbols_in_words", between, view), [m[:2] for m in between[:5]]
    marked = [(*m.span(), "") for m in _MARKUP_IN_WORD.finditer(text)]
    if len(marked) > 1:
        odd_marks = [m[:2] for m in marked[:5]] if len(marked) > 3 else []
        yield _rewrite(text, "markup_in_words", marked, view), odd_marks
    for kind, pattern, decode in (
        ("base32", BASE32, from_base32),
        ("base64", BASE64, from_base64),
        ("hex", HEX, from_hex),
        ("binary", BINARY, from_binary),
    ):
        decoded_runs = ((*m.span(), decode(m.group())) for m in pattern.finditer(text))
        runs = [(start, end, out) for start, end, out in decoded_runs if out]
        if runs:
            yield _extract(kind, runs, view), [(start, end) for start, end, _ in runs]
    if not is_scrambled:
        return
    rotated = [m.span() for m in _ROTATED.finditer(text)]
    if not rotated and _is_rotated(text):
        rotated = [(0, len(text))]
    if rotated:
        yield View(codecs.encode(text, "rot13"), "rot13", view), rotated[:5]
    backwards = [m.span() for m in _REVERSED.finditer(text)]
    if backwards:
        yield View(text[::-1], "reversed", view, is_reversed=True), backwards[:5]


_COMMONEST, _ROTATED_COMMONEST = "etaoi", "rgnbv"
_FEWEST_LETTERS = 12  # of the ten above; fewer say little
_ROTATED_RATIO = 1.5
_LETTERS_READ = 2000


def _is_rotated(text: str) -> bool:
    """Whether the letters of a text are as common as those of a language only after ROT13.

    Of the letters counted, "etaoi" make up three in four in English, one in four in its rotation.
    """
    folded = text[:_LETTERS_READ].lower()
    plain = sum(map(folded.count, _COMMONEST))
    rotated = sum(map(folded.count, _ROTATED_COMMONEST))
    return rotated > _ROTATED_RATIO * plain and plain + rotated >= _FEWEST_LETTERS


_FOLDED = frozenset({"invisible_characters", "lookalikes", "stacked_marks", "styled_letters"})
# How much of a text must be respelled before it is worth another reading: "mp3", "1st" and an
# address are respelled too.
_RESPELLED_SHARE = 0.2
_RESPELLED_PLACES = 3
_MIN_READING = 12


def hidden_readings(normalized: Normalized) -> tuple[View, ...]:
    """Return what a disguise hid, for a reader that knows plain text only; mostly nothing.

    These are decoded runs, the text with its letters put back together where at least a fifth of
    it was spelled otherwise, and the first view where invisible characters or look-alikes were
    taken out of it.
    """
    readings = []
    plainest = normalized.views[0]
    if plainest.parent is not None or any(u.kind in _FOLDED for u in normalized.undone):
        readings.append(plainest)
    for view in normalized.views[1:]:
        if view.kind == "respelled" and not view.is_mostly_disguised:
            continue
        if len(view.text) >= _MIN_READING:
            readings.append(view)
    return tuple(readings)


def normalize(text: str) -> Normalized:
    """Return the views of one text; keep a `Normalizer` where there are many."""
    return Normalizer().normalize(text)
