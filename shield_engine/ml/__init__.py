"""ONNX classifiers: which there are, how their files arrive, and how they score a text."""

from __future__ import annotations

from shield_engine.ml.download import ArtifactStore, ModelFiles
from shield_engine.ml.inference import InferenceEngine, MLScore, WindowScore
from shield_engine.ml.loader import LoadedInfo, LoadedModel, ModelLoader
from shield_engine.ml.registry import ModelEntry, ModelRegistry, NewerRevision

__all__ = [
    "ArtifactStore",
    "InferenceEngine",
    "LoadedInfo",
    "LoadedModel",
    "MLScore",
    "ModelEntry",
    "ModelFiles",
    "ModelLoader",
    "ModelRegistry",
    "NewerRevision",
    "WindowScore",
]
