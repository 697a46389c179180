"""`shield guards`: what beside the bundled model can score a text; list, add, remove."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shield_engine.cli.output import note, print_table
from shield_engine.cli.session import open_shield, option, with_options
from shield_engine.config import check_task
from shield_engine.errors import ConfigError
from shield_engine.settings import Settings

if TYPE_CHECKING:
    from shield_engine.guards import GuardEntry

__all__ = ["guards", "settings_with"]


def settings_with(guards_file: Path | None) -> Settings:
    """Return the environment's settings, with another file of guards if one is named.

    Raises:
        ConfigError: That file is not there.
    """
    settings = Settings.from_env()
    if guards_file is None:
        return settings
    if not guards_file.is_file():
        raise ConfigError(f"guards file {guards_file} is not there")
    return replace(settings, guards=guards_file)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGuard:
    """What `shield guards add` may say of an entry; the rest is written into the file by hand."""

    preset: str | None = option(None, "add: the shape of a known service, by name.")
    callable: str | None = option(None, "add: a Python function, package.module:name.")
    url: str | None = option(None, "add: address of an HTTP API.")
    body: str | None = option(None, 'add: JSON to send, {text} for the text: {"input": "{text}"}.')
    score: str | None = option(None, "add: JMESPath of the risk in the answer.")
    header: list[str] | None = option(
        None, 'add: "NAME: VALUE", secrets as env:VARIABLE; repeatable.'
    )
    task: str | None = option(None, "add: prompt_injection, toxicity or sentiment.")
    threshold: float | None = option(None, "add: at or above it a text is flagged.", min=0, max=1)
    concurrency: int | None = option(None, "add: calls at once.", min=1)
    price_per_1000: float | None = option(None, "add: money a thousand calls.", min=0)

    def values(self, name: str) -> dict[str, Any]:
        """Return the fields of the entry that were given."""
        import json

        kind = "python" if self.callable else "http" if self.url and not self.preset else None
        try:
            body = json.loads(self.body) if self.body else None
        except ValueError as error:
            raise typer.BadParameter(f"is no JSON: {error}", param_hint="--body") from error
        given = {
            "name": name,
            "preset": self.preset,
            "kind": kind,
            "task": check_task(self.task).value if self.task else None,
            "callable": self.callable,
            "url": self.url,
            "headers": dict(_header(line) for line in self.header or ()) or None,
            "body": body,
            "score": self.score,
            "threshold": self.threshold,
            "concurrency": self.concurrency,
            "price_per_1000": self.price_per_1000,
        }
        return {key: value for key, value in given.items() if value is not None}


@with_options
def guards(
    action: Annotated[
        Literal["list", "add", "remove"],
        typer.Argument(help="`add` and `remove` change guards.toml."),
    ] = "list",
    name: Annotated[str | None, typer.Argument(help="Of the guard.")] = None,
    guards_file: Annotated[
        Path | None,
        typer.Option("--guards", help="Another file than guards.toml in SHIELD_HOME."),
    ] = None,
    *,
    new: NewGuard,
) -> None:
    """List the guards that can score the same rows; add or remove one."""
    from shield_engine.guards import add_guard, remove_guard

    settings = Settings.from_env()
    path = guards_file or settings.guards_path
    if action != "list" and name is None:
        raise typer.BadParameter(f"{action} needs the guard's name", param_hint="NAME")
    if action == "add":
        entry = add_guard(path, new.values(name or ""))
        note(f"{path}: guard {entry.name} ({entry.kind}, {entry.task.value}) was added")
    elif action == "remove":
        remove_guard(path, name or "")
        note(f"{path}: guard {name} was removed; its runs stay")
    else:
        shield = open_shield(replace(settings, guards=path))
        print_table(_COLUMNS, shield.guards.values(), empty="no guard yet; see: shield guards add")


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise typer.BadParameter(f"{line!r} is not NAME: VALUE", param_hint="--header")
    return name.strip(), value.strip()


_COLUMNS: Mapping[str, Callable[[GuardEntry], str]] = {
    "name": lambda entry: entry.name,
    "kind": lambda entry: entry.kind,
    "task": lambda entry: entry.task.value,
    "version": lambda entry: entry.version or "-",
    "threshold": lambda entry: f"{entry.threshold:g}",
    "price/1,000": lambda entry: f"{entry.price_per_1000:g}",
    "at once": lambda entry: str(entry.concurrency),
    "languages": lambda entry: ", ".join(entry.languages) or "unknown",
    "longest text": lambda e: "unknown" if e.longest_text is None else f"{e.longest_text:,}",
}
