"""Gates in the store, by name, as plain documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shield_engine.errors import UnknownNameError
from shield_engine.store.database import Store, utc_now

__all__ = ["StoredGate", "delete_gate", "find_gate", "gates", "save_gate"]


@dataclass(frozen=True, slots=True)
class StoredGate:
    """A gate as it was saved.

    Attributes:
        document: Plain JSON; `toml` holds the text as the user wrote it.
        created_at: When this text was saved, UTC.
    """

    name: str
    document: Mapping[str, Any]
    created_at: datetime


def save_gate(store: Store, name: str, document: Mapping[str, Any]) -> None:
    """Keep a gate under its name; one of that name is replaced."""
    store.execute(
        "INSERT OR REPLACE INTO gates VALUES (?, ?, ?)",
        [name, json.dumps(dict(document)), utc_now()],
    )


def gates(store: Store) -> list[StoredGate]:
    """Return all gates, by name."""
    rows = store.fetch("SELECT name, document, created_at FROM gates ORDER BY name")
    return [StoredGate(name, json.loads(document), when) for name, document, when in rows]


def find_gate(store: Store, name: str) -> StoredGate:
    """Return the gate of that name.

    Raises:
        UnknownNameError: There is none.
    """
    for gate in gates(store):
        if gate.name == name:
            return gate
    known = ", ".join(gate.name for gate in gates(store)) or "none"
    raise UnknownNameError(f"no gate {name}; stored: {known}")


def delete_gate(store: Store, name: str) -> None:
    """Drop a gate.

    Raises:
        UnknownNameError: There is none of that name.
    """
    find_gate(store, name)
    store.execute("DELETE FROM gates WHERE name = ?", [name])
