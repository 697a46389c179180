"""Errors: read what was decided wrongly, doubt labels, note and relabel, export what follows."""

from __future__ import annotations

from dashboard.errors.choices import VIEW, choose_subject
from dashboard.errors.parts import show_export, show_suspects, show_wording
from dashboard.errors.rows import show_rows, show_unsaved
from dashboard.widgets import choose_run, page_title, pick

VIEWS = {
    "Rows": show_rows,
    "Suspected labels": show_suspects,
    "Words and patterns": show_wording,
    "Export": show_export,
}

page_title("Errors", "Read what was decided wrongly, correct labels, and find what errors share.")
run = choose_run("No run to review yet")
if run is not None:
    subject = choose_subject(run)
    show_unsaved()
    view = pick("View", list(VIEWS), key=VIEW, segmented=True, label_visibility="collapsed")
    VIEWS[view](subject)
