"""Variants: FP16 gives the scores of FP32, and FP32 comes back from it byte for byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from shield_engine.errors import ArtifactError, TrainingError, UnknownNameError
from shield_engine.ml import ArtifactStore, ModelRegistry
from shield_engine.ml.variants import build_fp32, widen
from shield_engine.training.export import quantize, read_weights, store_half
from shield_engine.types import Variant
from tests import tiny_models


def _graph(path: Path, *, exact: bool = True) -> Path:
    draw = np.random.default_rng(3)
    weight = draw.normal(0, 0.1, (80, 64)).astype(np.float32)
    if exact:
        weight = weight.astype(np.float16).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "layer.weight.T"], ["product"]),
        helper.make_node("Add", ["product", "layer.bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 80])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [
            numpy_helper.from_array(weight, "layer.weight.T"),
            numpy_helper.from_array(draw.normal(size=64).astype(np.float32), "layer.bias"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def _run(path: Path) -> np.ndarray:
    x = np.random.default_rng(5).normal(size=(7, 80)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def test_half_is_half_as_large_and_scores_the_same(tmp_path: Path) -> None:
    """Weights are stored as halves; the answers do not change by one bit."""
    wide = _graph(tmp_path / "wide.onnx")
    half = store_half(wide, tmp_path / "half.onnx")
    assert half.stat().st_size < 0.6 * wide.stat().st_size
    assert np.array_equal(_run(wide), _run(half))


def test_widening_restores_the_file(tmp_path: Path) -> None:
    """FP32 from FP16 is the FP32 file, byte for byte, whenever it is built."""
    wide = _graph(tmp_path / "wide.onnx")
    half = store_half(wide, tmp_path / "half.onnx")
    built = [widen(half, tmp_path / name).read_bytes() for name in ("a.onnx", "b.onnx")]
    assert built == [wide.read_bytes()] * 2


def test_weights_that_are_no_halves_are_refused(tmp_path: Path) -> None:
    """Losing precision without a word is what must not happen."""
    with pytest.raises(TrainingError, match=r"layer\.weight\.T .* is no half-precision weight"):
        store_half(_graph(tmp_path / "wide.onnx", exact=False), tmp_path / "half.onnx")


def test_weights_are_read_back_by_name_and_the_right_way_round(tmp_path: Path) -> None:
    """From FP32 and FP16 alike; a transposed constant is turned back."""
    wide = _graph(tmp_path / "wide.onnx")
    half = store_half(wide, tmp_path / "half.onnx")
    one, two = read_weights(wide), read_weights(half)
    assert one.keys() == two.keys() == {"layer.weight", "layer.bias"}
    assert one["layer.weight"].shape == (64, 80)
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_int8_leaves_out_what_is_kept(tmp_path: Path) -> None:
    """A weight that is to stay FP32 does."""
    wide = _graph(tmp_path / "wide.onnx")
    full = onnx.load(quantize(wide, tmp_path / "int8.onnx"))
    kept = onnx.load(quantize(wide, tmp_path / "kept.onnx", keep=["layer.weight"]))
    kinds = [{node.op_type for node in model.graph.node} for model in (full, kept)]
    assert "MatMulInteger" in kinds[0]
    assert "MatMulInteger" not in kinds[1]


def test_evened_out_int8_is_nearer_to_fp32(tmp_path: Path) -> None:
    """One wide channel costs all others their resolution, unless its range moves to the weights."""
    draw = np.random.default_rng(7)
    words = draw.normal(size=(50, 32)).astype(np.float32)
    words[:, 3] *= 60
    weight = draw.normal(size=(32, 8)).astype(np.float32)
    weight[3] /= 60
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "input_ids"], ["x"]),
            helper.make_node("MatMul", ["x", "layer.weight.T"], ["product"], "product"),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["product", "column"], ["y"]),
        ],
        "outlier",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "tokens", 8])],
        [
            numpy_helper.from_array(words, "words"),
            numpy_helper.from_array(weight, "layer.weight.T"),
            numpy_helper.from_array(np.array([2]), "last"),
        ],
    )
    wide = tmp_path / "wide.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, wide)
    sample = [list(range(start, start + 10)) for start in range(0, 50, 10)]
    keep = ["words"]  # a table is quantised as a whole
    plain = quantize(wide, tmp_path / "plain.onnx", keep=keep)
    even = quantize(wide, tmp_path / "even.onnx", keep=keep, sample=sample)
    ids = np.array([[4, 8, 15, 16, 23, 42]])
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    exact, coarse, fine = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)
        for path in (wide, plain, even)
    )
    assert np.abs(fine[0] - exact[0]).mean() < 0.5 * np.abs(coarse[0] - exact[0]).mean()
    names = {node.op_type for node in onnx.load(even).graph.node}
    assert "MatMulInteger" in names


def _registered(folder: Path, digest: str | None = None) -> tuple[ModelRegistry, ArtifactStore]:
    row = tiny_models.build(folder)
    wide = _graph(folder / "wide.onnx")
    half = store_half(wide, folder / "half.onnx")
    sha256 = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (wide, half)}
    rows = [
        row | {"variant": "FP16", "sources": ["half.onnx"], "sha256": sha256[half]},
        row | {"variant": "FP32", "sources": ["build:wide.onnx"], "sha256": digest or sha256[wide]},
    ]
    registry = ModelRegistry.load(tiny_models.write_registry(folder, *rows))
    return registry, ArtifactStore(folder / "cache", offline=True)


def test_a_built_variant_is_kept_and_found(tmp_path: Path) -> None:
    """Before the build the error says what to run; after it the file is used, and built once."""
    registry, store = _registered(tmp_path)
    entry = registry.get("tiny", Variant.FP32)
    with pytest.raises(ArtifactError, match="shield models build"):
        store.fetch(entry)
    assert not store.is_present(entry)
    _, path = build_fp32(registry, store, "tiny")
    assert store.fetch(entry).model == path
    written = path.stat().st_mtime_ns
    build_fp32(registry, store, "tiny")
    assert path.stat().st_mtime_ns == written


def test_a_build_that_is_not_the_registered_file_is_refused(tmp_path: Path) -> None:
    """Nothing is left in the cache."""
    registry, store = _registered(tmp_path, digest="0" * 64)
    with pytest.raises(ArtifactError, match="the registry says 000000000000"):
        build_fp32(registry, store, "tiny")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_is_not_built_here_is_told(tmp_path: Path) -> None:
    """A model without that variant, and one whose FP32 file comes from elsewhere."""
    registry, store = _registered(tmp_path)
    with pytest.raises(UnknownNameError, match="no model is called"):
        build_fp32(registry, store, "other")
    plain = ModelRegistry.load(tiny_models.write_registry(tmp_path, tiny_models.build(tmp_path)))
    with pytest.raises(ArtifactError, match="is not built here"):
        build_fp32(plain, store, "tiny")
