"""Results, severities and how results combine."""

from __future__ import annotations

import pytest

from shield_engine.types import RiskFactor, ScanResult, Severity


@pytest.mark.parametrize(
    ("score", "band"),
    [
        (0.0, Severity.NONE),
        (1e-9, Severity.LOW),
        (0.4, Severity.MEDIUM),
        (0.7, Severity.HIGH),
        (0.9, Severity.CRITICAL),
        (1.0, Severity.CRITICAL),
    ],
)
def test_severity_bands_start_where_they_say(score: float, band: Severity) -> None:
    """Each bound belongs to the band above it."""
    assert Severity.of(score) is band


def test_combined_result_is_as_bad_as_the_worse() -> None:
    """The higher risk, invalid if either is, reasons of both with the strongest first."""
    weak = RiskFactor("a", "weak", Severity.LOW, 0.2)
    strong = RiskFactor("b", "strong", Severity.CRITICAL, 0.95)
    passed = ScanResult.passed("text", scanner="one", risk_score=0.1)
    failed = ScanResult.failed("text", 0.95, [weak, strong], scanner="two")
    for combined in (passed.combine(failed), failed.combine(passed)):
        assert not combined.is_valid
        assert combined.risk_score == 0.95
        assert combined.severity is Severity.CRITICAL
        assert [factor.score for factor in combined.risk_factors] == [0.95, 0.2]
