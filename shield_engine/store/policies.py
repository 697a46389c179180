"""Policies in the store: each name's versions, never changed once written."""

from __future__ import annotations

import json
from dataclasses import replace

from shield_engine.errors import UnknownNameError
from shield_engine.policy import Policy
from shield_engine.store.database import Store, utc_now

__all__ = ["delete_policy", "find_policy", "policies", "save_policy"]


def save_policy(store: Store, policy: Policy) -> Policy:
    """Keep a policy as the next version of its name, and return it with that version."""
    with store.writing() as cursor:
        ((last,),) = cursor.execute(
            "SELECT coalesce(max(version), 0) FROM policies WHERE name = ?", [policy.name]
        ).fetchall()
        saved = replace(policy, version=int(last) + 1)
        cursor.execute(
            "INSERT INTO policies VALUES (?, ?, ?, ?, ?)",
            [
                saved.name, saved.version, saved.task.value, json.dumps(saved.as_document()),
                utc_now(),
            ],
        )  # fmt: skip
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


def delete_policy(store: Store, name: str, version: int) -> None:
    """Drop one version of a policy; later versions keep their numbers."""
    find_policy(store, name, version)
    store.execute("DELETE FROM policies WHERE name = ? AND version = ?", [name, version])
