"""Other people's words where they are shown or written: hidden characters written out, markup disarmed.

Prompts, names and labels are hostile input. What draws nothing is shown as its code point, and each
format escapes what it would otherwise run.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "fenced",
    "markdown_text",
    "neutralised",
    "neutralised_text",
    "redacted",
    "visible",
    "xml_text",
]

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_HIDDEN_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f")
"""Letters and marks that draw nothing: Hangul fillers, the blank of Braille, the joiner."""
# Marks that begin markup anywhere, and those that make an address a link.
_ACTIVE = re.compile(
    r"[\\`*{}\[\]#!|~&$^@]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)|:(?=/)|(?<=[wW]{3})\."
)
_NUMBERED = re.compile(r"^(\d+)\.(?=\s)")
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def visible(text: str) -> str:
    """Return `text` with every character that draws nothing written as `⟨U+200B⟩`.

    Line breaks (of any convention) and tabs stay.
    """
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(_code_point(letter) if _is_hidden(letter) else letter for letter in text)


def _is_hidden(letter: str) -> bool:
    if letter in "\n\t":
        return False
    if letter in _HIDDEN_LETTERS or "\U000e0100" <= letter <= "\U000e01ef":
        return True
    return unicodedata.category(letter) in _HIDDEN_CATEGORIES


def _code_point(letter: str) -> str:
    return f"⟨U+{ord(letter):04X}⟩"


def redacted(text: str) -> str:
    """Return what identifies a text without telling it: the start of its SHA-256 and its length."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"sha256 {digest[:16]}, {len(text):,} characters"


def markdown_text(text: str) -> str:
    """Return `text` on one line so that Markdown shows it letter by letter, in a table cell too."""
    line = _ACTIVE.sub(r"\\\g<0>", " ".join(visible(text).split()))
    return f"\\{line}" if line.startswith(("+", "-", "=", ">")) else _NUMBERED.sub(r"\1\\.", line)


def fenced(text: str) -> str:
    """Return `text` as a fenced block that it cannot leave."""
    shown = visible(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def xml_text(text: str) -> str:
    """Return `text` with only characters that XML 1.0 may hold; the writer escapes the rest."""
    return _NO_XML.sub(lambda match: _code_point(match.group()), visible(text))


_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def neutralised_text(value: str) -> str:
    """Return `value` so that a spreadsheet shows it instead of running it as a formula."""
    return f"'{value}" if value.startswith(_FORMULA_STARTS) else value


def neutralised(table: pa.Table) -> pa.Table:
    """Return `table` with every text cell neutralised."""
    import pyarrow as pa

    for position, column in enumerate(table.schema):
        if pa.types.is_string(column.type):
            values = [
                None if value is None else neutralised_text(value)
                for value in table.column(position).to_pylist()
            ]
            table = table.set_column(position, column, pa.array(values, column.type))
    return table
