"""The command's tree: its subcommands, in the order of the help."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import metadata, util
from typing import Annotated

import typer

from shield_engine.cli.bench import bench
from shield_engine.cli.doctor import doctor
from shield_engine.cli.evaluate import evaluate, scan, suite
from shield_engine.cli.gate import gate, report
from shield_engine.cli.guards import guards
from shield_engine.cli.models import models, train
from shield_engine.cli.output import console, note
from shield_engine.cli.policies import policies
from shield_engine.cli.session import free_port
from shield_engine.cli.stored import datasets, export, runs
from shield_engine.errors import ConfigError
from shield_engine.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Evaluate, tune and watch the scanners that guard language models.",
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        console.print(f"llm-shield {metadata.version('llm-shield')}", highlight=False)
        raise typer.Exit


@app.command()
def dashboard(
    port: Annotated[
        int | None, typer.Option(help="Port; 8501 or the next free one if absent.")
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser window.")
    ] = False,
    host: Annotated[
        list[str] | None,
        typer.Option(help="A further name it may be asked for by, as a tunnel's; repeatable."),
    ] = None,
) -> None:
    """Serve the dashboard on 127.0.0.1."""
    package = util.find_spec("dashboard")
    if package is None or package.origin is None:
        raise ConfigError("the package dashboard is not installed beside shield_engine")
    chosen = port or free_port(8501)
    home = Settings.from_env().home
    note(f"LLM Shield on http://127.0.0.1:{chosen}  (store: {home}; stop with Ctrl+C)")
    # -P: a file of the current folder must not stand in for a package.
    command = [sys.executable, "-P", "-m", "dashboard.server", "--port", str(chosen)]
    command += [word for name in host or () for word in ("--host", name)]
    command += ["--browser"] if open_browser else []
    # One process, so that whoever stops `shield dashboard` stops the server and frees the store.
    os.execv(sys.executable, command)  # noqa: S606 - a fixed argument list, no shell


_COMMANDS: Mapping[str, Callable[..., None]] = {
    "scan": scan,
    "eval": evaluate,
    "suite": suite,
    "bench": bench,
    "datasets": datasets,
    "models": models,
    "guards": guards,
    "runs": runs,
    "export": export,
    "train": train,
    "doctor": doctor,
    "policies": policies,
    "gate": gate,
    "report": report,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
