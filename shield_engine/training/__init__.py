"""Fine-tune a small encoder into a scanner's classifier and export it to ONNX.

Hides PyTorch, transformers and the quantiser: the extra `[train]` is needed here and nowhere else.
`train` makes a model from a user's rows; the makers of the bundled one use the same pieces.
"""

from shield_engine.training.recipe import Recipe
from shield_engine.training.report import TrainingReport
from shield_engine.training.tune import train

__all__ = ["Recipe", "TrainingReport", "train"]
