"""How sure a figure is: intervals, resampling, paired tests. Knows arrays, nothing of texts."""
