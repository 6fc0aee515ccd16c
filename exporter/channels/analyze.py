"""Which channels of a graph can leave, and what leaves with them.

One walk in topological order applies the rule of each operator; what no rule understands stays whole, with the reason.
The classes of united labels are then read back as units: the slices of initializers that live or die together.
Units whose slices lie on the same axes of the same initializers form a family, the group over which widths are chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.errors import EdgeslimError, UnsupportedGraphError, first_line

from .context import Channels, CountRewrite, IndexRewrite, SumSite, operand, place, static_size
from .labels import Axis, Ids, Labels
from .rules import RULES


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Indices of one axis of one initializer that belong to a unit.

    masked: the trainer sets these slices to zero to silence the unit (its producers; not its consumers).
    """

    initializer: str
    axis: int
    indices: tuple[int, ...]
    masked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The smallest thing that can be cut: all its members, or none."""

    label: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Units whose members lie on the same axes; `name` is the first initializer that produces them."""

    name: str
    units: tuple[Unit, ...]

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.units)


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

    def alive(self, ids: Ids, cut: Collection[int]) -> NDArray[np.bool_]:
        """Which of these labels stay when the units with the root labels `cut` go. Returns (n,) bool."""
        alive = np.ones(len(self.labels), np.bool_)
        alive[np.fromiter(cut, np.int64, len(cut))] = False
        return alive[self.labels.find(ids)]


def analyze(
    model: ir.Model, parameters: Collection[str] | None = None, *, constants: Literal["pin", "record"] = "pin"
) -> ChannelMap:
    """Find the prunable units of a graph.

    parameters: initializers that can be masked (a module's `state_dict` names); all where None.
    constants: a unit that would arrive at a sum as a non-zero constant stays ("pin"), or is offered all the same
    ("record"): then cutting it is exact only after it has been folded into every sum of `ChannelMap.sums`.
    Raises UnsupportedGraphError for a graph that breaks the rules of ONNX.
    """
    graph = model.graph
    maskable = frozenset(graph.initializers if parameters is None else parameters)
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
    units = _units(channels, pinned)
    return ChannelMap(
        model=model,
        parameters=maskable,
        families=_families(units),
        initializer_axes=channels.initializer_axes,
        masked=frozenset(channels.masked),
        rewrites=tuple(channels.rewrites),
        sums=tuple(channels.sums),
        layers=tuple(layers),
        pinned=pinned,
        value_ids=_value_ids(graph, channels),
        labels=channels.labels,
    )


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
    """Inputs of a node and, for control flow, what its sub-graphs capture."""
    yield from (v for v in node.inputs if v is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph().all_nodes():
                yield from (v for v in inner.inputs if v is not None)


def _layer(node: ir.Node, channels: Channels, reason: str | None) -> LayerWidth | None:
    """The width of a layer with weights, for the coverage report."""
    if (
        node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul")
        or len(node.inputs) < 2
        or node.inputs[1] is None
    ):
        return None
    weight, output = operand(node, 1), node.outputs[0]
    carried = channels.axes(output)
    out = next((a for a in carried if a is not None), None)
    if node.op_type == "MatMul" and not _comes_from_initializer(weight):
        return None
    name = weight.name or node.name or ""
    ids = np.empty(0, np.int64) if out is None else out.ids
    fixed = "" if out is not None else (reason or "a width of 1 cannot shrink")
    width = len(ids) or static_size(output, 1 if node.op_type.startswith("Conv") else -1) or 0
    return LayerWidth(layer=name, operator=node.op_type, width=width, ids=ids, fixed_reason=fixed)


def _comes_from_initializer(value: ir.Value) -> bool:
    producer = value.producer()
    return value.is_initializer() or (
        producer is not None and all(v is None or v.is_initializer() for v in producer.inputs)
    )


def _units(channels: Channels, pinned: dict[int, str]) -> list[Unit]:
    """Read united labels back as slices of initializers; keep those that somebody can silence."""
    slices: dict[int, list[Member]] = {}
    for name, axes in channels.initializer_axes.items():
        for index, axis in enumerate(axes):
            if axis is None:
                continue
            masked = (name, index) in channels.masked
            for root, indices in _group(channels.labels.find(axis.ids)):
                if root not in pinned:
                    slices.setdefault(root, []).append(
                        Member(initializer=name, axis=index, indices=indices, masked=masked)
                    )
    units = []
    for root, members in sorted(slices.items()):
        if any(m.masked for m in members):
            units.append(Unit(label=root, members=tuple(members)))
        else:
            pinned[root] = "no parameter silences it"
    return units


def _group(roots: Ids) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(root, the positions at which it stands), for every root in the array."""
    if len(np.unique(roots)) == len(roots):  # the common case: one channel, one index
        yield from ((root, (position,)) for position, root in enumerate(roots.tolist()))
        return
    positions: dict[int, list[int]] = {}
    for position, root in enumerate(roots.tolist()):
        positions.setdefault(root, []).append(position)
    yield from ((root, tuple(where)) for root, where in positions.items())


def _families(units: list[Unit]) -> tuple[Family, ...]:
    groups: dict[tuple[tuple[str, int], ...], list[Unit]] = {}
    for unit in units:
        signature = tuple((m.initializer, m.axis) for m in unit.members)
        groups.setdefault(signature, []).append(unit)
    families, seen = [], dict[str, int]()
    for members in groups.values():
        base = next(m.initializer for m in members[0].members if m.masked)
        seen[base] = seen.get(base, 0) + 1
        name = base if seen[base] == 1 else f"{base}#{seen[base]}"
        families.append(Family(name=name, units=tuple(members)))
    return tuple(families)


def _value_ids(graph: ir.Graph, channels: Channels) -> dict[str, tuple[Ids | None, ...]]:
    found = {}
    for node in graph:
        for value in node.outputs:
            axes = channels.axes(value)
            if value.name and any(a is not None for a in axes):
                found[value.name] = tuple(None if a is None else channels.labels.find(a.ids) for a in axes)
    return found
