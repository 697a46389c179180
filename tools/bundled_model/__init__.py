"""Makes the bundled model: `python -m tools.bundled_model`. Not part of the wheel."""
