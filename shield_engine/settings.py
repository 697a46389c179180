"""Where things lie: the one place that reads the environment and finds what travels with the package.

| variable | meaning | default |
| --- | --- | --- |
| `SHIELD_HOME` | folder of the store, downloaded models, bundles and logs | the platform's user data directory |
| `SHIELD_OFFLINE` | `1`: nothing is fetched, a missing model is an error | `0` |
| `SHIELD_REGISTRY` | a registry file of your own, read after the bundled one | none |
| `SHIELD_WORKERS` | threads that score rows | number of usable CPUs |
| `SHIELD_MAX_MODEL_MB` | refuse to load models beyond this memory | no limit |
| `SHIELD_DATA_ROOTS` | folders the dashboard may read files from, `:`-separated | none: upload only |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shield_engine.errors import ArtifactError, ConfigError

__all__ = ["Settings", "bundled", "usable_cpus"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things lie and how much of the machine may be used."""

    home: Path
    offline: bool = False
    registry: Path | None = None
    workers: int = 1
    max_model_mb: int | None = None
    data_roots: tuple[Path, ...] = ()
    guards: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `env` (the process environment by default).

        Raises:
            ConfigError: A variable has a value that cannot be used.
        """
        env = os.environ if env is None else env
        home = env.get("SHIELD_HOME")
        registry = env.get("SHIELD_REGISTRY")
        return cls(
            home=Path(home).expanduser().absolute() if home else _default_home(),
            offline=_flag(env, "SHIELD_OFFLINE"),
            registry=Path(registry).expanduser().absolute() if registry else None,
            workers=_positive(env, "SHIELD_WORKERS") or usable_cpus(),
            max_model_mb=_positive(env, "SHIELD_MAX_MODEL_MB"),
            data_roots=tuple(
                Path(root).expanduser().absolute()
                for root in env.get("SHIELD_DATA_ROOTS", "").split(os.pathsep)
                if root
            ),
        )

    @property
    def store_path(self) -> Path:
        """The DuckDB file."""
        return self.home / "shield.duckdb"

    @property
    def bundles(self) -> Path:
        """Runs written while another process held the store; its owner imports them."""
        return self.home / "bundles"

    @property
    def guards_path(self) -> Path:
        """The guards that the user declared."""
        return self.guards or self.home / "guards.toml"

    @property
    def answers(self) -> Path:
        """What outside guards answered in runs that are not finished."""
        return self.home / "answers"

    @property
    def models(self) -> Path:
        """Downloaded model files."""
        return self.home / "models"


def bundled(*parts: str) -> Path:
    """Return the path of a bundled file or folder, such as `bundled("models", "registry.json")`.

    A wheel carries `models/` and `datasets/` inside the package (`_bundled/`); a checkout has them
    beside it. The wheel's copy is looked for first, as a checkout never has one.

    Raises:
        ArtifactError: Nothing of that name travels with the package.
    """
    package = Path(__file__).resolve().parent
    candidates = (package / "_bundled", package.parent)
    for root in candidates:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    searched = " or ".join(str(root.joinpath(*parts)) for root in candidates)
    raise ArtifactError(
        f"bundled file {'/'.join(parts)} is missing: neither {searched} exists; "
        "install the package again or restore the checkout"
    )


def usable_cpus() -> int:
    """Return how many CPUs this process may use (a container's share, not the machine's)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("llm-shield", appauthor=False))


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "").strip().lower()
    if value in {"", "0", "false", "no", "off"}:
        return False
    if value in {"1", "true", "yes", "on"}:
        return True
    raise ConfigError(f"{name}={value!r} is not a switch; use 1 or 0")


def _positive(env: Mapping[str, str], name: str) -> int | None:
    value = env.get(name, "").strip()
    if not value:
        return None
    if not value.isdecimal() or int(value) == 0:
        raise ConfigError(f"{name}={value!r} is not a whole number above 0")
    return int(value)
