"""Where things lie and how files are written: the one place that reads the environment.

| variable | meaning | default |
| --- | --- | --- |
| `SHIELD_HOME` | folder of the store, downloaded models, bundles and logs | the platform's user data directory |
| `SHIELD_OFFLINE` | `1`: nothing is fetched, a missing model is an error | `0` |
| `SHIELD_REGISTRY` | your own registry, read after the bundled one | `registry.json` of `SHIELD_HOME` |
| `SHIELD_WORKERS` | threads that score rows | number of usable CPUs |
| `SHIELD_MAX_MODEL_MB` | refuse to load models beyond this memory | no limit |
| `SHIELD_DATA_ROOTS` | folders the dashboard may read files from, `:`-separated | none: upload only |
| `HF_TOKEN` | access token for gated models of the hub; sent to the hub alone | none |
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shield_engine.errors import ArtifactError, ConfigError

__all__ = ["Settings", "bundled", "file_sha256", "replacing", "usable_cpus", "write_file"]


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
    hub_token: str | None = field(default=None, repr=False)

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
            hub_token=env.get("HF_TOKEN") or None,
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
    def registry_path(self) -> Path:
        """The user's own registry; need not be there."""
        return self.registry or self.home / "registry.json"

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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; it takes the place of `path` only once it is whole.

    What was there stays if the writing fails. A pipe or a device is written to as it is.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    target = path.resolve()  # a link stays a link
    partial = target.with_name(f".{target.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; text as UTF-8, with its line ends as they are."""
    with replacing(path) as partial:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
