"""`shield policies`: what was saved on the Threshold lab page, as a list, a diff or a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from shield_engine.cli.output import console, note, print_table, printable, write_out
from shield_engine.errors import ConfigError
from shield_engine.policy import policy_differences, read_policies, write_policies
from shield_engine.settings import Settings
from shield_engine.types import Mode

if TYPE_CHECKING:
    from shield_engine.policy import Policy
    from shield_engine.store import Store

__all__ = ["policies"]


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
    from shield_engine.store.library import delete_policy, named_policy, save_policy
    from shield_engine.store.library import policies as stored

    with Store.open(Settings.from_env().store_path) as store:
        if export:
            _export(store, export, out)
            return
        if diff is not None:
            _print_differences(*(named_policy(store, name) for name in diff))
            return
        if add is not None:
            for policy in read_policies(add).values():
                note(f"kept {printable(save_policy(store, policy).title)}")
        if delete is not None:
            policy = named_policy(store, delete)
            if "@" not in delete:
                raise ConfigError(f"name the version to delete, such as {delete}@{policy.version}")
            delete_policy(store, policy.name, policy.version)
            note(f"{printable(policy.title)} is gone")
        empty = "No policy is saved yet: choose a threshold on the page Threshold lab."
        print_table(_COLUMNS, stored(store), empty=empty)


def _export(store: Store, names: list[str], out: Path | None) -> None:
    from shield_engine.store.library import named_policy

    text = write_policies([named_policy(store, name) for name in names])
    if out is None or str(out) == "-":
        write_out(Path("-"), text)
        return
    if out.exists():
        raise ConfigError(f"{out} exists already; nothing is overwritten")
    write_out(out, text)
    note(f"{', '.join(names)} in {out}")


def _print_differences(first: Policy, second: Policy) -> None:
    table = Table("", first.title, second.title)
    for what, before, after in policy_differences(first, second):
        table.add_row(printable(what), printable(before), printable(after))
    console.print(table if table.row_count else "The two decide alike and rest on the same.")


_COLUMNS: Mapping[str, Callable[[Policy], str]] = {
    "policy": lambda policy: policy.title,
    "task": lambda policy: policy.task.value,
    "mode": lambda policy: policy.mode.value,
    "threshold": lambda policy: "argmax" if policy.threshold is None else f"{policy.threshold:g}",
    "bands": lambda policy: str(policy.bands) if policy.mode is Mode.HYBRID else "",
    "model": lambda policy: policy.scorer or "",
    "note": lambda policy: policy.note,
}
