"""Write a strided slice over channels as the gather that it is.

    x[:, a:b:s]  =  x[:, [a, a + s, a + 2s, ...]]

After channels have left, what remains is no arithmetic progression any more, and only a list of positions can say which
channels a net meant. Slices over space are left alone: there a stride is quicker.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..names import add_constant, free_name, give_way

CHANNELS = 1
"""The axis on which slices are rewritten."""


def slices_to_gathers(model: ir.Model) -> ir.Model:
    """Return a copy of `model` in which no Slice with constant bounds has a step other than 1 over axis 1."""
    model = model.clone()
    for node in list(model.graph):
        if node.op_type == "Slice" and node.domain in ("", "ai.onnx"):
            _rewrite(model.graph, node)
    return model


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    x = node.inputs[0]
    constants = [_numbers(v) for v in node.inputs[1:]]
    if x is None or x.shape is None or len(constants) < 4 or any(c is None for c in constants):
        return
    starts, ends, axes, steps = (c for c in constants if c is not None)
    rank = len(x.shape)
    if len({len(c) for c in (starts, ends, axes, steps)}) > 1 or rank <= CHANNELS or not steps.all():
        return  # no valid Slice, or one without channels
    position = next((i for i, a in enumerate(axes) if a % rank == CHANNELS and steps[i] != 1), None)
    width = x.shape[CHANNELS]
    if position is None or not isinstance(width, int):
        return
    picked = np.arange(width)[starts[position] : _end(ends[position], steps[position]) : steps[position]]
    out = node.outputs[0]
    indices = add_constant(graph, f"{out.name}/channels", picked.astype(np.int64))
    gather = ir.node("Gather", [x, indices], {"axis": CHANNELS})
    gather.outputs[0].type = x.type
    gather.outputs[0].shape = ir.Shape([*x.shape[:CHANNELS], len(picked), *x.shape[CHANNELS + 1 :]])
    graph.insert_before(node, gather)
    if len(axes) == 1:
        give_way(graph, out, gather.outputs[0], f"{out.name}/gathered")
        graph.remove(node, safe=True)
        return
    gather.outputs[0].name = free_name(graph, f"{out.name}/gathered")
    node.replace_input_with(0, gather.outputs[0])
    # The slice keeps its other axes and takes all of this one.
    for index, value in ((1, 0), (2, np.iinfo(np.int64).max), (4, 1)):
        numbers = [starts, ends, axes, steps][index - 1].copy()
        numbers[position] = value
        node.replace_input_with(index, add_constant(graph, f"{out.name}/slice_{index}", numbers))


def _end(end: int, step: int) -> int | None:
    """A bound of ONNX as Python's: counting down, everything below the first index means "to the start"."""
    return None if step < 0 and end < -(2**31) + 1 else end


def _numbers(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy().astype(np.int64).ravel()
