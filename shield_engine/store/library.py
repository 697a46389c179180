"""What is kept as documents: policies (each version for good), gates by name, benchmarks."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from shield_engine.errors import ConfigError, UnknownNameError
from shield_engine.policy import Policy
from shield_engine.store.connection import utc_now
from shield_engine.store.store import Store

__all__ = [
    "StoredGate",
    "benchmarks",
    "delete_gate",
    "delete_policy",
    "find_gate",
    "find_policy",
    "gates",
    "named_policy",
    "policies",
    "save_benchmark",
    "save_gate",
    "save_policy",
]

_NAMED = re.compile(r"(?P<name>.+?)(?:@v?(?P<version>\d+))?")


def save_policy(store: Store, policy: Policy) -> Policy:
    """Keep a policy as the next version of its name, and return it with that version."""
    with store.writing() as cursor:
        ((last,),) = cursor.execute(
            "SELECT coalesce(max(version), 0) FROM policies WHERE name = ?", [policy.name]
        ).fetchall()
        saved = replace(policy, version=int(last) + 1)
        values = {
            "name": saved.name,
            "version": saved.version,
            "task": saved.task.value,
            "document": json.dumps(saved.as_document()),
            "created_at": utc_now(),
        }
        store.insert("policies", values)
    return saved


def policies(store: Store) -> list[Policy]:
    """Return every version of every policy, newest first."""
    rows = store.fetch("SELECT document FROM policies ORDER BY created_at DESC, name, version DESC")
    return [Policy.from_document(json.loads(document)) for (document,) in rows]


def find_policy(store: Store, name: str, version: int | None = None) -> Policy:
    """Return one version of a policy, the last by default.

    Raises:
        UnknownNameError: There is none of that name or version.
    """
    rows = store.fetch(
        "SELECT document FROM policies WHERE name = ? AND version = coalesce(?, version) "
        "ORDER BY version DESC LIMIT 1",
        [name, version],
    )
    if not rows:
        known = sorted({policy.title for policy in policies(store)})
        wanted = name if version is None else f"{name} v{version}"
        raise UnknownNameError(f"no policy {wanted}; stored: {', '.join(known) or 'none'}")
    return Policy.from_document(json.loads(rows[0][0]))


def named_policy(store: Store, named: str) -> Policy:
    """Return a policy by `NAME`, the last version, or `NAME@VERSION`.

    Raises:
        ConfigError: That names no policy.
        UnknownNameError: There is none of that name or version.
    """
    parts = _NAMED.fullmatch(named)
    if parts is None:
        raise ConfigError(f"{named!r} names no policy; write NAME or NAME@VERSION")
    version = parts["version"]
    return find_policy(store, parts["name"], int(version) if version else None)


def delete_policy(store: Store, name: str, version: int) -> None:
    """Drop one version of a policy; later versions keep their numbers."""
    find_policy(store, name, version)
    store.execute("DELETE FROM policies WHERE name = ? AND version = ?", [name, version])


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
    values = {"name": name, "document": json.dumps(dict(document)), "created_at": utc_now()}
    store.insert("gates", values, replaces=True)


def gates(store: Store) -> list[StoredGate]:
    """Return all gates, by name."""
    rows = store.fetch("SELECT name, document, created_at FROM gates ORDER BY name")
    return [StoredGate(name, json.loads(document), when) for name, document, when in rows]


def find_gate(store: Store, name: str) -> StoredGate:
    """Return the gate of that name.

    Raises:
        UnknownNameError: There is none.
    """
    stored = {gate.name: gate for gate in gates(store)}
    if name not in stored:
        raise UnknownNameError(f"no gate {name}; stored: {', '.join(stored) or 'none'}")
    return stored[name]


def delete_gate(store: Store, name: str) -> None:
    """Drop a gate.

    Raises:
        UnknownNameError: There is none of that name.
    """
    find_gate(store, name)
    store.execute("DELETE FROM gates WHERE name = ?", [name])


def save_benchmark(store: Store, document: Mapping[str, Any]) -> str:
    """Keep a benchmark's document and return its id."""
    benchmark_id = uuid.uuid4().hex[:12]
    store.execute(
        "INSERT INTO benchmarks VALUES (?, ?, ?)", [benchmark_id, json.dumps(document), utc_now()]
    )
    return benchmark_id


def benchmarks(store: Store) -> dict[str, dict[str, Any]]:
    """Return the document of each benchmark by id, newest first."""
    rows = store.fetch("SELECT benchmark_id, document FROM benchmarks ORDER BY created_at DESC")
    return {benchmark_id: json.loads(document) for benchmark_id, document in rows}
