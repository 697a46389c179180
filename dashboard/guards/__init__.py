"""The page Guards."""
