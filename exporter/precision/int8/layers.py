"""Which layers can compute with int8 weights, and which axis of a weight its output channels lie on.

    y[o] = sum_i w[o, i] x[i]        one scale for every o, so that scales can be taken out of the sum

In a ConvTranspose with groups, axis 1 counts the outputs of a group; one scale stands for output j of every group. In
a depthwise one there is a single such output and so a single scale: engines accept no other axis there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...channels.context import place
from ...channels.rules.contraction import WEIGHTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """node: a contraction with a weight of its own. axis: of the weight's output channels."""

    node: ir.Node
    weight: ir.Value
    axis: int

    @property
    def name(self) -> str:
        """The name of its weight."""
        return self.weight.name or ""

    @property
    def source(self) -> ir.Value:
        """The value it reads."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def result(self) -> ir.Value:
        """What it says."""
        return self.node.outputs[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """What was left as it is. where: operator and output. reason: in words."""

    where: str
    reason: str


def find_layers(model: ir.Model, keep_float: Collection[str] = ()) -> tuple[list[Layer], list[Declined]]:
    """All layers whose weights can be int8, first to last, and the others with the reason."""
    found, declined = [], []
    for node in model.graph:
        if node.op_type not in WEIGHTED or node.domain not in ("", "ai.onnx"):
            continue
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        reason = _unfit(node, weight, keep_float)
        if reason or weight is None:
            declined.append(Declined(where=place(node), reason=reason))
        else:
            found.append(Layer(node=node, weight=weight, axis=_axis(node, weight)))
    return found, declined


def _unfit(node: ir.Node, weight: ir.Value | None, keep_float: Collection[str]) -> str:
    data = node.inputs[0]
    if weight is None or not weight.is_initializer() or weight.is_graph_input() or weight.const_value is None:
        return "its second operand is computed, not a weight"
    if weight.name in keep_float:
        return "kept in float by request"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype}, not float32"
    if data is None or data.is_initializer():
        return "what it reads is a constant"
    if len(weight.const_value.shape) < 2:
        return "its weight is a vector"
    if not np.isfinite(weight.const_value.numpy()).all():
        return "its weight has values that are NaN or infinite"
    return ""


def _axis(node: ir.Node, weight: ir.Value) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        transposed = "transB" in node.attributes and node.attributes["transB"].as_int()
        return 0 if transposed else 1
    if node.op_type == "MatMul":
        return len(weight.shape) - 1 if weight.shape is not None else 1
    return 1
