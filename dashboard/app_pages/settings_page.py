"""Settings: where things lie, how large they are, backup, purge, and the limits in force."""

from __future__ import annotations

from dashboard.settings.parts import show_bundles, show_limits, show_removal, show_store
from dashboard.widgets import errors_shown, page_title

page_title("Settings", "Everything stays on this machine, in one folder.")
with errors_shown():
    show_store()
    show_removal()
    show_bundles()
    show_limits()
