"""A float16 graph on ONNX Runtime's CPU, every value really rounded.

ONNX Runtime 1.31 has hardly any float16 kernels for x86. It computes such nodes in float32, between casts that it
inserts and then takes out again wherever two of them meet, with optimisations on or off: (x + 2048) - 2048 gives 0.5
for x = 0.5, where float16 gives 0. An accuracy measured that way is that of float32. What survives at every level is a
pair of casts that the graph itself has between float32 values. So:

    float16 value  ->  float32 value, cast to float16 and back right where it is made

Values, weights and overflows are those of float16; sums inside of a kernel run up in float32, as tensor cores sum. A
GPU that does so fuses nodes and rounds less often than this; a kernel that sums in float16 rounds more.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..names import free_name
from .fp16 import HALF, SINGLE, TYPE_IN_ATTRIBUTE


def round_values(model: ir.Model) -> ir.Model:
    """A copy that computes in float32 and rounds wherever `model` has a float16 value. Names of values stay.

    Inputs and outputs of the graph that are float16 stay so.
    """
    model = model.clone()
    graph = model.graph
    for value in graph.initializers.values():
        if value.dtype == HALF and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(SINGLE)
    for value in graph.inputs:
        if value.dtype == HALF:
            _widen(graph, value)
    for node in list(graph):
        name = TYPE_IN_ATTRIBUTE.get(node.op_type)
        if name is not None and name in node.attributes and node.attributes[name].as_int() == HALF.value:
            node.attributes[name] = ir.AttrInt64(name, SINGLE.value)
        if node.op_type == "ConstantOfShape" and "value" in node.attributes:
            held = node.attributes["value"].as_tensor().numpy()
            if held.dtype == np.float16:
                node.attributes["value"] = ir.AttrTensor("value", ir.tensor(held.astype(np.float32)))
        for value in node.outputs:
            if value.dtype == HALF:
                _round(graph, node, value)
    return model


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Behind `value`, now float32, a float16 one, and behind that a float32 one that all readers get."""
    name = value.name or ""
    shape, given = value.shape, value.is_graph_output()
    value.name = free_name(graph, f"{name}/exact")
    value.type = ir.TensorType(SINGLE)
    down = ir.node("Cast", [value], {"to": HALF.value})
    up = ir.node("Cast", [down.outputs[0]], {"to": SINGLE.value})
    for cast, kind in ((down, HALF), (up, SINGLE)):
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(kind), shape
    for use in list(value.uses()):
        if use.node is not down:
            use.node.replace_input_with(use.idx, up.outputs[0])
    graph.insert_after(node, [down, up])
    half, single = (name, f"{name}/rounded") if given else (f"{name}/rounded", name)
    down.outputs[0].name, up.outputs[0].name = free_name(graph, half), free_name(graph, single)
    if given:
        graph.outputs[list(graph.outputs).index(value)] = down.outputs[0]


def _widen(graph: ir.Graph, value: ir.Value) -> None:
    """Let all that read an input of the graph read it as float32."""
    cast = ir.node("Cast", [value], {"to": SINGLE.value})
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(SINGLE), value.shape
    cast.outputs[0].name = free_name(graph, f"{value.name}/float32")
    for use in list(value.uses()):
        if use.node is not cast:
            use.node.replace_input_with(use.idx, cast.outputs[0])
    graph.insert_before(next(iter(graph)), cast)
