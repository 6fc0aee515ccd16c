"""Which channels of a graph can leave, and what leaves with them.

One walk in topological order applies the rule of each operator; what no rule understands stays whole, with the reason.
The classes of united labels are then read back as units and families of units (see `families`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgeslim.errors import EdgeslimError, UnsupportedGraphError, first_line

from .context import Channels, CountRewrite, IndexRewrite, SumSite, operand, place, rank, static_size
from .families import Family, find_families
from .labels import Axis, Flags, Ids, Labels
from .rules import RULES
from .rules.contraction import WEIGHTED


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWidth:
    """Output width of one weighted layer. ids: (width,) int64 labels, or empty where the width is fixed."""

    layer: str
    operator: str
    width: int
    ids: Ids
    fixed_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMap:
    """The result of the analysis; it refers to the graph it was made from and changes nothing in it.

    parameters: the initializers that belong to the model; all others are constants of the trace.
    initializer_axes: initializer -> its axes, None where an axis cannot shrink.
    masked: (initializer, axis) whose cut indices the trainer sets to zero.
    pinned: root label -> why it stays.
    """

    model: ir.Model
    parameters: frozenset[str]
    families: tuple[Family, ...]
    initializer_axes: dict[str, list[Axis | None]]
    masked: frozenset[tuple[str, int]]
    rewrites: tuple[CountRewrite | IndexRewrite, ...]
    sums: tuple[SumSite, ...]
    """Where channels are summed over; see `constants` of analyze."""
    layers: tuple[LayerWidth, ...]
    pinned: dict[int, str]
    value_ids: dict[str, tuple[Ids | None, ...]] = field(repr=False)
    """Root labels per axis of every computed value, to find a unit's feature map."""
    labels: Labels = field(repr=False)

    def family(self, name: str) -> Family:
        """The family of this name. Raises KeyError."""
        return next(f for f in self.families if f.name == name)

    @property
    def unit_labels(self) -> Ids:
        """The root labels of all units, family by family: (units,) int64, the order of every score array."""
        return np.concatenate([np.empty(0, np.int64), *(family.labels for family in self.families)])

    def emptied(self, cut: Collection[int]) -> list[tuple[str, Ids]]:
        """Values of which an axis would lose all its channels, such as a piece of a Split: (name, labels of it)."""
        living = self.living(cut)
        return [
            (name, ids)
            for name, axes in self.value_ids.items()
            for ids in axes
            if ids is not None and not living[ids].any()
        ]

    def living(self, cut: Collection[int]) -> Flags:
        """Which labels stay when the units with the root labels `cut` go: (labels,) bool, for every label."""
        alive = np.ones(len(self.labels), np.bool_)
        alive[np.fromiter(cut, np.int64, len(cut))] = False
        return alive[self.labels.find(np.arange(len(self.labels)))]


def analyze(
    model: ir.Model, parameters: Collection[str] | None = None, *, constants: Literal["pin", "record"] = "pin"
) -> ChannelMap:
    """Find the prunable units of a graph.

    parameters: initializers that can be masked (a module's `state_dict` names); all but single numbers where None.
    constants: a unit that would arrive at a sum as a non-zero constant stays ("pin"), or is offered all the same
    ("record"): then cutting it is exact only after it has been folded into every sum of `ChannelMap.sums`.
    Raises UnsupportedGraphError for a graph that breaks the rules of ONNX.
    """
    graph = model.graph
    maskable = frozenset(_tensors(graph) if parameters is None else parameters)
    channels = Channels(maskable, record_constants=constants == "record")
    layers: list[LayerWidth] = []
    for node in _nodes(graph):
        reason = _apply_rule(node, channels)
        layer = _layer(node, channels, reason)
        if layer is not None:
            layers.append(layer)
    for value in graph.outputs:
        channels.pin(value, f"graph output {value.name}")
    pinned = channels.labels.pinned()
    families, unsilenced = find_families(
        channels.initializer_axes, channels.labels, frozenset(channels.masked), _marked(pinned, len(channels.labels))
    )
    pinned.update((label, "no parameter silences it") for label in unsilenced.tolist())
    return ChannelMap(
        model=model,
        parameters=maskable,
        families=families,
        initializer_axes=channels.initializer_axes,
        masked=frozenset(channels.masked),
        rewrites=tuple(channels.rewrites),
        sums=tuple(channels.sums),
        layers=tuple(layers),
        pinned=pinned,
        value_ids=_value_ids(graph, channels),
        labels=channels.labels,
    )


def _marked(pinned: Collection[int], size: int) -> Flags:
    marks = np.zeros(size, np.bool_)
    marks[np.fromiter(pinned, np.int64, len(pinned))] = True
    return marks


def _tensors(graph: ir.Graph) -> Iterator[str]:
    """Initializers with more than one element: a single number bounds or scales, and masks nobody's channel."""
    for name, value in graph.initializers.items():
        if value.const_value is not None and value.const_value.size > 1:
            yield name


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    try:
        graph.sort()
    except ValueError as error:
        raise UnsupportedGraphError(f"graph {graph.name}: {error}", "the graph has a cycle") from error
    yield from graph


def _apply_rule(node: ir.Node, channels: Channels) -> str | None:
    """Run the node's rule; where there is none or it declines, pin what it reads and return why."""
    channels.node = node
    known = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    try:
        problem = "no rule for this operator" if known is None else known(node, channels)
    except EdgeslimError:
        raise
    except Exception as error:  # fail closed: a rule that meets what it never expected must not stop the export
        problem = f"its rule failed, please report it ({type(error).__name__}: {first_line(error)})"
    if problem is None:
        return None
    reason = f"{place(node)}: {problem}"
    for value in _reads(node):
        channels.pin(value, reason)
    for output in node.outputs:
        channels.forget(output)
    return reason


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Inputs of a node and, for control flow, what its sub-graphs capture from the graph around them."""
    yield from (v for v in node.inputs if v is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            inner = attribute.as_graph()
            read = [*inner.outputs, *(v for n in inner.all_nodes() for v in n.inputs if v is not None)]
            yield from (v for v in read if v.graph is node.graph)  # constants of the sub-graph are its own


def _layer(node: ir.Node, channels: Channels, reason: str | None) -> LayerWidth | None:
    """The width of a layer with weights, for the coverage report."""
    if node.op_type not in WEIGHTED or len(node.inputs) < 2 or node.inputs[1] is None:
        return None
    weight, output, at = operand(node, 1), node.outputs[0], 1 if node.op_type.startswith("Conv") else -1
    if node.op_type == "MatMul" and not _comes_from_initializer(weight):
        weight, at = operand(node, 0), -2  # a parameter on the left makes the rows
        if not _comes_from_initializer(weight):
            return None
    if rank(weight) == 1:
        return None  # it makes no width of its own
    carried = channels.axes(output)
    out = carried[at] if -len(carried) <= at < len(carried) else None
    name = _behind(weight).name or node.name or ""
    ids = np.empty(0, np.int64) if out is None else out.ids
    fixed = "" if out is not None else (reason or "a width of 1 cannot shrink")
    width = len(ids) or static_size(output, at) or 0
    return LayerWidth(layer=name, operator=node.op_type, width=width, ids=ids, fixed_reason=fixed)


def _behind(value: ir.Value) -> ir.Value:
    """The parameter a weight is made from, through a Transpose or DequantizeLinear; itself if it is computed."""
    producer = value.producer()
    if producer is None or not producer.inputs or producer.inputs[0] is None or not _comes_from_initializer(value):
        return value
    return _behind(producer.inputs[0])


def _comes_from_initializer(value: ir.Value) -> bool:
    producer = value.producer()
    return value.is_initializer() or (
        producer is not None and all(v is None or v.is_initializer() for v in producer.inputs)
    )


def _value_ids(graph: ir.Graph, channels: Channels) -> dict[str, tuple[Ids | None, ...]]:
    found = {}
    for node in graph:
        for value in node.outputs:
            axes = channels.axes(value)
            if value.name and any(a is not None for a in axes):
                found[value.name] = tuple(None if a is None else channels.labels.find(a.ids) for a in axes)
    return found
