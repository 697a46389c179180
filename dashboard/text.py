"""Numbers, names and the texts of others as the screen shows them. Draws nothing.

Prompts, file names, column names, label values and error messages hold other people's words. They
are shown as text (`widgets.show_text`, a dataframe's text column), escaped by `plain` for Markdown
or by `label` for a chart, never as markup.
"""

from __future__ import annotations

import html
import itertools
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from shield_engine.hostile_text import visible
from shield_engine.types import Mode, Task

if TYPE_CHECKING:
    from shield_engine.runs.execution import Progress

__all__ = [
    "MARKS",
    "MODE_TITLES",
    "TASK_TITLES",
    "Segment",
    "clock",
    "duration",
    "label",
    "marked",
    "megabytes",
    "milliseconds",
    "plain",
    "progress_text",
    "segments",
    "shortened",
    "visible",
]

TASK_TITLES: Mapping[Task, str] = {
    Task.PROMPT_INJECTION: "Prompt injection",
    Task.TOXICITY: "Toxicity",
    Task.SENTIMENT: "Sentiment",
}

MODE_TITLES: Mapping[Mode, str] = {
    Mode.HEURISTIC: "Heuristic",
    Mode.ML: "ML",
    Mode.HYBRID: "Hybrid",
    Mode.BOTH: "Both",
}

MARKS = ("⟦", "⟧")
"""What stands around a matched span in a shown text."""

_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")
# Where Streamlit makes a link, an icon or an arrow of a text whose backslashes are gone already:
# behind the colon of an address or of a :name:, the www, the @, and within -> -- >= and the like.
_REPLACED = re.compile(
    r"(?<=:)(?=/|[\w+\-/]+:)|(?<=www)(?=\.)|(?<=@)(?=[-\w])|(?<=[<>~\-])(?=[>=\-])", re.IGNORECASE
)
_JOINER = "\u2060"


# --- texts of others ------------------------------------------------------------------------


def plain(text: str) -> str:
    """Return `text` so that Markdown shows it letter by letter.

    Every ASCII punctuation mark is escaped, which also disarms images, HTML, formulas and
    directives. What Streamlit replaces after that (addresses, `:streamlit:`, `->`) is parted by a
    word joiner, which draws nothing.
    """
    escaped = _PUNCTUATION.sub(r"\\\g<0>", _REPLACED.sub(_JOINER, visible(text)))
    return escaped.replace("\t", " ").replace("\n", "  \n")


def label(text: str) -> str:
    """Return `text` so that a chart shows it letter by letter: Plotly reads some HTML."""
    return html.escape(visible(text), quote=False).replace("%{", "% {")


def shortened(text: str | None, limit: int) -> str:
    """Return the head of a stored text for a cell, hidden characters written out."""
    return "(purged)" if text is None else visible(text[:limit])


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text under the same spans.

    Attributes:
        text: As given, not made safe.
        spans: Positions in the list of spans that cover it, in order.
        begins: Those of them that begin here.
    """

    text: str
    spans: tuple[int, ...]
    begins: tuple[int, ...]


def segments(text: str, spans: Sequence[tuple[int, int]]) -> list[Segment]:
    """Cut `text` where a span (start, end) begins or ends; the pieces joined are `text` again."""
    inside = [(min(max(start, 0), len(text)), min(max(end, 0), len(text))) for start, end in spans]
    pieces = []
    for first, last in itertools.pairwise(sorted({0, len(text)}.union(*inside))):
        covering = tuple(
            place for place, (start, end) in enumerate(inside) if start <= first and last <= end
        )
        begins = tuple(place for place in covering if inside[place][0] == first)
        pieces.append(Segment(text[first:last], covering, begins))
    return pieces


def marked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return a text with its spans between `MARKS`; spans that touch are joined."""
    stretches = itertools.groupby(segments(text, spans), key=lambda segment: bool(segment.spans))
    pieces = ((is_marked, "".join(part.text for part in parts)) for is_marked, parts in stretches)
    return "".join(
        f"{MARKS[0]}{piece}{MARKS[1]}" if is_marked else piece for is_marked, piece in pieces
    )


# --- numbers as text ------------------------------------------------------------------------


def milliseconds(value: float | None) -> str:
    """Return milliseconds with two decimals that count: "0.014 ms", "3.21 ms", "1,240 ms"."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f} ms"
    return f"{value:.2f} ms" if value >= 0.1 else f"{value:.2g} ms"


def duration(seconds: float | None) -> str:
    """Return seconds as "0.4 s", "42 s", "3 min 20 s" or "2 h 5 min"."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def megabytes(size_bytes: float) -> str:
    """Return a size in MB (10^6 bytes), or kB below one."""
    if size_bytes < 1e6:
        return f"{size_bytes / 1e3:,.1f} kB"
    return f"{size_bytes / 1e6:,.1f} MB"


def clock(when: datetime) -> str:
    """Return a stored time, which is UTC, to the minute."""
    return f"{when:%Y-%m-%d %H:%M} UTC"


def progress_text(progress: Progress | None, rows: int) -> str:
    """Return "1,000 of 3,000 rows, 412 rows/s, 5 s left, 0 errors"."""
    if progress is None:
        return f"0 of {rows:,} rows, getting ready"
    return (
        f"{progress.rows_done:,} of {progress.rows:,} rows, {progress.rows_per_s:,.0f} rows/s, "
        f"{duration(progress.eta_s)} left, {progress.errors:,} errors"
    )
