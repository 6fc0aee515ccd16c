"""Write a placement into the graph.

    value -> QuantizeLinear(scale, zero) -> DequantizeLinear(scale, zero) -> its readers
    weight: an int8 initializer -> DequantizeLinear(scales, zeros, axis) -> its layer
    or: a float32 initializer -> QuantizeLinear -> DequantizeLinear -> its layer

An int8 initializer is a quarter of the bytes; with floats the engine does the same rounding, and parsers that take no
int8 constants understand it (see `Int8Options`). Bias stays float: TensorRT refuses int32 into DequantizeLinear, and
ONNX Runtime makes one itself where it needs it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...names import add_constant, free_name
from .placement import Placement
from .scales import Scale, quantize_weight, weight_scales


def insert(model: ir.Model, placement: Placement, scales: Mapping[str, Scale], int8_weights: bool) -> ir.Model:
    """Return a copy of `model` with all Q/DQ pairs of `placement`. scales: of every value in it.

    int8_weights: see `Int8Options`.
    """
    model = model.clone()
    # By name as it is now: an output that is quantised hands its name on.
    nodes = {node.outputs[0].name or "": node for node in model.graph if node.outputs}
    values = {v.name: v for node in model.graph for v in (*node.inputs, *node.outputs) if v is not None}
    for name, readers in placement.values.items():
        dequantized = _pair(model.graph, values[name], scales[name])
        for place, index in readers:
            nodes[place].replace_input_with(index, dequantized)
        if name in placement.outputs:
            _give_out(model.graph, values[name], dequantized)
    stored: dict[tuple[str, int], ir.Value] = {}
    for layer in placement.layers:
        key = (layer.name, layer.axis)
        if key not in stored:
            stored[key] = _weight(
                model.graph, nodes[layer.result.name or ""], values[layer.name], layer.axis, int8_weights
            )
        nodes[layer.result.name or ""].replace_input_with(1, stored[key])
    for name in {name for name, _ in stored}:
        if not values[name].uses() and not values[name].is_graph_output():
            del model.graph.initializers[name]
    return model


def _pair(graph: ir.Graph, value: ir.Value, scale: Scale) -> ir.Value:
    """Q and DQ right behind `value`; what DQ says."""
    name = value.name or ""
    zero = np.array(scale.zero_point, np.int8 if scale.signed else np.uint8)
    constants = [
        add_constant(graph, f"{name}/scale", np.array(scale.scale, np.float32)),
        add_constant(graph, f"{name}/zero_point", zero),
    ]
    quantize = ir.node("QuantizeLinear", [value, *constants])
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *constants])
    kind = ir.DataType.INT8 if scale.signed else ir.DataType.UINT8
    for node, suffix, dtype in ((quantize, "quantized", kind), (dequantize, "dequantized", ir.DataType.FLOAT)):
        node.outputs[0].name = node.name = free_name(graph, f"{name}/{suffix}")
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), value.shape
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, [quantize, dequantize])
    else:
        graph.insert_before(next(iter(graph)), [quantize, dequantize])
    return dequantize.outputs[0]


def _give_out(graph: ir.Graph, value: ir.Value, dequantized: ir.Value) -> None:
    """Let the graph give out what DQ says, under the name that its users know."""
    name = value.name
    graph.outputs[list(graph.outputs).index(value)] = dequantized
    value.name = free_name(graph, f"{name}/exact")
    dequantized.name = name


def _weight(graph: ir.Graph, before: ir.Node, weight: ir.Value, axis: int, stored: bool) -> ir.Value:
    """The weight as bytes, stored or made by a Q, and the DQ that reads them; what DQ says."""
    assert weight.const_value is not None
    array: NDArray[np.generic] = weight.const_value.numpy()
    scales, name = weight_scales(array, axis), weight.name or ""
    constants = [
        add_constant(graph, f"{name}/scale", scales),
        add_constant(graph, f"{name}/zero_point", np.zeros(len(scales), np.int8)),
    ]
    if stored:
        data = add_constant(graph, f"{name}/int8", quantize_weight(array, scales, axis))
    else:
        quantize = ir.node("QuantizeLinear", [weight, *constants], {"axis": axis})
        data = quantize.outputs[0]
        data.name = quantize.name = free_name(graph, f"{name}/int8")
        data.type, data.shape = ir.TensorType(ir.DataType.INT8), weight.shape
        graph.insert_before(before, quantize)
    node = ir.node("DequantizeLinear", [data, *constants], {"axis": axis})
    node.outputs[0].name = node.name = free_name(graph, f"{name}/dequantized")
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), weight.shape
    graph.insert_before(before, node)
    return node.outputs[0]
