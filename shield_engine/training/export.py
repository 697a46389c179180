"""From a fitted network to the files that run: FP16 as it is kept, FP32 and INT8 made from it.

The FP16 file holds half-precision weights, each followed by a cast to single precision: ONNX
Runtime folds the casts when it loads the file and computes in single precision. Widening a half is
lossless, so FP32 built from it gives the very same scores, and the file is half the size. Weights
keep their parameter's name in the graph, so the FP16 file is also the checkpoint to go on from.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shield_engine.errors import TrainingError
from shield_engine.ml.variants import HALF_SUFFIX
from shield_engine.types import LABELS, Task

__all__ = ["KEPT_WIDE", "export_heads", "quantize", "read_weights", "store_half"]

ONNX_OPSET = 17
KEPT_WIDE = ("heads.", "layer.0.output.dense", "layer.1.output.dense")
"""What stays in single precision in the INT8 file: with the second matrix of the first two
feed-forward blocks 0.66% of verdicts on 6,316 held-out rows flip instead of 0.89%, for a tenth of the
speed; with all six 0.47%, for a third."""

# Smaller arrays (biases, scales of norms) are kept whole: they weigh nothing.
_SMALLEST_HALF = 4096
# How much of an input's unevenness the weights take over. On 6,316 held-out rows .65 flips 72
# verdicts, .7 and .75 56, .8 54.
_TO_WEIGHTS = 0.75


def export_heads(network: Any, tasks: Sequence[Task], path: Path) -> Path:
    """Write the encoder with one output per task as an FP32 graph; return `path`.

    Large weights are first rounded to half precision, so that every variant starts from the same
    numbers.
    """
    import onnx
    import torch

    class Heads(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            pooled = self.network.pool(input_ids, attention_mask)
            heads = [self.network.heads[task.value] for task in tasks]
            # Written out, because the quantiser rewrites a Gemm before it looks what to keep.
            return tuple(pooled @ head.weight.t() + head.bias for head in heads)

    # The exporter turns the fused attention into a fifth more nodes, and a slower graph (1.06).
    network.encoder.set_attn_implementation("eager")
    module = Heads().float().eval()  # without eval() dropout stays in the graph
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() >= _SMALLEST_HALF:
                parameter.copy_(parameter.half().float())
    ids = torch.ones(2, 9, dtype=torch.int64)
    names = [task.value for task in tasks]
    axes = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings():
        # The new exporter's graphs are larger; the old one announces its end and its tracing.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (ids, torch.ones_like(ids)),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=names,
            dynamic_axes={
                "input_ids": axes,
                "attention_mask": axes,
                **{name: {0: "batch"} for name in names},
            },
            opset_version=ONNX_OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    _name_weights(model, module.state_dict())
    onnx.helper.set_model_props(
        model,
        {
            f"id2label.{task.value}": json.dumps(dict(map(_numbered, enumerate(LABELS[task]))))
            for task in tasks
        },
    )
    onnx.save(model, path)
    return path


def _numbered(item: tuple[int, str]) -> tuple[str, str]:
    return str(item[0]), item[1]


def _name_weights(model: Any, state: Mapping[str, Any]) -> None:
    """Give each large constant the name of its parameter; `.T` marks a transposed one."""
    from onnx import numpy_helper

    known = {name: value.numpy() for name, value in state.items()}
    new_names = {}
    for constant in model.graph.initializer:
        name = constant.name.removeprefix("network.")
        array = numpy_helper.to_array(constant)
        if f"network.{name}" in known:
            new_names[constant.name] = name
            continue
        for parameter, value in known.items():
            if value.T.shape == array.shape and np.array_equal(value.T, array):
                new_names[constant.name] = parameter.removeprefix("network.") + ".T"
    for constant in model.graph.initializer:
        constant.name = new_names.get(constant.name, constant.name)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = new_names.get(name, name)


def store_half(source: Path, target: Path) -> Path:
    """Write the FP16 form of an FP32 graph whose large weights are halves already.

    Raises:
        TrainingError: A weight would lose precision.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(source)
    casts = []
    for constant in model.graph.initializer:
        array = numpy_helper.to_array(constant)
        if constant.data_type != TensorProto.FLOAT or array.size < _SMALLEST_HALF:
            continue
        half = array.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), array):
            raise TrainingError(f"{constant.name} of {source} is no half-precision weight")
        name = constant.name
        constant.CopyFrom(numpy_helper.from_array(half, name + HALF_SUFFIX))
        casts.append(
            helper.make_node(
                "Cast", [name + HALF_SUFFIX], [name], f"widen {name}", to=TensorProto.FLOAT
            )
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)
    return target


def read_weights(source: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the parameters of a file that `export_heads` or `store_half` wrote, by name."""
    import onnx
    from onnx import numpy_helper

    weights = {}
    for constant in onnx.load(source).graph.initializer:
        array = numpy_helper.to_array(constant)
        name = constant.name.removesuffix(HALF_SUFFIX)
        if array.dtype in {np.dtype(np.float16), np.dtype(np.float32)}:
            array = array.astype(np.float32)
            weights[name.removesuffix(".T")] = array.T if name.endswith(".T") else array
    return weights


def quantize(
    source: Path,
    target: Path,
    *,
    keep: Sequence[str] = (),
    sample: Sequence[Sequence[int]] = (),
) -> Path:
    """Write the dynamic INT8 form of `source`, with per-channel weights; return `target`.

    Args:
        source: FP32 graph.
        target: Where the INT8 graph goes.
        keep: Parts of names of nodes or weights that stay FP32.
        sample: Token ids of some texts of the kind to come. With them the channels of each matrix's
            input are scaled alike first, which keeps more of a verdict (SmoothQuant,
            arXiv:2211.10438).
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    excluded = {
        node.name
        for node in model.graph.node
        if any(part in name for name in (node.name, *node.input) for part in keep)
    }
    if sample:
        _even_out(model, excluded, sample)
    # Per-channel scales keep scores far closer to FP32 than one scale per tensor
    # (cosine .994 against .958 on MiniLM-L6).
    quantize_dynamic(
        model,
        target,
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=sorted(excluded),
    )
    return target


def _even_out(model: Any, excluded: Collection[str], sample: Sequence[Sequence[int]]) -> None:
    """Move the range of each matrix product's input into its weights, channel by channel.

    An input has one scale for all its channels, so that a few wide ones leave little resolution
    to the rest; a weight has one scale a channel. The product stays what it was.
    """
    from onnx import helper, numpy_helper

    weights = {constant.name: constant for constant in model.graph.initializer}
    products: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights and node.name not in excluded:
            products.setdefault(node.input[0], []).append(node)
    widest = _widest(model, list(products), sample)
    nodes = list(model.graph.node)
    for name, users in products.items():
        arrays = [numpy_helper.to_array(weights[node.input[1]]) for node in users]
        heaviest = np.max([np.abs(array).max(axis=1) for array in arrays], axis=0)
        scale = np.maximum(widest[name], 1e-5) ** _TO_WEIGHTS
        scale /= np.maximum(heaviest, 1e-5) ** (1 - _TO_WEIGHTS)
        factor = numpy_helper.from_array((1 / scale).astype(np.float32), f"{name}.evening")
        model.graph.initializer.append(factor)
        nodes.insert(
            nodes.index(users[0]),
            helper.make_node("Mul", [name, factor.name], [f"{name}.even"], f"even out {name}"),
        )
        for node, array in zip(users, arrays, strict=True):
            evened = (array * scale[:, None]).astype(np.float32)
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(evened, node.input[1]))
            node.input[0] = f"{name}.even"
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _widest(
    model: Any, names: Sequence[str], sample: Sequence[Sequence[int]]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the largest absolute value of each channel of these tensors on the sample."""
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    widest = {name: np.zeros(1) for name in names}
    for ids in sample:
        tokens = np.array([ids], dtype=np.int64)
        feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        for name, value in zip(names, session.run(list(names), feed), strict=True):
            channels = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            widest[name] = np.maximum(widest[name], channels)
    return widest
