"""Q/DQ as TensorRT fuses them: in front of what has an integer kernel, and nowhere else.

    x -> Q -> DQ -> Conv(DQ(int8 weight)) [-> Add(skip -> Q -> DQ)] [-> ReLU] -> ...

- A convolution takes its kernel's int8 form when all it reads has passed Q/DQ. It writes bytes if the next reader's Q
  comes right after it, its addition and its activation, so none stands in between.
- Of a residual addition only the operand that comes from elsewhere is quantised: the other one is the convolution that
  the addition is fused into. Where both are convolutions, the one with fewer layers before it counts as elsewhere.
- Outputs of the graph, and all that has no int8 kernel, stay in float.
- Values that differ by a move of numbers alone share a scale (see `placement`): TensorRT moves the pair across it.
"""

from __future__ import annotations

import onnx_ir as ir

from ..movers import sources
from .layers import Layer
from .placement import Placement, Reader, joined, reader, sole_reader


def place_for_tensorrt(model: ir.Model, layers: list[Layer]) -> Placement:
    """Decide on all Q/DQ pairs for these layers."""
    values: dict[str, set[Reader]] = {}
    for layer in layers:
        values.setdefault(layer.source.name or "", set()).add(reader(layer.node, 0))
    fused = {layer.result: layer for layer in layers if layer.node.op_type.startswith("Conv")}
    depth = _depths(model)
    for node in model.graph:
        if node.op_type != "Add" or len(node.inputs) != 2:
            continue
        index = _skip(node, fused, depth)
        if index is not None:
            skip = node.inputs[index]
            assert skip is not None
            values.setdefault(skip.name or "", set()).add(reader(node, index))
    named = {v.name: v for node in model.graph for v in (*node.inputs, *node.outputs) if v is not None}
    origin = [{name, *(f"<- {source}" for source in sources(named[name]))} for name in values]
    shared = [frozenset(n for n in group if not n.startswith("<- ")) for group in joined(origin)]
    return Placement(
        values={name: frozenset(readers) for name, readers in values.items()},
        layers=tuple(layers),
        signed=True,
        shared=tuple(group for group in shared if len(group) > 1),
    )


def _skip(node: ir.Node, fused: dict[ir.Value, Layer], depth: dict[ir.Value, int]) -> int | None:
    """Which operand of an addition is quantised; None where it is no residual one."""
    first, second = node.inputs
    if first is None or second is None or first is second or first.is_initializer() or second.is_initializer():
        return None
    if first.shape is not None and second.shape is not None and len(first.shape) != len(second.shape):
        return None
    own = [value in fused and sole_reader(value) is node for value in (first, second)]
    if all(own):
        return 0 if depth[first] <= depth[second] else 1
    return own.index(False) if any(own) else None


def _depths(model: ir.Model) -> dict[ir.Value, int]:
    """Value -> the largest number of nodes on a way to it."""
    depth: dict[ir.Value, int] = {}
    for node in model.graph:
        before = max((depth.get(v, 0) for v in node.inputs if v is not None), default=0)
        depth.update((v, before + 1) for v in node.outputs)
    return depth
