"""Guards: anything that gives a text a risk, beside the bundled model and on the same rows.

Hides HTTP, Python packages and their shapes of answer; what comes out is one `Reply` a text.
"""

from __future__ import annotations

from shield_engine.guards.document import add_guard, find_guard, read_guards, remove_guard
from shield_engine.guards.entry import (
    CascadeEntry,
    Guard,
    GuardEntry,
    HttpEntry,
    OnnxEntry,
    PythonEntry,
    Reply,
)

__all__ = [
    "CascadeEntry",
    "Guard",
    "GuardEntry",
    "HttpEntry",
    "OnnxEntry",
    "PythonEntry",
    "Reply",
    "add_guard",
    "find_guard",
    "open_guard",
    "read_guards",
    "remove_guard",
]


def open_guard(entry: GuardEntry, *, offline: bool = False) -> Guard:
    """Return the guard of an HTTP or Python entry, ready to be asked.

    Raises:
        ConfigError: It cannot be made: an unset variable, a package that is not installed.
    """
    if isinstance(entry, HttpEntry):
        from shield_engine.guards.http import HttpGuard

        return HttpGuard(entry, offline=offline)
    if isinstance(entry, PythonEntry):
        from shield_engine.guards.python import PythonGuard

        return PythonGuard(entry)
    raise TypeError(f"a guard of kind {entry.kind} is no guard to open")
