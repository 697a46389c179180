"""Every error a caller may want to catch; each message says what, where and what to do next."""

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DatasetError",
    "GuardError",
    "InferenceError",
    "RegistryError",
    "ShieldError",
    "StoreBusyError",
    "StoreError",
    "TrainingError",
    "UnknownNameError",
]


class ShieldError(Exception):
    """Root of all errors that LLM Shield raises on purpose."""


class ConfigError(ShieldError):
    """A setting, preset, policy or flag has a value that cannot be used."""


class UnknownNameError(ShieldError):
    """A model, dataset, run, scanner or rule of that name does not exist."""


class RegistryError(ShieldError):
    """The model registry does not follow its schema; the message names file, line and entry."""


class ArtifactError(ShieldError):
    """A model or tokenizer file is missing, altered, or cannot be fetched."""


class DatasetError(ShieldError):
    """A dataset file cannot be read or mapped; the message names path, line and value."""


class InferenceError(ShieldError):
    """A model ran and failed: not finite, wrongly shaped, or out of time."""


class GuardError(ShieldError):
    """A guard as a whole is out of order: it answers no call, so a run over it stops."""


class StoreError(ShieldError):
    """The store cannot be opened, migrated or written."""


class StoreBusyError(StoreError):
    """Another process holds the store."""


class TrainingError(ShieldError):
    """Training cannot start or finish."""
