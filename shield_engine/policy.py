"""A policy: what was decided on (mode, threshold, bands, model), and on what evidence.

Saved in the store under a name and version, exported as `shield.toml`, loaded by the library and
the command. Hides the file format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from shield_engine.config import Bands, MLConfig, ScannerConfig, check_share, check_task
from shield_engine.decision import Stage, cascade_digest, check_cascade
from shield_engine.documents import Constraint, Shape, read_toml
from shield_engine.errors import ConfigError
from shield_engine.types import LABELS, Mode, Task, Variant

__all__ = [
    "FORMAT",
    "SENTIMENT_LABELS",
    "Policy",
    "policy_differences",
    "read_policies",
    "write_policies",
]

FORMAT = 1
"""Version of the file format; a file of a later one is refused."""

SENTIMENT_LABELS = ("neutral", "positive")
"""Labels of sentiment that pass where nobody chose others."""
_VERSION = Constraint("{value!r} is no whole number from 0", lambda version: version >= 0)


@dataclass(frozen=True, slots=True)
class Policy:
    """How one scanner decides, by name and version.

    Attributes:
        name: Shown to users; versions of one name follow one another.
        task: Whose scanner.
        mode: Which parts decide.
        threshold: A text is flagged if its score is at least this; `None` where the most probable
            of three labels decides.
        bands: Where hybrid stops asking the model.
        model_id: Registry id of the model the threshold was chosen for; `None` for heuristics.
        variant: Its precision.
        model_sha256: Its file; another file's scores make the threshold void. Of a guard, the
            fingerprint of its declaration.
        guard: Name of the guard that takes the model's place; `None` for models and heuristics.
        guard_version: Its version then; part of the fingerprint.
        cascade: Guards asked in order instead of one model or guard, in mode `ml`; the last decides
            at the threshold.
        rules_version: Rule set the threshold was chosen with.
        allowed_labels: Sentiment: labels that pass.
        version: Set by the store, from 1; 0 while unsaved.
        note: Why, in the user's words.
        evidence: What the choice rests on: run, rows, split, figures; plain JSON.
    """

    name: str
    task: Task
    mode: Mode
    threshold: float | None
    bands: Bands = field(default_factory=Bands)
    model_id: str | None = None
    variant: Variant | None = None
    model_sha256: str | None = None
    guard: str | None = None
    guard_version: str | None = None
    cascade: tuple[Stage, ...] = ()
    rules_version: str | None = None
    allowed_labels: tuple[str, ...] = SENTIMENT_LABELS
    version: Annotated[int, _VERSION] = 0
    note: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise ConfigError(f"a policy needs a name on one line, got {self.name!r}")
        if self.threshold is not None:
            check_share(f"threshold of policy {self.name}", self.threshold)
        elif self.task is not Task.SENTIMENT:
            raise ConfigError(f"policy {self.name} ({self.task.value}) needs a threshold")
        unknown = [name for name in self.allowed_labels if name not in LABELS[Task.SENTIMENT]]
        if unknown:
            raise ConfigError(
                f"policy {self.name} allows unknown label {', '.join(unknown)}; "
                f"there are {', '.join(LABELS[Task.SENTIMENT])}"
            )
        if self.cascade:
            self._check_cascade()
        elif self.guard is None:
            if self.guard_version is not None:
                raise ConfigError(f"policy {self.name} has a guard_version and names no guard")
            if self.mode is not Mode.HEURISTIC and (self.model_id is None or self.variant is None):
                raise ConfigError(
                    f"policy {self.name} is of mode {self.mode.value} and must name model and "
                    "variant, or a guard"
                )
        elif self.model_id is not None or self.variant is not None:
            raise ConfigError(
                f"policy {self.name} names guard {self.guard} and a model; a guard takes the "
                "model's place"
            )
        elif not self.guard.strip() or not self.guard.isprintable():
            raise ConfigError(
                f"policy {self.name}: guard is a name on one line, got {self.guard!r}"
            )

    def _check_cascade(self) -> None:
        where = f"policy {self.name}"
        check_cascade(where, self.cascade, self.threshold)
        if self.mode is not Mode.ML or self.task is Task.SENTIMENT:
            raise ConfigError(f"{where}: a cascade is of mode ml, for two classes")
        if self.scorer_id != self.name or self.model_sha256 is not None:
            raise ConfigError(f"{where} has a cascade and names a model or guard beside it")

    @property
    def title(self) -> str:
        """Name and version, as shown to users."""
        return f"{self.name} v{self.version}" if self.version else f"{self.name} (unsaved)"

    @property
    def scorer_id(self) -> str | None:
        """Guard's name or model's id: what a run of it is started with."""
        return self.guard or self.model_id or (self.name if self.cascade else None)

    @property
    def scorer_sha256(self) -> str | None:
        """Digest of what its threshold is for, as `RunInfo.model_sha256` has it, where known."""
        if self.cascade:
            return cascade_digest(self.task, self.cascade, self.threshold or 0.0)
        return self.model_sha256

    @property
    def scorer(self) -> str | None:
        """What scores beside the rules, as `RunInfo.scorer` calls it; `None` if nothing does."""
        if self.cascade:
            return " → ".join(stage.title for stage in self.cascade)
        if self.guard is not None:
            return f"{self.guard} {self.guard_version or ''}".rstrip()
        return f"{self.model_id} {self.variant}" if self.model_id else None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Policy:
        """Return the policy that `as_document` gave.

        Raises:
            ConfigError: A key is unknown or missing, or a value cannot be used.
        """
        name = document.get("name")
        where = f"policy {name}" if isinstance(name, str) else "a policy"
        values: dict[str, Any] = {"threshold": None, **document}
        model = values.pop("model", {})
        if not isinstance(model, Mapping):
            raise ConfigError(f"{where}: model is a table, got {model!r}")
        values |= {f"model.{key}": value for key, value in model.items()}
        if isinstance(bands := values.get("bands"), Mapping):
            # A table without `safe` comes from before the linear tier, or leaves it out.
            values["bands"] = {"safe": None, **bands}
        return _SHAPE.read(values, lambda _, sentence: ConfigError(f"{where}: {sentence}"))

    def as_document(self) -> dict[str, Any]:
        """Return the policy as plain JSON and TOML values; what is `None` is left out."""
        document: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "task": self.task.value,
            "mode": self.mode.value,
            "threshold": self.threshold,
            "bands": _without_none(asdict(self.bands)) if self.mode is Mode.HYBRID else None,
            "model": _without_none(
                {
                    "id": self.model_id,
                    "variant": None if self.variant is None else self.variant.value,
                    "sha256": self.model_sha256,
                }
            )
            or None,
            "guard": self.guard,
            "guard_version": self.guard_version,
            "cascade": [_plain(asdict(stage)) for stage in self.cascade] or None,
            "rules_version": self.rules_version,
            "allowed_labels": list(self.allowed_labels) if self.task is Task.SENTIMENT else None,
            "note": self.note or None,
            "evidence": _plain(self.evidence) or None,
        }
        return _without_none(document)

    def scanner_config(self) -> ScannerConfig:
        """Return the settings of a scanner that obeys this policy, and never falls back."""
        if self.mode is Mode.HEURISTIC:
            ml = MLConfig.disabled()
        else:
            ml = MLConfig(
                enabled=True,
                variant=self.variant,
                threshold=None,
                use_fallback=False,
                model_id=self.scorer_id,
            )
        return ScannerConfig(
            mode=self.mode,
            ml=ml,
            threshold=self.threshold,
            bands=self.bands,
            allowed_labels=self.allowed_labels,
        )


_SHAPE = Shape(
    Policy,
    names={"model_id": "model.id", "variant": "model.variant", "model_sha256": "model.sha256"},
    unknown="has no {keys}; it knows {known}",
    missing="needs {keys} as text",
)


def policy_differences(first: Policy, second: Policy) -> list[tuple[str, str, str]]:
    """Return (what, in the first, in the second) of each thing that two policies decide apart.

    Evidence is compared by its leaves, named with dots.
    """
    before, after = _leaves(first.as_document()), _leaves(second.as_document())
    names = [*before, *(name for name in after if name not in before)]
    return [
        (name, before.get(name, "-"), after.get(name, "-"))
        for name in names
        if before.get(name, "-") != after.get(name, "-")
    ]


def read_policies(path: Path) -> dict[Task, Policy]:
    """Read a `shield.toml`: one policy a task.

    Raises:
        ConfigError: The file is missing, no TOML, of a later format, or a policy is unfit.
    """
    document = read_toml(path, f"policy file {path}")
    version = document.pop("format", None)
    if version != FORMAT:
        raise ConfigError(f"policy file {path} has format {version!r}, this program reads {FORMAT}")
    policies = {}
    for key, table in document.items():
        if not isinstance(table, dict):
            raise ConfigError(f"policy file {path}: {key} is no table such as [prompt_injection]")
        try:
            task = check_task(key)
            policy = Policy.from_document({"task": key} | table)
        except ConfigError as error:
            raise ConfigError(f"policy file {path}, [{key}]: {error}") from error
        if policy.task is not task:
            raise ConfigError(f"policy file {path}: [{key}] holds a policy for {policy.task.value}")
        policies[task] = policy
    if not policies:
        raise ConfigError(f"policy file {path} holds no policy such as [prompt_injection]")
    return policies


def write_policies(policies: Sequence[Policy]) -> str:
    """Return the text of a `shield.toml` with these policies, one a task.

    Raises:
        ConfigError: Two policies are for one task.
    """
    import tomli_w

    document: dict[str, Any] = {"format": FORMAT}
    for policy in policies:
        if policy.task.value in document:
            raise ConfigError(f"a policy file holds one policy a task; two are {policy.task.value}")
        table = policy.as_document()
        del table["task"]
        document[policy.task.value] = table
    head = "# An LLM Shield policy. Load it with Shield.from_policy, shield scan --policy,\n"
    head += "# shield eval --policy or shield gate --policy.\n\n"
    return head + tomli_w.dumps(document)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return evidence without what TOML cannot hold: `None` and NaN are left out."""
    if isinstance(value, Mapping):
        plain = {str(name): _plain(item) for name, item in value.items()}
        return {name: item for name, item in plain.items() if item is not None}
    if isinstance(value, list | tuple):
        return [item for item in map(_plain, value) if item is not None]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"evidence holds plain values, got {type(value).__name__}")


def _leaves(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    leaves: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, item in enumerate(value, 1):
                leaves |= _leaves(item, f"{prefix}{name}[{number}].")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            leaves[prefix + name] = text
    return leaves
