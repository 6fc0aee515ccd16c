"""A graph whose inner values are its outputs, to look at what happens inside."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir


def tapped(model: ir.Model, names: Sequence[str]) -> bytes:
    """The model, serialised, with these values (without repetitions) as its outputs, in this order."""
    copy = model.clone()
    made = (o for n in copy.graph for o in n.outputs)
    values = {v.name: v for v in (*copy.graph.inputs, *copy.graph.initializers.values(), *made)}
    copy.graph.outputs.clear()
    for name in names:
        values[name].type = values[name].type or ir.TensorType(ir.DataType.FLOAT)
        copy.graph.outputs.append(values[name])
    return bytes(ir.to_proto(copy).SerializeToString())
