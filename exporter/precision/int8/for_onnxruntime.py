"""Q/DQ as ONNX Runtime's CPU kernels want them: around everything that can compute with bytes.

    DQ(x), DQ(w) -> Conv -> ReLU -> Q        becomes QLinearConv, the ReLU being what uint8 does below zero

A node becomes an integer kernel only if all its operands come out of DQ and its result goes into Q. Found by trying
1.31 on an AVX-512 processor with VNNI: activations must be uint8 with a zero point (with int8 and zero point 0 a ReLU
stays behind every convolution, and the net is slower than in float); a bias may stay float; ConvTranspose has no
integer kernel, and a convolution that reads the three channels of an image is three times as slow as in float: it
stays, and gives bytes to what follows. So this is no graph for TensorRT, which takes int8 with zero point 0 alone.
"""

from __future__ import annotations

import onnx_ir as ir

from ...dead.constancy import groups
from ..movers import moved, moves
from .layers import Declined, Layer
from .placement import Placement, Reader, joined, reader, readers_of, sole_reader

_FOLDED = frozenset({"Relu", "Clip"})
"""Activations that vanish in the Q behind them."""
_BETWEEN = frozenset({"Add", "Mul"})
_ALONG = frozenset({"AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid"})
"""One operand in, bytes in, bytes out; worth it only where bytes arrive."""
_FEWEST_CHANNELS = 4
_FLOAT_RESULT = frozenset({"Gemm", "MatMul"})
"""Integer kernels that may give float."""


def place_for_onnxruntime(
    model: ir.Model, layers: list[Layer], quantize_outputs: bool
) -> tuple[Placement, list[Declined]]:
    """Decide on all Q/DQ pairs; layers that stay in float with the reason."""
    declined, kept = [], []
    quantized: set[ir.Value] = set()
    by_node = {layer.node: layer for layer in layers}
    for node in model.graph:
        layer = by_node.get(node)
        if layer is not None:
            reason = _unfit(layer, quantize_outputs)
            if reason:
                declined.append(Declined(where=f"{node.op_type} {layer.result.name}", reason=reason))
                result = _behind_activation(layer.result)
                if layer.node.op_type == "Conv" and not result.is_graph_output():
                    quantized.add(result)
                continue
            kept.append(layer)
            quantized.add(layer.source)
        elif _joins(node, quantized):
            quantized.update(value for value in node.inputs if value is not None)
        elif not _goes_along(node, quantized):
            continue
        for output in node.outputs:
            result = _behind_activation(output)
            if _is_float(result) and (not result.is_graph_output() or quantize_outputs):
                quantized.add(result)
    return _placement(model.graph, quantized, kept), declined


def _unfit(layer: Layer, quantize_outputs: bool) -> str:
    if layer.node.op_type == "ConvTranspose":
        return "ONNX Runtime has no integer ConvTranspose on the CPU"
    array = layer.weight.const_value
    if layer.node.op_type == "Conv" and array is not None and groups(layer.node) == 1:
        read = int(array.shape.numpy()[1])
        if read < _FEWEST_CHANNELS:
            return f"an integer convolution that reads {read} channels is slower than a float one"
    result = _behind_activation(layer.result)
    if layer.node.op_type not in _FLOAT_RESULT and result.is_graph_output() and not quantize_outputs:
        return "it is an output of the graph, and an integer convolution gives bytes"
    return ""


def _joins(node: ir.Node, quantized: set[ir.Value]) -> bool:
    """Whether a node computes with several values, one of which at least is bytes already, and no constants."""
    values = [v for v in node.inputs if v is not None]
    if node.op_type not in (*_BETWEEN, "Concat") or any(v.is_initializer() for v in values):
        return False
    if not all(_is_float(v) for v in values):
        return False
    return any(v in quantized for v in values)


def _is_float(value: ir.Value) -> bool:
    """Places of maxima, which a MaxPool may tell, are whole numbers."""
    return bool(value.name) and value.dtype in (None, ir.DataType.FLOAT)


def _goes_along(node: ir.Node, quantized: set[ir.Value]) -> bool:
    return (node.op_type in _ALONG or moves(node)) and bool(node.inputs) and node.inputs[0] in quantized


def _behind_activation(value: ir.Value) -> ir.Value:
    """The value that is quantised in place of `value`: behind the activation that Q makes superfluous."""
    node = sole_reader(value)
    return node.outputs[0] if node is not None and node.op_type in _FOLDED else value


def _placement(graph: ir.Graph, quantized: set[ir.Value], layers: list[Layer]) -> Placement:
    """All readers of a quantised value read its bytes: those that need float read them through DQ."""
    values: dict[str, frozenset[Reader]] = {}
    groups = []
    for value in quantized:
        users = frozenset(reader(node, index) for node, index in readers_of(value, graph))
        values[value.name or ""] = users
        producer = value.producer()
        if producer is not None and moves(producer) and producer.op_type != "Concat":  # it rescales as it copies
            groups.append([value.name or "", *(v.name or "" for v in moved(producer) if v in quantized)])
    shared = tuple(group for group in joined(groups) if len(group) > 1)
    return Placement(
        values=dict(sorted(values.items())),
        layers=tuple(layers),
        signed=False,
        shared=shared,
        outputs=frozenset(v.name or "" for v in quantized if v.is_graph_output() and not v.is_graph_input()),
    )
