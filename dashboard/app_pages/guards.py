"""Guards: whatever can score a text, declared, tried, added and taken away."""

from __future__ import annotations

from dashboard.guards.adding import GUARD_IN_URL, VIEW_IN_URL, offer_adding
from dashboard.guards.parts import listed_guards, show_guard, show_guards
from dashboard.widgets import errors_shown, page_title, pick

ALL, ADD = "All guards", "Add a guard"

page_title(
    "Guards",
    "A guard is anything that gives a text a risk: a model, an HTTP API, a Python function. Each "
    "scores the same rows under its own name, at its own threshold.",
)
view = pick("View", [ALL, ADD], key="guards_view", in_url=VIEW_IN_URL, segmented=True)
if view == ADD:
    offer_adding(listed=ALL)
else:
    listed = listed_guards()
    show_guards(listed)
    if listed:
        chosen = pick("Show guard", list(listed), key="shown_guard", in_url=GUARD_IN_URL)
        with errors_shown():
            show_guard(listed[chosen])
