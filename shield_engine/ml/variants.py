"""Builds the FP32 file of a model from its FP16 file.

An FP16 file here holds half-precision weights, each followed by a cast to single precision. Taking
the casts out and writing the weights wide loses nothing, so FP32 need not be shipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from shield_engine.errors import ArtifactError, UnknownNameError
from shield_engine.ml.download import ArtifactStore
from shield_engine.ml.registry import ModelEntry, ModelRegistry
from shield_engine.settings import file_sha256
from shield_engine.types import Variant

__all__ = ["HALF_SUFFIX", "build_fp32", "widen"]

HALF_SUFFIX = ".half"
"""Ends the name of each weight that is kept in half precision."""


def build_fp32(
    registry: ModelRegistry, artifacts: ArtifactStore, model_id: str
) -> tuple[ModelEntry, Path]:
    """Build, verify and keep the FP32 file of a model; return its entry and path.

    A file that is there already and verified is left as it is.

    Raises:
        UnknownNameError: The registry lacks the model, or one of the two variants.
        ArtifactError: The package onnx is missing, the entry is not one that is built here, or the
            built file is not the registered one.
    """
    entry = registry.get(model_id, Variant.FP32)
    target = artifacts.built_path(entry)
    if artifacts.is_present(entry):
        return entry, artifacts.fetch(entry).model
    try:
        source = registry.get(model_id, Variant.FP16)
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}; FP32 is built from FP16") from error
    half = artifacts.fetch(source).model
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        widen(half, part)
        digest = file_sha256(part)
        if digest != entry.sha256:
            raise ArtifactError(
                f"FP32 of {model_id} built from {half} has SHA-256 {digest[:12]}, the registry "
                f"says {entry.sha256[:12]}; correct the registry, or use another version of onnx"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return entry, target


def widen(source: Path, target: Path) -> Path:
    """Write the FP32 graph behind an FP16 file; return `target`. The same source, the same bytes.

    Raises:
        ArtifactError: The package onnx is missing.
    """
    try:
        import onnx
        from onnx import TensorProto, numpy_helper
    except ImportError as error:
        raise ArtifactError(
            "building a variant needs the package onnx; install the extra: "
            "pip install '.[build]' in the checkout"
        ) from error
    model = onnx.load(source)
    for constant in model.graph.initializer:
        if constant.data_type == TensorProto.FLOAT16 and constant.name.endswith(HALF_SUFFIX):
            array = numpy_helper.to_array(constant).astype(np.float32)
            name = constant.name.removesuffix(HALF_SUFFIX)
            constant.CopyFrom(numpy_helper.from_array(array, name))
    nodes = [
        node
        for node in model.graph.node
        if not (node.op_type == "Cast" and node.input[0].endswith(HALF_SUFFIX))
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    target.write_bytes(model.SerializeToString(deterministic=True))
    return target
