"""Layer by layer: where does a variant, or an engine, leave its float32 net?

Every value that both have by name is compared in the order of computation. What is over the limit first is where to
look: behind it, everything is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..channels.rules.contraction import WEIGHTED
from .calibration import Calibration
from .deviation import Difference
from .simulate import Outputs, simulate
from .typed import with_types

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDeviation:
    """value: what is compared. layer: the weight of the node that makes it, "" where it has none."""

    value: str
    operator: str
    layer: str
    relative_rms: float
    max_abs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerComparison:
    """layers: in order of computation. first: the first one over the limit. worst: the largest relative_rms."""

    layers: tuple[LayerDeviation, ...]
    limit: float
    first: LayerDeviation | None
    worst: LayerDeviation | None

    def describe(self) -> str:
        """Lines for a message: the first over the limit, the worst, and those before the first."""
        if self.worst is None:
            return "no value could be compared"
        if self.first is None:
            return f"all {len(self.layers)} values lie within {self.limit:g}; the worst is {_line(self.worst)}"
        index = self.layers.index(self.first)
        before = [f"  before it {_line(layer)}" for layer in self.layers[max(0, index - 2) : index]]
        return "\n".join([f"first over {self.limit:g}: {_line(self.first)}", *before, f"worst: {_line(self.worst)}"])


def compared_values(reference: ir.Model, variant: ir.Model) -> list[str]:
    """The float values that both graphs have by name, in the reference's order. Engines are asked for these."""
    theirs = {v.name for node in variant.graph for v in node.outputs}
    return [
        value.name
        for node in reference.graph
        for value in node.outputs
        if value.name and value.name in theirs and _is_float(value)
    ]


def _is_float(value: ir.Value) -> bool:
    """Whether it is a tensor of floats, or may be one. A sequence of them has no single shape to compare."""
    return value.type is None or (isinstance(value.type, ir.TensorType) and value.dtype in FLOATS)


def compare_layers(
    reference: ir.Model,
    variant: ir.Model,
    frames: Calibration,
    limit: float = 0.1,
    run: Outputs | None = None,
    values: Sequence[str] | None = None,
) -> LayerComparison:
    """Compare the values that both graphs have; neither need state their types.

    run: the variant on its engine, giving the values in order.  values: some of `compared_values`, all where None.
    Raises UnsupportedGraphError where nobody knows the type of a value.
    """
    reference, variant = with_types(reference), with_types(variant)
    names = compared_values(reference, variant) if values is None else list(values)
    if not names:  # a session has to have an output
        return LayerComparison(layers=(), limit=limit, first=None, worst=None)
    wanted, seen = simulate(reference, names), run or simulate(variant, names)
    sums = {name: Difference() for name in names}
    for feed in frames.feeds:
        for name, a, b in zip(names, seen(feed), wanted(feed), strict=True):
            sums[name].add(a, b)
    makers = {v.name: node for node in reference.graph for v in node.outputs}
    layers = tuple(_layer(makers[name], name, sums[name]) for name in names)
    return LayerComparison(
        layers=layers,
        limit=limit,
        first=next((layer for layer in layers if not layer.relative_rms <= limit), None),
        worst=max(layers, key=lambda layer: layer.relative_rms, default=None),
    )


def _layer(node: ir.Node, name: str, difference: Difference) -> LayerDeviation:
    weight = node.inputs[1] if node.op_type in WEIGHTED and len(node.inputs) > 1 else None
    return LayerDeviation(
        value=name,
        operator=node.op_type,
        layer=(weight.name or "") if weight is not None else "",
        relative_rms=difference.relative_rms,
        max_abs=difference.max_abs,
    )


def _line(layer: LayerDeviation) -> str:
    own = f" (weight {layer.layer})" if layer.layer else ""
    return (
        f"{layer.operator} {layer.value}{own}, relative rms {layer.relative_rms:.3g}, at most {layer.max_abs:.3g} off"
    )
