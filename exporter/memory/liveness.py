"""What is alive while a graph runs, and the moment at which most of it is.

Nodes run in the graph's order. A value is alive from the node that computes it to the last node that reads it, both
included: a kernel reads while it writes. Graph inputs are the caller's memory and initializers the weights', neither
counts. Several values may share one buffer: another name of the same tensor, or a result written over its input (see
`reuse`). The buffer is then alive from the first one's birth to the last one's death. A value that nobody reads is
never let go: it is a reader that ONNX Runtime waits for.

What leaves the graph counts at every node, even before it is born. ONNX Runtime plans one block for all that stays
inside, and takes it when a run begins; the outputs are the caller's, so they never find room in it and come on top.

    bytes(node) = sum of the inner buffers alive at that node + all outputs          peak = the largest of all nodes

The arena holds at least this much, and more where a buffer does not fit into the gaps of the block (see `offsets`).
Scratch that a kernel takes and gives back while it runs is in neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import onnx_ir as ir

from .reuse import overwritten_input, renamed_input
from .sized import SizedGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One buffer. values: what it holds, in turn. birth, death: positions of nodes, both included.

    leaves: it is an output of the graph, and lives to the last node.
    """

    values: tuple[str, ...]
    bytes: int
    birth: int
    death: int
    leaves: bool

    def __post_init__(self) -> None:
        if not self.values or self.bytes < 0 or not 0 <= self.birth <= self.death:
            raise ValueError(f"{self.values} of {self.bytes} bytes cannot live from {self.birth} to {self.death}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One node at work, and the buffers that are alive then, largest first."""

    node: str
    operator: str
    bytes: int
    alive: tuple[Life, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """All buffers of a graph. nodes: (name of the first output, operator), in the order of execution."""

    nodes: tuple[tuple[str, str], ...]
    lives: tuple[Life, ...]

    @property
    def totals(self) -> tuple[int, ...]:
        """Bytes at every node, all outputs included."""
        change = [0] * (len(self.nodes) + 1)
        for life in self.lives:
            change[0 if life.leaves else life.birth] += life.bytes
            change[life.death + 1] -= life.bytes
        return tuple(accumulate(change[:-1]))

    @property
    def peak_bytes(self) -> int:
        """The largest of `totals`; 0 of a graph without nodes."""
        return max(self.totals, default=0)

    def moment(self, position: int) -> Moment:
        """The node at this position of the order of execution."""
        node, operator = self.nodes[position]
        alive = [life for life in self.lives if life.leaves or life.birth <= position <= life.death]
        return Moment(
            node=node,
            operator=operator,
            bytes=sum(life.bytes for life in alive),
            alive=tuple(sorted(alive, key=lambda life: -life.bytes)),
        )

    @property
    def peak(self) -> Moment | None:
        """The first node at which most is alive; None of a graph without nodes."""
        totals = self.totals
        return self.moment(totals.index(max(totals))) if totals else None


def liveness(graph: SizedGraph, *, recycle: bool = False) -> Liveness:
    """The buffers of a graph at the sizes that it was measured at.

    recycle: a dead buffer is taken over by the next value of the same stated shape, as ONNX Runtime's planner does
    before it lays out its block; it is then alive in between, too. Which shapes are the same depends on widths, so a
    planner that varies those leaves it off.
    """
    buffers = _Buffers(graph, recycle)
    for position, node in enumerate(graph.model.graph):
        buffers.run(position, node)
    return buffers.finish()


class _Buffers:
    """Follows a graph node by node. A buffer is known by the first value that it held."""

    def __init__(self, graph: SizedGraph, recycle: bool) -> None:
        self._sizes, self._stated, self._recycle = graph.value_bytes, graph.stated, recycle
        self._nodes = [(n.outputs[0].name or "", n.op_type) for n in graph.model.graph]
        self._leaves = {v.name or "" for v in graph.model.graph.outputs}
        self._readers = Counter(name for n in graph.model.graph for name in reads(n))
        self._buffer: dict[str, str] = {}
        self._held: dict[str, list[str]] = {}
        self._birth: dict[str, int] = {}
        self._death: dict[str, int] = {}
        self._open: Counter[str] = Counter()
        """Reads of a buffer's values that are still to come."""
        self._dead: list[str] = []

    def run(self, position: int, node: ir.Node) -> None:
        """Give buffers to what the node computes, then let go of what nobody reads any more."""
        for index, output in enumerate(node.outputs):
            if output.name:
                self._place(position, node, output.name, first=index == 0)
        touched = [self._buffer[name] for name in reads(node) if name in self._buffer]
        for buffer in touched:
            self._open[buffer] -= 1
            self._death[buffer] = position
        unread = [self._buffer[o.name] for o in node.outputs if o.name]
        for buffer in dict.fromkeys((*touched, *unread)):
            if not self._open[buffer] and buffer not in self._leaves:
                self._dead.insert(0, buffer)

    def finish(self) -> Liveness:
        last = len(self._nodes) - 1
        lives = []
        for buffer, values in self._held.items():
            leaves, unread = any(value in self._leaves for value in values), not self._readers[values[-1]]
            lives.append(
                Life(
                    values=tuple(values),
                    bytes=self._sizes[buffer],
                    birth=self._birth[buffer],
                    death=last if leaves or unread else self._death[buffer],
                    leaves=leaves,
                )
            )
        return Liveness(nodes=tuple(self._nodes), lives=tuple(lives))

    def _place(self, position: int, node: ir.Node, name: str, *, first: bool) -> None:
        buffer = None
        if name not in self._leaves:
            buffer = self._shared(node, name) if first else None
            buffer = buffer or self._recycled(name)
        if buffer is None:
            buffer = name
            self._held[buffer], self._birth[buffer] = [], position
        self._buffer[name] = buffer
        self._held[buffer].append(name)
        self._open[buffer] += self._readers[name]
        self._death[buffer] = position

    def _shared(self, node: ir.Node, name: str) -> str | None:
        """The buffer of an input that the node's result may have."""
        source = renamed_input(node)
        if source is not None:
            return self._buffer.get(source.name or "")
        source = overwritten_input(node)
        buffer = None if source is None else self._buffer.get(source.name or "")
        if buffer is None or source is None or buffer in self._leaves or self._open[buffer] != 1:
            return None
        stated = self._stated.get(name)
        return buffer if stated is not None and stated == self._stated.get(source.name or "") else None

    def _recycled(self, name: str) -> str | None:
        stated = self._stated.get(name) if self._recycle else None
        if stated is None:
            return None
        buffer = next((b for b in self._dead if self._stated.get(b) == stated), None)
        if buffer is not None:
            self._dead.remove(buffer)
        return buffer


def reads(node: ir.Node) -> Sequence[str]:
    """The values a node reads, as often as it does, those its branches and bodies read of the graph around them too."""
    found = [v.name or "" for v in node.inputs if v is not None]
    for attribute in node.attributes.values():
        for graph in _graphs(attribute):
            inner = [v for n in graph.all_nodes() for v in n.inputs if v is not None]
            found += [v.name or "" for v in (*inner, *graph.outputs) if v.graph is not graph]
    return found


def _graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else ()
