"""What a graph costs: parameters and multiply-accumulates, counted per weighted layer.

MACs of a layer = positions * elements of its weight, where positions are the output pixels of a convolution, the
input pixels of a transposed one, and the rows of a matrix product. So the MACs of a pruned layer follow from the
widths that its weight keeps, and a planner needs no new graph to count them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from edgeslim.errors import ExportError

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One weighted layer: how often each element of `weight` (an initializer) is used for one input."""

    layer: str
    weight: str
    positions: int


def count_parameters(model: ir.Model) -> int:
    """Elements of all floating-point initializers."""
    return sum(
        math.prod(v.shape.numpy())
        for v in model.graph.initializers.values()
        if v.shape is not None and v.dtype is not None and v.dtype.is_floating_point()
    )


def count_weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def layer_costs(model: ir.Model, shape: tuple[int, ...]) -> tuple[LayerCost, ...]:
    """Positions of every weighted layer when the graph's image input has this shape, (N, C, H, W) or (N, H, W, C).

    Raises ExportError where shapes cannot be inferred.
    """
    sized = model.clone()
    image = sized.graph.inputs[0]
    image.shape = ir.Shape(shape)
    for node in sized.graph:
        for value in node.outputs:
            value.shape = None
    common.ShapeInferencePass(data_prop=True)(sized)
    costs = []
    for node in sized.graph:
        if node.op_type in _LAYERS:
            weight = _initializer(node.inputs[1])
            if weight is not None:
                costs.append(
                    LayerCost(layer=node.outputs[0].name or "", weight=weight.name or "", positions=_positions(node))
                )
    return tuple(costs)


def count_macs(model: ir.Model, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of the weighted layers for one input of this shape. Raises ExportError."""
    weights = model.graph.initializers
    total = 0
    for cost in layer_costs(model, shape):
        size = weights[cost.weight].shape
        total += cost.positions * (math.prod(size.numpy()) if size is not None else 0)
    return total


def _positions(node: ir.Node) -> int:
    value = node.inputs[0] if node.op_type == "ConvTranspose" else node.outputs[0]
    shape = value.shape if value is not None else None
    if shape is None or not shape.is_static():
        raise ExportError(
            f"the size of {node.op_type} {node.outputs[0].name} cannot be inferred, so its work cannot be counted",
            "give the input a fixed size",
        )
    sizes = list(shape.numpy())
    return math.prod(sizes[:-1]) if node.op_type in ("Gemm", "MatMul") else sizes[0] * math.prod(sizes[2:])


def _initializer(value: ir.Value | None) -> ir.Value | None:
    """The weight behind an operand, through a Transpose (as torch traces a linear layer)."""
    if value is None or value.is_initializer():
        return value
    producer = value.producer()
    return _initializer(producer.inputs[0]) if producer is not None and producer.op_type == "Transpose" else None
