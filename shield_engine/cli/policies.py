"""`shield policies`: what was saved on the Threshold lab page, as a list, a diff or a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from shield_engine.cli.output import console, note, printable
from shield_engine.errors import ConfigError
from shield_engine.policy import policy_differences, read_policies, write_policies
from shield_engine.settings import Settings

if TYPE_CHECKING:
    from shield_engine.policy import Policy
    from shield_engine.store import Store

__all__ = ["policies"]

_NAMED = re.compile(r"(?P<name>.+?)(?:@v?(?P<version>\d+))?")


def policies(
    export: Annotated[
        list[str] | None,
        typer.Option(help="NAME or NAME@VERSION to write to --out; once for each task."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New file for --export: shield.toml.")] = None,
    add: Annotated[
        Path | None, typer.Option("--import", help="Keep the policies of this shield.toml.")
    ] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option(help="Two policies to tell apart: NAME NAME@VERSION.")
    ] = None,
    delete: Annotated[str | None, typer.Option(help="NAME@VERSION to drop.")] = None,
) -> None:
    """List saved policies; export, import, tell apart or delete some."""
    from shield_engine.store import Store
    from shield_engine.store.library import delete_policy, save_policy

    with Store.open(Settings.from_env().store_path) as store:
        if export:
            _export(store, export, out)
            return
        if diff is not None:
            _print_differences(*(_find(store, name) for name in diff))
            return
        if add is not None:
            for policy in read_policies(add).values():
                note(f"kept {printable(save_policy(store, policy).title)}")
        if delete is not None:
            policy = _find(store, delete)
            if "@" not in delete:
                raise ConfigError(f"name the version to delete, such as {delete}@{policy.version}")
            delete_policy(store, policy.name, policy.version)
            note(f"{printable(policy.title)} is gone")
        _print_list(store)


def _export(store: Store, names: list[str], out: Path | None) -> None:
    text = write_policies([_find(store, name) for name in names])
    if out is None or str(out) == "-":
        print(text, end="")  # noqa: T201 - the command's output
        return
    if out.exists():
        raise ConfigError(f"{out} exists already; nothing is overwritten")
    out.write_text(text, encoding="utf-8")
    note(f"{', '.join(names)} in {out}")


def _print_differences(first: Policy, second: Policy) -> None:
    table = Table("", first.title, second.title)
    for what, before, after in policy_differences(first, second):
        table.add_row(printable(what), printable(before), printable(after))
    console.print(table if table.row_count else "The two decide alike and rest on the same.")


def _print_list(store: Store) -> None:
    from shield_engine.store.library import policies as stored

    table = Table("policy", "task", "mode", "threshold", "bands", "model", "note")
    for policy in stored(store):
        table.add_row(
            printable(policy.title),
            policy.task.value,
            policy.mode.value,
            "argmax" if policy.threshold is None else f"{policy.threshold:g}",
            str(policy.bands) if policy.mode.value == "hybrid" else "",
            f"{policy.model_id} {policy.variant}" if policy.model_id else "",
            printable(policy.note),
        )
    console.print(
        table
        if table.row_count
        else "No policy is saved yet: choose a threshold on the page Threshold lab."
    )


def _find(store: Store, named: str) -> Policy:
    from shield_engine.store.library import find_policy

    found = _NAMED.fullmatch(named)
    if found is None:
        raise ConfigError(f"{named!r} names no policy; write NAME or NAME@VERSION")
    version = found["version"]
    return find_policy(store, found["name"], int(version) if version else None)
