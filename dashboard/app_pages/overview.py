"""Overview: what the tool answers, what is stored, and one button to a finished comparison."""

from __future__ import annotations

from dashboard.overview.parts import show_counts, show_latest, show_sample
from dashboard.widgets import page_title

page_title(
    "LLM Shield",
    "Which scanner, in which mode, at which threshold should guard your language model, and what "
    "does it cost in misses, false alarms and milliseconds?",
)
show_sample()
show_counts()
show_latest()
