"""ONNX models as guards: from a hub, this machine or an installed package into the registry.

`add_onnx` reads what the model says of itself, pins every file by its hash, tries an attack and a
harmless text, and only then writes: nothing is left behind by one that cannot be used. Hides how
labels are spelled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from shield_engine.documents import Shape
from shield_engine.errors import ArtifactError, ConfigError
from shield_engine.guards.catalogue import KnownModel, find_known
from shield_engine.guards.document import add_guard, read_guards, remove_guard
from shield_engine.guards.entry import OnnxEntry
from shield_engine.guards.model_files import ModelParts, parts_of_hub, parts_of_machine
from shield_engine.guards.probes import ATTACKS, HARMLESS
from shield_engine.ml import ArtifactStore, InferenceEngine, ModelEntry, ModelLoader, ModelRegistry
from shield_engine.ml.download import FetchProgress
from shield_engine.ml.loader import read_heads
from shield_engine.settings import Settings, bundled, replacing
from shield_engine.types import LABELS, Task, Variant

__all__ = ["AddedModel", "NewOnnx", "add_onnx", "remove_onnx"]

_HUB_SOURCE = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_DEFAULT_WINDOW = 512
_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "camembert", "bertweet", "mpnet", "longformer", "xlm-roberta-xl"}
)
"""Model types whose positions start behind the padding id: their window is that much shorter."""

_SURE = 0.3  # how far an attack and a harmless text must lie apart to tell which label is risky


_SPELLINGS: Mapping[Task, Mapping[str, str]] = MappingProxyType(
    {
        Task.PROMPT_INJECTION: {
            "benign": "benign safe legit legitimate clean normal harmless noinjection "
            "notinjection noninjection",
            "injection": "injection promptinjection jailbreak malicious attack unsafe harmful "
            "indirectinjection",
        },
        Task.TOXICITY: {
            "clean": "clean neutral nontoxic nottoxic nothate nonhate notoffensive nonoffensive "
            "safe normal",
            "toxic": "toxic toxicity severetoxic severetoxicity obscene threat insult "
            "identityhate identityattack hate offensive sexualexplicit unsafe abusive",
        },
        Task.SENTIMENT: {
            "negative": "negative neg",
            "neutral": "neutral neu",
            "positive": "positive pos",
        },
    }
)
"""By task: how known models spell each of its labels, without case, spaces, dashes."""


@dataclass(frozen=True, kw_only=True)
class NewOnnx:
    """What is to be added; all but the source is read from the model where it says so.

    Attributes:
        source: `hf:OWNER/NAME[@REVISION]`, a path, `package:NAME/path`, or a name of the catalogue.
        task: What it is about.
        name: What candidates are called.
        labels: Meaning of its outputs: `benign,injection` in the model's order, or
            `SAFE=benign,BAD=injection` by its own names.
        file: Path of the ONNX file inside the repository, where it holds several.
        tokenizer: Of a model on this machine; beside it by default.
        head: `softmax` if the labels exclude each other, `sigmoid` if each stands alone.
        output: Which output of the graph, where it has several.
        temperature: What its logits are divided by.
        threshold: A risk at or above it is flagged.
        max_length: Window in tokens.
    """

    source: str
    task: Task | None = None
    name: str | None = None
    labels: str | None = None
    file: str | None = None
    tokenizer: Path | None = None
    head: Literal["softmax", "sigmoid"] | None = None
    output: str | None = None
    temperature: float | None = None
    threshold: float | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class AddedModel:
    """What was written.

    Attributes:
        guard: Entry of `guards.toml`.
        model: Entry of the registry.
        attack: Score of the attack that was tried.
        harmless: Score of the harmless text.
        notes: What a user should know.
    """

    guard: OnnxEntry
    model: ModelEntry
    attack: float
    harmless: float
    notes: tuple[str, ...] = ()


def add_onnx(new: NewOnnx, settings: Settings, progress: FetchProgress | None = None) -> AddedModel:
    """Fetch a model, try it, and write its entries into the registry and `guards.toml`.

    Raises:
        ConfigError: Something only the user knows is missing; the message names the option.
        ArtifactError: A file could not be had, or is not what it should be.
        RegistryError: The user's registry is broken.
    """
    known = find_known(new.source)
    store = ArtifactStore(settings.models, offline=settings.offline, hub_token=settings.hub_token)
    source = known.source if known and new.source == known.name else new.source
    hub = _HUB_SOURCE.fullmatch(source)
    if source.startswith("hf:") and hub is None:
        raise ConfigError(
            f"{source} is no hub model; write hf:OWNER/NAME or hf:OWNER/NAME@REVISION"
        )
    if hub is not None:
        parts = parts_of_hub(hub.group(1), hub.group(2), new.file, store, progress)
    else:
        parts = parts_of_machine(source, new.tokenizer, store)
        known = known or find_known(parts.model.sha256)
    name = new.name or (known.name if known else parts.title)
    _check_name(name, settings)
    plan = _Plan(new, parts, known, name)
    with replacing(settings.registry_path) as partial:
        settings.registry_path.parent.mkdir(parents=True, exist_ok=True)
        row, before = plan.row(store), _rows(settings.registry_path)
        others = [other for other in before["models"] if _key(other) != _key(row)]
        document = before | {"models": [*others, row]}
        partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        entry = ModelRegistry.load(partial).get(row["id"], Variant(row["variant"]))
        attack, harmless = _tried(entry, store)
        notes = plan.judged(attack, harmless)
    guard = add_guard(settings.guards_path, plan.guard(entry))
    if not isinstance(guard, OnnxEntry):  # for the type; its kind was written as onnx
        raise ConfigError(f"guard {name} is of kind {guard.kind}")
    return AddedModel(guard, entry, attack, harmless, notes)


def remove_onnx(settings: Settings, name: str) -> None:
    """Take a guard out of `guards.toml`, and its model out of the user's registry if no other needs it.

    Files that were fetched stay: runs refer to their hash.

    Raises:
        UnknownNameError: There is no such guard.
    """
    guards = read_guards(settings.guards_path)
    gone = [guard for guard in guards if guard.name == name]
    remove_guard(settings.guards_path, name)
    needed = {
        (guard.model, guard.variant)
        for guard in guards
        if isinstance(guard, OnnxEntry) and guard.name != name
    }
    path = settings.registry_path
    for guard in gone:
        if isinstance(guard, OnnxEntry) and (guard.model, guard.variant) not in needed:
            document = _rows(path)
            rows = [row for row in document["models"] if _key(row) != (guard.model, guard.variant)]
            if path.exists() and len(rows) < len(document["models"]):
                with replacing(path) as partial:
                    text = json.dumps(document | {"models": rows}, indent=2) + "\n"
                    partial.write_text(text, encoding="utf-8")


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("id")), str(row.get("variant"))


def _rows(path: Path) -> dict[str, Any]:
    """Return the user's registry, as it is written."""
    if not path.exists():
        return {"schema": 1, "models": []}
    ModelRegistry.load(path)  # a broken file is told of, not overwritten
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    return document


def _check_name(name: str, settings: Settings) -> None:
    models = {entry.id for entry in ModelRegistry.load(bundled("models", "registry.json")).entries}
    models |= {str(row.get("id")) for row in _rows(settings.registry_path)["models"]}
    if name in models:
        raise ConfigError(f"a model is called {name}; give the guard another name with --name")
    if any(guard.name == name for guard in read_guards(settings.guards_path)):
        raise ConfigError(
            f"a guard is called {name} already; remove it, or give this one another with --name"
        )


class _Plan:
    """How one model becomes an entry of the registry and one of `guards.toml`."""

    def __init__(
        self, new: NewOnnx, parts: ModelParts, known: KnownModel | None, name: str
    ) -> None:
        self._new = new
        self._parts = parts
        self._known = known
        self._name = name
        self._widths, self._carried = read_heads(parts.model.path)
        self._own = self._own_labels()
        self.task = self._task()

    def row(self, store: ArtifactStore) -> dict[str, Any]:
        """Return the registry entry; raises `ConfigError` if the labels must be asked for."""
        classes = self._classes()
        if classes is None:
            raise self._unclear(store)
        return self._row(classes)

    def guard(self, entry: ModelEntry) -> dict[str, Any]:
        """Return the entry of `guards.toml`."""
        version = self._parts.revision or self._parts.model.sha256
        values: dict[str, Any] = {
            "name": self._name,
            "kind": OnnxEntry.kind,
            "task": self.task.value,
            "model": entry.id,
            "variant": entry.variant.value,
            "version": version[:12],
            "threshold": entry.thresholds["ml"],
        }
        if self._known:
            values["languages"] = list(self._known.languages)
        return values

    def judged(self, attack: float, harmless: float) -> tuple[str, ...]:
        """Return what the two tried texts tell of the labels.

        Raises:
            ConfigError: They look turned round, and the user did not say how they are.
        """
        if attack > harmless:
            return ()
        sentence = f"a harmless text scores {harmless:.3f} and an attack {attack:.3f}"
        if self._new.labels is None and harmless - attack > _SURE:
            raise ConfigError(
                f"{sentence}: the labels {', '.join(self._own)} look turned round; name them in "
                f"the model's order with --labels, such as {','.join(LABELS[self.task])}"
            )
        return (f"{sentence}; see shield guards check {self._name}",)

    def _own_labels(self) -> tuple[str, ...]:
        """Return the model's labels as it names them, or numbered ones."""
        table = self._parts.config.get("id2label")
        if table is None and "id2label" in self._carried:
            table = json.loads(self._carried["id2label"])
        if isinstance(table, dict):
            try:
                table = [str(table[str(position)]) for position in range(len(table))]
            except KeyError as error:
                raise ArtifactError(f"id2label of {self._name} has no label {error}") from error
        width = self._widths[self._output()]
        if isinstance(table, list) and table and width in {None, len(table)}:
            return tuple(map(str, table))
        given = self._new.labels.count(",") + 1 if self._new.labels else None
        size = width or given or (len(self._known.labels) if self._known else 0)
        if not size:
            raise ConfigError(
                f"{self._name} does not say what its outputs mean; name them in the model's order "
                "with --labels, such as --labels benign,injection"
            )
        return tuple(f"LABEL_{position}" for position in range(size))

    def _output(self) -> str:
        names = list(self._widths)
        wanted = self._new.output
        if wanted is not None and wanted not in names:
            raise ConfigError(f"{self._name} has no output {wanted}; it has {', '.join(names)}")
        if wanted is None and len(names) > 1 and "logits" not in names:
            raise ConfigError(f"{self._name} has outputs {', '.join(names)}; name one: --output")
        return wanted or ("logits" if "logits" in names else names[0])

    def _task(self) -> Task:
        if self._new.task:
            return self._new.task
        if self._known:
            return self._known.task
        # The risky labels tell: `safe` and `neutral` are labels of several tasks.
        fitting = [task for task in Task if _spelled(self._own, task) is not None]
        if len(fitting) == 1:
            return fitting[0]
        raise ConfigError(
            f"the labels of {self._name} ({', '.join(self._own)}) do not say what it is about; "
            f"name it with --task: {', '.join(task.value for task in Task)}"
        )

    def _classes(self) -> tuple[str, ...] | None:
        """Return the task's label of each output; `None` if nobody says."""
        own, known = self._own, self._known
        if self._new.labels is not None:
            return self._given(self._new.labels)
        if known is not None and known.task is self.task:
            if len(known.labels) != len(own):
                raise ConfigError(
                    f"{self._name} has {len(own)} labels ({', '.join(own)}), the catalogue knows "
                    f"{len(known.labels)}; name them in the model's order with --labels"
                )
            return known.labels
        return _spelled(own, self.task)

    def _given(self, labels: str) -> tuple[str, ...]:
        """Return what the user said of the labels, in the model's order."""
        classes, parts = LABELS[self.task], [part.strip() for part in labels.split(",")]
        if "=" in labels:
            named = {
                key.strip(): value.strip() for key, _, value in (p.partition("=") for p in parts)
            }
            unknown = sorted(set(named) ^ set(self._own))
            if unknown:
                raise ConfigError(
                    f"--labels is to name each of {', '.join(self._own)} once; wrong: "
                    f"{', '.join(unknown)}"
                )
            parts = [named[label] for label in self._own]
        if len(parts) != len(self._own):
            raise ConfigError(
                f"--labels has {len(parts)} labels, the model {len(self._own)}: "
                f"{', '.join(self._own)}"
            )
        wrong = [part for part in parts if part not in classes]
        if wrong:
            raise ConfigError(
                f"--labels has {wrong[0]!r}; {self.task.value} has {', '.join(classes)}"
            )
        return tuple(parts)

    def _unclear(self, store: ArtifactStore) -> ConfigError:
        """Return the question for the labels, with what a try tells of them."""
        classes = LABELS[self.task]
        example = (
            ",".join(classes)
            if len(self._own) == len(classes)
            else ",".join([*classes[:1], *[classes[-1]] * (len(self._own) - 1)])
        )
        hint = f", such as --labels {example}"
        if len(self._own) == 2 and len(classes) == 2:
            entry = _as_entry(self._row(classes))
            attack, harmless = _tried(entry, store)
            if abs(attack - harmless) > _SURE:
                order = classes if attack > harmless else classes[::-1]
                hint = (
                    f"; {self._own[order.index(classes[1])]} is the higher on an attack, so most "
                    f"likely --labels {','.join(order)}"
                )
        return ConfigError(
            f"the labels of {self._name} ({', '.join(self._own)}) do not say which is which; name "
            f"them in the model's order{hint}"
        )

    def _row(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the registry entry with those classes for the model's labels."""
        new, parts, known = self._new, self._parts, self._known
        window = self._window()
        calibration = parts.calibration
        threshold = _first(
            new.threshold,
            known.threshold if known else None,
            calibration.get("highRiskThreshold"),
            0.5,
        )
        temperature = _first(
            new.temperature,
            known.temperature if known else None,
            calibration.get("temperatureT"),
            1.0,
        )
        model = parts.model
        row: dict[str, Any] = {
            "id": f"{re.sub(r'[^A-Za-z0-9]+', '-', self._name).strip('-')}-{model.sha256[:8]}"[
                -100:
            ],
            "task": self.task.value,
            "variant": _variant(model.source).value,
            "description": f"{parts.title}, added as guard {self._name}.",
            "sources": [model.source],
            "sha256": model.sha256,
            "size_bytes": model.path.stat().st_size,
            "labels": list(self._own),
            "label_map": dict(zip(self._own, classes, strict=True)),
            "revision": parts.revision or model.sha256[:12],
            "version": "1.0.0",
            "licence": known.licence if known and parts.licence == "unknown" else parts.licence,
            "max_length": window,
            "stride": window // 4,
            "tokenizer_sources": [parts.tokenizer.source],
            "tokenizer_sha256": parts.tokenizer.sha256,
            "post_processing": self._head(classes),
            "thresholds": {"ml": threshold, "both": threshold},
            "temperature": temperature,
            "default_optimisations": True,
        }
        output = self._output()
        return row | ({"output": output} if len(self._widths) > 1 and output != "logits" else {})

    def _head(self, classes: Sequence[str]) -> str:
        if self._new.head:
            return self._new.head
        if self._known:
            return self._known.post_processing
        is_multiple = self._parts.config.get("problem_type") == "multi_label_classification"
        # Without a label for the safe side nothing can be left over for it.
        return "sigmoid" if is_multiple or len(set(classes)) == 1 else "softmax"

    def _window(self) -> int:
        if self._new.max_length or self._known:
            return self._new.max_length or (self._known.max_length if self._known else 0)
        config = self._parts.config
        positions = config.get("max_position_embeddings")
        if not isinstance(positions, int) or positions < 8:
            return _DEFAULT_WINDOW
        if config.get("model_type") in _OFFSET_POSITIONS:
            padding = config.get("pad_token_id")
            return positions - (padding if isinstance(padding, int) else 1) - 1
        return positions


def _spelled(own: Sequence[str], task: Task) -> tuple[str, ...] | None:
    """Return the task's label of each of a model's, if all are known spellings and the risk is there."""
    table = _SPELLINGS[task]
    plain = [re.sub(r"[\W_]+", "", label.casefold()) for label in own]
    classes = [
        next((name for name, spellings in table.items() if label in spellings.split()), None)
        for label in plain
    ]
    names = tuple(name for name in classes if name is not None)
    risky = LABELS[task][0] if task is Task.SENTIMENT else LABELS[task][1]
    return names if len(names) == len(own) and risky in names else None


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _variant(source: str) -> Variant:
    """Return the precision that a file's name tells."""
    name = source.rpartition("/")[2].casefold()
    if any(word in name for word in ("quant", "int8", "uint8", "q8")):
        return Variant.INT8
    return Variant.FP16 if "fp16" in name or "float16" in name else Variant.FP32


def _as_entry(row: Mapping[str, Any]) -> ModelEntry:
    def fail(_: str | None, sentence: str) -> ConfigError:
        return ConfigError(f"{row['id']}: {sentence}")

    return Shape(ModelEntry).read({"metrics": {}, **row}, fail, root=Path())


def _tried(entry: ModelEntry, store: ArtifactStore) -> tuple[float, float]:
    """Return the scores of an attack and of a harmless text."""
    loader = ModelLoader(ModelRegistry([entry]), store)
    with InferenceEngine(loader.load(entry)) as engine:
        attack, harmless = (texts[entry.task][0] for texts in (ATTACKS, HARMLESS))
        return engine.infer(attack).score, engine.infer(harmless).score
