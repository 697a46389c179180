"""`shield doctor`: what it checks, each by doing it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib import metadata

import typer

from shield_engine.cli.output import console, size
from shield_engine.errors import ShieldError, StoreBusyError
from shield_engine.settings import Settings
from shield_engine.types import Mode, Task

__all__ = ["checks", "doctor"]

_PACKAGES = ("onnxruntime", "tokenizers", "duckdb", "streamlit", "pandas", "pyarrow", "numpy")


def doctor() -> None:
    """Check the installation: packages, store, models, a scan; exit 1 if something is wrong."""
    failed = False
    for name, outcome, detail in checks():
        failed |= outcome == "wrong"
        line = f"{outcome:>7}  {name}: {detail}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(int(failed))


def checks() -> Iterator[tuple[str, str, str]]:
    """Yield (what, "ok" | "warning" | "wrong", detail) for each check."""
    yield "python", "ok", sys.version.split()[0]
    yield "packages", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    settings = Settings.from_env()
    access = "offline" if settings.offline else "online"
    yield "settings", "ok", f"home {settings.home}, {settings.workers} workers, {access}"
    yield _store(settings)
    yield from _models(settings)


def _store(settings: Settings) -> tuple[str, str, str]:
    from shield_engine.store import Store

    try:
        with Store.open(settings.store_path) as store:
            detail = (
                f"{settings.store_path}, {size(store.size_bytes())}, {store.counts()['runs']} runs"
            )
            if store.notice:
                return "store", "warning", store.notice
    except StoreBusyError as error:
        return "store", "warning", str(error)
    except ShieldError as error:
        return "store", "wrong", str(error)
    free = shutil.disk_usage(settings.home).free
    if free < 1_000_000_000:
        return "store", "warning", f"{detail}; only {size(free)} left on this disk"
    return "store", "ok", detail


def _models(settings: Settings) -> Iterator[tuple[str, str, str]]:
    from shield_engine.engine import Shield

    try:
        shield = Shield.create(settings)
    except ShieldError as error:
        yield "registry", "wrong", str(error)
        return
    yield "registry", "ok", f"{len(shield.registry.entries)} entries"
    for task in Task:
        try:
            result = shield.scan("Please tell me when the library opens.", task, Mode.ML)
        except ShieldError as error:
            yield f"model {task.value}", "wrong", str(error)
            continue
        if result.model is None:
            yield f"model {task.value}", "wrong", "the result names no model"
            continue
        name = f"{result.model.id} {result.model.variant}"
        yield f"model {task.value}", "ok", f"{name} loads, verified, and scores"
