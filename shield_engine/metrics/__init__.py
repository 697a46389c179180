"""What a scored set measures: the table of metrics, their figures and curves."""
