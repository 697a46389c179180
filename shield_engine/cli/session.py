"""What most subcommands begin with: options, an engine, a store, a progress bar, a text."""

from __future__ import annotations

import inspect
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

import typer
from rich import progress

from shield_engine.cli.output import errors, note
from shield_engine.errors import ConfigError, StoreBusyError
from shield_engine.settings import Settings

if TYPE_CHECKING:
    from shield_engine.engine import Shield
    from shield_engine.policy import Policy
    from shield_engine.runs.execution import Progress
    from shield_engine.store import Store
    from shield_engine.types import Task

__all__ = [
    "evaluation_store",
    "free_port",
    "leave_bundle",
    "open_shield",
    "option",
    "progress_bar",
    "read_text",
    "rows_bar",
    "with_options",
]


def option(default: Any, text: str, *names: str, **limits: Any) -> Any:
    """Declare a field of a class as an option of the command, named as the field unless `names` are.

    Args:
        default: Its value if it is not given.
        text: What the help says.
        names: Other names, `--x/--no-x` for a switch; a switch needs one.
        limits: What else `typer.Option` takes: `min`, `max`, `case_sensitive`.
    """
    shown = typer.Option(default, *names, help=text, **limits)
    return field(default=default, metadata={"option": shown})


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Show the fields of the classes that a command takes as its options, and fill those classes.

    They stand in the help where the class stands among the command's parameters.
    """
    hints = get_type_hints(command, include_extras=True)
    classes: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    declared: list[inspect.Parameter] = []

    def declare(name: str, hint: Any, default: Any) -> None:
        kind = inspect.Parameter.KEYWORD_ONLY
        declared.append(inspect.Parameter(name, kind, default=default, annotation=hint))

    for name, parameter in inspect.signature(command).parameters.items():
        if name not in classes:
            declare(name, hints[name], parameter.default)
            continue
        types = get_type_hints(classes[name])
        for entry in fields(classes[name]):
            declare(entry.name, types[entry.name], entry.metadata["option"])

    def filled(**given: Any) -> None:
        for name, kind in classes.items():
            given[name] = kind(**{entry.name: given.pop(entry.name) for entry in fields(kind)})
        command(**given)

    filled.__name__, filled.__doc__ = command.__name__, command.__doc__
    filled.__annotations__ = {parameter.name: parameter.annotation for parameter in declared}
    filled.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    return filled


def open_shield(
    settings: Settings | None = None, policies: Mapping[Task, Policy] | None = None
) -> Shield:
    """Return an engine over the environment's settings that obeys `policies`."""
    from shield_engine.engine import Shield

    return Shield.create(settings, policies)


@contextmanager
def evaluation_store(settings: Settings, *, keep: bool = True) -> Iterator[Store]:
    """Yield the store, or one in memory (its `path` is `None`) if it is busy or not wanted."""
    from shield_engine.store import Store

    try:
        store = Store.open(settings.store_path) if keep else Store.in_memory()
    except StoreBusyError:
        store = Store.in_memory()
    if store.notice:
        note(store.notice)
    with store:
        yield store


def leave_bundle(store: Store, shield: Shield, run_id: str) -> None:
    """Write a run that was to be kept where the owner of the busy store will find it."""
    from shield_engine.runs.bundle import write_bundle

    if store.path is None:
        bundle = write_bundle(store, run_id, shield.settings.bundles)
        note(f"the store is held by another process; the run waits in {bundle}")


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, float], None]]:
    """Yield a function of (note, share done) that moves a bar on standard error."""
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.percentage:>3.0f}%"),
        progress.TextColumn("{task.fields[note]}"),
        progress.TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(title, total=1.0, note="")
        yield lambda text, share: bar.update(task, completed=share, note=text)


@contextmanager
def rows_bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """Yield a function of a run's progress that moves a bar and tells the speed."""
    with progress_bar(title) as advance:
        yield lambda p: advance(f"{p.rows_per_s:,.0f} rows/s", p.rows_done / p.rows)


def read_text(argument: str) -> str:
    """Return the argument, or standard input for `-` (bytes that are no UTF-8 are refused)."""
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"standard input is not UTF-8: byte {error.start}") from error


def free_port(first: int) -> int:
    """Return `first` or the next port of 127.0.0.1 that is free."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ConfigError(f"no port from {first} to {first + 99} is free; name one with --port")
