"""What a graph costs: parameters and multiply-accumulates, counted per weighted layer.

MACs of a layer = positions * elements of its weight, where positions are the output pixels of a convolution, the
input pixels of a transposed one, and the rows of a matrix product. So the MACs of a pruned layer follow from the
widths that its weight keeps, and a planner needs no new graph to count them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from edgeslim.errors import ExportError, first_line

from .channels.rules.contraction import WEIGHTED


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One weighted layer: how often each element of `weight` (an initializer) is used for one input."""

    layer: str
    weight: str
    positions: int


def count_parameters(model: ir.Model, names: Collection[str]) -> int:
    """Elements of the learnt parameters among `names`."""
    return sum(math.prod(v.shape.numpy()) for _, v in learnt_parameters(model, names) if v.shape is not None)


def learnt_parameters(model: ir.Model, names: Collection[str]) -> Iterator[tuple[str, ir.Value]]:
    """The initializers in `names` that are learnt: all but the statistics of batch norms."""
    statistics = {
        v.name for n in model.graph if n.op_type == "BatchNormalization" for v in n.inputs[3:5] if v is not None
    }
    for name, value in model.graph.initializers.items():
        if name in names and name not in statistics and value.shape is not None:
            yield name, value


def count_weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def count_weights(model: ir.Model) -> tuple[int, int]:
    """(all, not zero) elements of the kernels of the weighted layers; one that two layers share counts once."""
    found = {w.name: w for n in model.graph if n.op_type in WEIGHTED and (w := _initializer(n.inputs[1])) is not None}
    arrays = [w.const_value.numpy() for w in found.values() if w.const_value is not None]
    return sum(a.size for a in arrays), sum(int(np.count_nonzero(a)) for a in arrays)


def layer_costs(model: ir.Model, shape: tuple[int, ...]) -> tuple[LayerCost, ...]:
    """Positions of every weighted layer when the graph's image input has this shape, (N, C, H, W) or (N, H, W, C).

    The sizes are read off a real run, so that no shape that a forward computes stays unknown. Raises ExportError if
    the graph does not run at this shape.
    """
    sized = model.clone()
    layers = [n for n in sized.graph if n.op_type in WEIGHTED and _initializer(n.inputs[1]) is not None]
    shapes = [ir.node("Shape", [_sized_value(n)]) for n in layers]
    sized.graph.extend(shapes)
    sized.graph.outputs.clear()
    for index, node in enumerate(shapes):
        node.outputs[0].name = f"size/{index}"
        node.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        sized.graph.outputs.append(node.outputs[0])
    sizes = _run(sized, shape) if shapes else []
    return tuple(
        LayerCost(layer=n.outputs[0].name or "", weight=w.name or "", positions=_positions(n, size.tolist()))
        for n, size in zip(layers, sizes)
        if (w := _initializer(n.inputs[1])) is not None
    )


def count_macs(model: ir.Model, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of the weighted layers for one input of this shape. Raises ExportError."""
    weights = model.graph.initializers
    total = 0
    for cost in layer_costs(model, shape):
        size = weights[cost.weight].shape
        total += cost.positions * (math.prod(size.numpy()) if size is not None else 0)
    return total


def _sized_value(node: ir.Node) -> ir.Value | None:
    return node.inputs[0] if node.op_type == "ConvTranspose" else node.outputs[0]


def _run(model: ir.Model, shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    image = model.graph.inputs[0]
    dtype = image.dtype.numpy() if image.dtype is not None else np.dtype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
        return [np.asarray(a) for a in session.run(None, {image.name: np.zeros(shape, dtype)})]
    except Exception as error:  # onnxruntime raises its own exception types
        raise ExportError(
            f"the graph does not run on an input of shape {shape}: {first_line(error)}",
            "choose a size that the net accepts",
        ) from error


def _positions(node: ir.Node, size: list[int]) -> int:
    return math.prod(size[:-1]) if node.op_type in ("Gemm", "MatMul") else size[0] * math.prod(size[2:])


def _initializer(value: ir.Value | None) -> ir.Value | None:
    """The weight behind an operand, through a Transpose (as torch traces a linear layer)."""
    if value is None or value.is_initializer():
        return value
    producer = value.producer()
    return _initializer(producer.inputs[0]) if producer is not None and producer.op_type == "Transpose" else None
