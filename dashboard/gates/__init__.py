"""The page Reports and gates."""
