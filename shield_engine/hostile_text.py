"""Other people's words where they are shown or written: hidden characters written out, markup disarmed.

Prompts, names and labels are hostile input. What draws nothing is shown as its code point, and each
format escapes what it would otherwise run.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "INVISIBLE",
    "fenced",
    "markdown_text",
    "neutralised",
    "neutralised_text",
    "redacted",
    "visible",
    "xml_text",
]

# Default_Ignorable_Code_Point of the Unicode Character Database (DerivedCoreProperties), as the
# inside of a character class: what draws nothing where a font does not know it.
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
# General categories Cc (but white space), Cf, Co and Cs.
_CONTROL = "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
_FORMAT = "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"
INVISIBLE = _IGNORABLE + _CONTROL + _FORMAT + _PRIVATE + "\ud800-\udfff"
"""Inside of a character class: every code point that a reader does not see. One table for the
screen, which writes them out, and the normaliser, which takes them away."""
# On the screen white space that is neither blank, tab nor line feed is written out as well, and the
# blank of Braille. One selector of a form (as behind an emoji) is typography; more hide something.
_WRITTEN_OUT = re.compile(
    f"(?<![\ufe00-\ufe0f])[\ufe0e\ufe0f](?![\ufe00-\ufe0f])"
    f"|([{INVISIBLE}\x0b-\x0d\x85\u2028\u2029\u2800])"
)
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
    return _WRITTEN_OUT.sub(
        lambda match: _code_point(match.group()) if match.group(1) else match.group(), text
    )


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
