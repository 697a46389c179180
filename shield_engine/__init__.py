"""LLM Shield's engine: scans texts, scores datasets, decides between guards.

The public face. Names are imported when they are first asked for, so `import shield_engine` loads
neither numpy nor ONNX Runtime.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shield_engine.config import AllowList, Bands, CacheConfig, MLConfig, ScannerConfig
    from shield_engine.engine import Shield
    from shield_engine.errors import ShieldError
    from shield_engine.pipeline import (
        Anonymize,
        Deanonymize,
        PipelineResult,
        ScannerPipeline,
        Vault,
    )
    from shield_engine.policy import Policy
    from shield_engine.scanners import Scanner
    from shield_engine.settings import Settings
    from shield_engine.types import Entity, Mode, RiskFactor, ScanResult, Severity, Task, Variant

__all__ = [
    "AllowList",
    "Anonymize",
    "Bands",
    "CacheConfig",
    "Deanonymize",
    "Entity",
    "MLConfig",
    "Mode",
    "PipelineResult",
    "Policy",
    "RiskFactor",
    "ScanResult",
    "Scanner",
    "ScannerConfig",
    "ScannerPipeline",
    "Settings",
    "Severity",
    "Shield",
    "ShieldError",
    "Task",
    "Variant",
    "Vault",
]

_MODULES = MappingProxyType(
    {
        "config": ("AllowList", "Bands", "CacheConfig", "MLConfig", "ScannerConfig"),
        "engine": ("Shield",),
        "errors": ("ShieldError",),
        "pipeline": ("Anonymize", "Deanonymize", "PipelineResult", "ScannerPipeline", "Vault"),
        "policy": ("Policy",),
        "scanners": ("Scanner",),
        "settings": ("Settings",),
        "types": ("Entity", "Mode", "RiskFactor", "ScanResult", "Severity", "Task", "Variant"),
    }
)
_HOMES = MappingProxyType({name: module for module, names in _MODULES.items() for name in names})


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
