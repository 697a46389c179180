"""`shield guards`: what beside the bundled model can score a text; list, add, check, remove."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from shield_engine.cli.output import EXIT_FAILED, note, print_table
from shield_engine.cli.session import open_shield, option, progress_bar, with_options
from shield_engine.config import check_task
from shield_engine.errors import ConfigError
from shield_engine.settings import Settings

if TYPE_CHECKING:
    from shield_engine.guards import GuardEntry
    from shield_engine.guards.catalogue import KnownModel
    from shield_engine.guards.onnx import NewOnnx
    from shield_engine.guards.probes import Probe

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

    labels: str | None = option(
        None, "add, of a model: benign,injection in its order, or SAFE=benign,BAD=injection."
    )
    tokenizer: Path | None = option(None, "add, of a model file: its tokenizer.json.")
    file: str | None = option(None, "add, of a hub model: path of the ONNX file in it.")
    head: str | None = option(None, "add, of a model: softmax or sigmoid.")
    output: str | None = option(None, "add, of a model: which output of its graph.")
    temperature: float | None = option(None, "add, of a model: what its logits are divided by.")
    max_length: int | None = option(None, "add, of a model: its window in tokens.", min=8)
    name: str | None = option(None, "add, of a model: what candidates are called.")
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

    def model(self, source: str) -> NewOnnx:
        """Return the model to add."""
        from shield_engine.guards.onnx import NewOnnx

        if self.head not in {None, "softmax", "sigmoid"}:
            raise typer.BadParameter("is softmax or sigmoid", param_hint="--head")
        return NewOnnx(
            source=source,
            task=check_task(self.task) if self.task else None,
            name=self.name,
            labels=self.labels,
            file=self.file,
            tokenizer=self.tokenizer,
            head=cast("Literal['softmax', 'sigmoid'] | None", self.head),
            output=self.output,
            temperature=self.temperature,
            threshold=self.threshold,
            max_length=self.max_length,
        )

    @property
    def is_model(self) -> bool:
        """True where nothing says that it is an API or a function."""
        return not (self.preset or self.callable or self.url)

    def values(self, name: str) -> dict[str, Any]:
        """Return the fields of the entry that were given."""
        from shield_engine.guards.fields import entry_values

        kind = "python" if self.callable else "http" if self.url and not self.preset else None
        return entry_values(
            {
                "name": name,
                "preset": self.preset,
                "kind": kind,
                "task": check_task(self.task).value if self.task else None,
                "callable": self.callable,
                "url": self.url,
                "headers": "\n".join(self.header or ()),
                "body": self.body,
                "score": self.score,
                "threshold": self.threshold,
                "concurrency": self.concurrency,
                "price_per_1000": self.price_per_1000,
            }
        )


@with_options
def guards(
    action: Annotated[
        Literal["list", "add", "check", "remove", "catalogue"],
        typer.Argument(help="`check` tries one; `catalogue` lists models that are known."),
    ] = "list",
    guard: Annotated[
        str | None,
        typer.Argument(
            help="Its name; to add a model: hf:OWNER/NAME, model.onnx, or a known name."
        ),
    ] = None,
    guards_file: Annotated[
        Path | None,
        typer.Option("--guards", help="Another file than guards.toml in SHIELD_HOME."),
    ] = None,
    *,
    new: NewGuard,
) -> None:
    """List the guards that can score the same rows; add, try or remove one."""
    from shield_engine.guards import find_guard
    from shield_engine.guards.catalogue import known_models

    settings = settings_with(guards_file) if action != "add" else Settings.from_env()
    settings = replace(settings, guards=guards_file or settings.guards)
    if guard is None and action in {"add", "check", "remove"}:
        raise typer.BadParameter(f"{action} needs the guard's name", param_hint="GUARD")
    if action == "add":
        _add(settings, guard or "", new)
    elif action == "remove":
        from shield_engine.guards.onnx import remove_onnx

        remove_onnx(settings, guard or "")
        note(f"guard {guard} was removed; its runs stay")
    elif action == "check":
        shield = open_shield(settings)
        entry = find_guard(tuple(shield.guards.values()), guard or "")
        probes = shield.check_guard(entry)
        print_table(_PROBES, probes, title=f"{entry.title} ({entry.task.value})")
        if any(probe.passed is False for probe in probes):
            raise typer.Exit(EXIT_FAILED)
    elif action == "catalogue":
        registry = open_shield(settings).registry
        columns: Mapping[str, Callable[[KnownModel], str]] = {
            "name": lambda model: model.name,
            "task": lambda model: model.task.value,
            "licence": lambda model: model.licence + (", gated" if model.gated else ""),
            "window": lambda model: str(model.max_length),
            "here": lambda model: model.state(registry),
        }
        print_table(columns, known_models())
    else:
        shield = open_shield(settings)
        print_table(_COLUMNS, shield.guards.values(), empty="no guard yet; see: shield guards add")


def _add(settings: Settings, name: str, new: NewGuard) -> None:
    from shield_engine.guards import add_guard
    from shield_engine.guards.onnx import add_onnx

    path = settings.guards_path
    if not new.is_model:
        models = {model.id for model in open_shield(settings).registry.entries}
        entry = add_guard(path, new.values(name), taken=models)
        note(f"{path}: guard {entry.name} ({entry.kind}, {entry.task.value}) was added")
        return
    with progress_bar(name) as advance:
        added = add_onnx(
            new.model(name),
            settings,
            lambda done, total: advance("bytes", done / total if total else 0.0),
        )
    note(
        f"{path}: guard {added.guard.name} ({added.guard.task.value}) was added; an attack scores "
        f"{added.attack:.3f}, a harmless text {added.harmless:.3f}"
    )
    for line in added.notes:
        note(line)


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
_PROBES: Mapping[str, Callable[[Probe], str]] = {
    "": lambda probe: {True: "pass", False: "FAIL", None: "-"}[probe.passed],
    "probe": lambda probe: probe.title,
    "evidence": lambda probe: probe.evidence,
}
