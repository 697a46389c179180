"""What most subcommands begin with: an engine, a store, a progress bar, a text."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shield_engine.cli.output import errors, note
from shield_engine.errors import ConfigError, StoreBusyError
from shield_engine.settings import Settings

if TYPE_CHECKING:
    from shield_engine.engine import Shield
    from shield_engine.policy import Policy
    from shield_engine.store import Store
    from shield_engine.types import Task

__all__ = ["evaluation_store", "free_port", "open_shield", "progress_bar", "read_text"]


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


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, float], None]]:
    """Yield a function of (note, share done) that moves a bar on standard error."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(title, total=1.0, note="")
        yield lambda text, share: bar.update(task, completed=share, note=text)


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
