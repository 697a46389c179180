"""How sure a figure is: intervals, resampling, paired tests. Knows arrays, nothing of texts."""

from shield_engine.statistics.intervals import Figure

__all__ = ["Figure"]
