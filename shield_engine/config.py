"""Settings of scanners as values, with the reference system's presets.

A threshold never enters here as part of a score: it turns stored scores into verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from shield_engine.errors import ConfigError
from shield_engine.types import Mode, Task, Variant

__all__ = ["SAFE_BAND", "AllowList", "Bands", "CacheConfig", "MLConfig", "ScannerConfig"]


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Size and life of a result cache; size 0 stores nothing."""

    size: int = 1_000
    ttl_s: float = 3_600.0

    def __post_init__(self) -> None:
        if self.size < 0 or self.ttl_s < 0:
            raise ConfigError(f"cache size {self.size} and TTL {self.ttl_s} s must not be below 0")

    @classmethod
    def production(cls) -> Self:
        """1,000 results for an hour."""
        return cls(1_000, 3_600.0)

    @classmethod
    def edge(cls) -> Self:
        """100 results for ten minutes."""
        return cls(100, 600.0)

    @classmethod
    def aggressive(cls) -> Self:
        """10,000 results for two hours."""
        return cls(10_000, 7_200.0)

    @classmethod
    def minimal(cls) -> Self:
        """10 results for a minute."""
        return cls(10, 60.0)

    @classmethod
    def disabled(cls) -> Self:
        """Nothing is kept."""
        return cls(0, 0.0)


@dataclass(frozen=True, slots=True)
class MLConfig:
    """Whether, how precisely and how strictly the model is asked.

    Attributes:
        enabled: False makes every scanner heuristic.
        variant: Weights' precision; `None` takes what suits this machine (INT8 on a CPU, FP16
            on a GPU), or the widest in the registry where `widest` is set.
        threshold: Overrides the registry's `balanced` threshold; `None` keeps that.
        use_fallback: On an ML error give the heuristic score (marked) instead of raising.
        cache: The result cache's settings.
        widest: Take the widest variant of the registry where `variant` is `None`.
        timeout_s: Bound of one model call in seconds; `None` waits.
        model_id: Registry id of the model; `None` takes the task's default.
    """

    enabled: bool = False
    variant: Variant | None = Variant.FP16
    threshold: float | None = 0.5
    use_fallback: bool = True
    cache: CacheConfig = field(default_factory=CacheConfig.production)
    widest: bool = False
    timeout_s: float | None = None
    model_id: str | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None:
            check_share("threshold", self.threshold)

    @classmethod
    def disabled(cls) -> Self:
        """Heuristics only."""
        return cls()

    @classmethod
    def production(cls) -> Self:
        """The machine's best variant, threshold .5, with fallback."""
        # The reference names FP16. On a CPU FP16 runs as FP32 with casts and gains nothing.
        return cls(enabled=True, variant=None)

    @classmethod
    def edge(cls) -> Self:
        """INT8, threshold .6, a small cache."""
        return cls(enabled=True, variant=Variant.INT8, threshold=0.6, cache=CacheConfig.edge())

    @classmethod
    def high_accuracy(cls) -> Self:
        """The widest variant there is, threshold .3, no fallback, a large cache."""
        return cls(
            enabled=True,
            variant=None,
            widest=True,
            threshold=0.3,
            use_fallback=False,
            cache=CacheConfig.aggressive(),
        )

    @classmethod
    def evaluation(cls, variant: Variant = Variant.INT8) -> Self:
        """What `shield scan`, `eval` and `suite` use: the registry's threshold, no fallback."""
        return cls(enabled=True, variant=variant, threshold=None, use_fallback=False)


SAFE_BAND = 0.05
"""Where the bundled linear tiers are set to lose at most 0.5% of held-out attacks."""


@dataclass(frozen=True, slots=True)
class Bands:
    """Scores that end a hybrid scan without asking the model.

    Attributes:
        upper: At or above this score of the rules the text is risky for certain.
        lower: At or below this score of the rules it is safe; `None` (the default) never ends a
            scan as safe.
        safe: Where no rule matched, at or below this score of the linear tier it is safe; `None`
            leaves the tier out.
    """

    upper: float = 0.9
    lower: float | None = None
    safe: float | None = SAFE_BAND

    def __post_init__(self) -> None:
        check_share("hybrid upper band", self.upper)
        if self.lower is not None:
            check_share("hybrid lower band", self.lower)
            if self.lower >= self.upper:
                raise ConfigError(
                    f"hybrid bands cross: lower {self.lower} is not below upper {self.upper}"
                )
        if self.safe is not None:
            check_share("hybrid safe band", self.safe)

    def __str__(self) -> str:
        """`lower / upper, tier safe`, as policies and gates show it."""
        lower, safe = ("off" if end is None else f"{end:g}" for end in (self.lower, self.safe))
        return f"{lower} / {self.upper:g}, linear tier {safe}"


@dataclass(frozen=True, slots=True)
class AllowList:
    """Texts a scanner never flags: exact ones, and RE2 patterns that match the whole text."""

    texts: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.texts or self.patterns)


@dataclass(frozen=True, slots=True)
class ScannerConfig:
    """Everything that decides what a scanner says, apart from its model's weights.

    Attributes:
        mode: Which parts decide.
        ml: The model part's settings.
        threshold: Overrides `ml.threshold` and the registry for this scanner.
        bands: Where hybrid stops asking the model.
        allow: Never flagged.
        rules_file: Own rules (TOML), added to the bundled ones.
        disabled_rules: Ids of rules that stay silent.
        cache_enabled: False scans every text anew.
        allowed_labels: Sentiment only: verdicts that pass.
        name: Name of this scanner instance; the scanner's kind by default.
    """

    mode: Mode = Mode.HEURISTIC
    ml: MLConfig = field(default_factory=MLConfig)
    threshold: float | None = None
    bands: Bands = field(default_factory=Bands)
    allow: AllowList = field(default_factory=AllowList)
    rules_file: str | None = None
    disabled_rules: frozenset[str] = frozenset()
    cache_enabled: bool = True
    allowed_labels: tuple[str, ...] = ("neutral", "positive")
    name: str | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None:
            check_share("threshold", self.threshold)
        if self.mode is not Mode.HEURISTIC and not self.ml.enabled:
            raise ConfigError(
                f"mode {self.mode.value} needs a model, but ML is disabled; "
                "use MLConfig.production() or mode heuristic"
            )

    @classmethod
    def for_mode(cls, mode: Mode, variant: Variant = Variant.INT8) -> Self:
        """Return the settings under which the command line scans in `mode`."""
        return cls(mode=mode, ml=MLConfig.evaluation(variant))

    def threshold_for(self, mode: Mode, registry_thresholds: Mapping[str, float]) -> float:
        """Return the threshold in force: this scanner's, the preset's, the registry's, or .5."""
        for threshold in (self.threshold, self.ml.threshold if self.ml.enabled else None):
            if threshold is not None:
                return threshold
        return registry_thresholds.get(mode.value, DEFAULT_THRESHOLD)


DEFAULT_THRESHOLD = 0.5
"""Rules are weighted so that one strong rule passes this; models are trained to it."""


def check_share(name: str, value: float) -> None:
    """Raise `ConfigError` unless `value` lies in 0..1 (NaN does not)."""
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} {value} is not between 0 and 1")


def check_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        ConfigError: There is none; the message lists those there are.
    """
    try:
        return Task(name)
    except ValueError as error:
        choices = ", ".join(task.value for task in Task)
        raise ConfigError(f"unknown task {name!r}; choose one of {choices}") from error
