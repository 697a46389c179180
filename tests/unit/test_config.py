"""Presets, bands, thresholds and settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from shield_engine.config import Bands, CacheConfig, MLConfig, ScannerConfig, check_task
from shield_engine.errors import ConfigError
from shield_engine.settings import Settings
from shield_engine.types import Mode, Task, Variant


def test_presets_are_those_of_the_reference() -> None:
    """Enabled, threshold, fallback and cache of each preset are as documented."""
    presets = {
        name: (ml.enabled, ml.variant, ml.threshold, ml.use_fallback, ml.cache)
        for name, ml in {
            "default": MLConfig(),
            "disabled": MLConfig.disabled(),
            "production": MLConfig.production(),
            "edge": MLConfig.edge(),
            "high_accuracy": MLConfig.high_accuracy(),
        }.items()
    }
    production, aggressive = CacheConfig(1_000, 3_600), CacheConfig(10_000, 7_200)
    assert presets == {
        "default": (False, Variant.FP16, 0.5, True, production),
        "disabled": (False, Variant.FP16, 0.5, True, production),
        "production": (True, None, 0.5, True, production),
        "edge": (True, Variant.INT8, 0.6, True, CacheConfig(100, 600)),
        "high_accuracy": (True, None, 0.3, False, aggressive),
    }
    assert CacheConfig.minimal() == CacheConfig(10, 60)
    assert CacheConfig.disabled() == CacheConfig(0, 0)


def test_threshold_comes_from_scanner_then_preset_then_registry() -> None:
    """The most specific threshold wins; without any it is .5."""
    registry = {"ml": 0.7}
    evaluation = MLConfig.evaluation()
    assert ScannerConfig(Mode.ML, evaluation, threshold=0.2).threshold_for(Mode.ML, registry) == 0.2
    assert ScannerConfig(Mode.ML, MLConfig.edge()).threshold_for(Mode.ML, registry) == 0.6
    assert ScannerConfig(Mode.ML, evaluation).threshold_for(Mode.ML, registry) == 0.7
    assert ScannerConfig(Mode.HYBRID, evaluation).threshold_for(Mode.HYBRID, registry) == 0.5


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_outside_0_to_1_is_refused(threshold: float) -> None:
    """Neither a scanner nor a preset takes a threshold that is no share."""
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ScannerConfig(threshold=threshold)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        MLConfig(threshold=threshold)


def test_crossed_bands_are_refused() -> None:
    """A lower band at or above the upper one has no meaning."""
    with pytest.raises(ConfigError, match="cross"):
        Bands(upper=0.5, lower=0.5)


def test_mode_that_needs_a_model_needs_ml_enabled() -> None:
    """Asking for hybrid with ML disabled is an error, not silently heuristic."""
    with pytest.raises(ConfigError, match="needs a model"):
        ScannerConfig(mode=Mode.HYBRID)


def test_unknown_task_lists_the_tasks_there_are() -> None:
    """A misspelt task's message names the choices."""
    assert check_task("toxicity") is Task.TOXICITY
    with pytest.raises(ConfigError, match="prompt_injection, toxicity, sentiment"):
        check_task("toxic")


def test_negative_cache_is_refused() -> None:
    """Sizes and lives below 0 are errors."""
    with pytest.raises(ConfigError, match="below 0"):
        CacheConfig(-1, 10)


def test_settings_read_the_environment(tmp_path: Path) -> None:
    """Each variable ends where it belongs."""
    settings = Settings.from_env(
        {
            "SHIELD_HOME": str(tmp_path),
            "SHIELD_OFFLINE": "yes",
            "SHIELD_REGISTRY": str(tmp_path / "r.json"),
            "SHIELD_WORKERS": "3",
            "SHIELD_MAX_MODEL_MB": "200",
            "SHIELD_DATA_ROOTS": f"{tmp_path}/a:{tmp_path}/b",
        }
    )
    assert settings == Settings(
        tmp_path, True, tmp_path / "r.json", 3, 200, (tmp_path / "a", tmp_path / "b")
    )
    assert settings.store_path == tmp_path / "shield.duckdb"


def test_settings_have_defaults() -> None:
    """An empty environment gives the platform's data folder and the usable CPUs."""
    settings = Settings.from_env({})
    assert settings.home.name == "llm-shield"
    assert settings.workers >= 1
    assert not settings.offline


@pytest.mark.parametrize(
    ("name", "value"),
    [("SHIELD_OFFLINE", "maybe"), ("SHIELD_WORKERS", "0"), ("SHIELD_MAX_MODEL_MB", "-5")],
)
def test_unusable_setting_names_its_variable(name: str, value: str) -> None:
    """A bad value is an error that names the variable."""
    with pytest.raises(ConfigError, match=name):
        Settings.from_env({name: value})
