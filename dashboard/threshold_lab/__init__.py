"""The page Threshold lab."""
