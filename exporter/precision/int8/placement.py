"""Where Q/DQ pairs go: which values, for which of their readers, and which values share a scale.

What only moves numbers (a transpose, a max pooling, a concatenation) gives back the bytes it was given, if input and
output have one scale: then nothing is quantised twice, and an engine can move the pair to the other side. So all values
that are connected by such operators share the widest range among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from .layers import Layer

Reader = tuple[str, int]
"""A node by its first output, and which of its inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """values: value -> who reads it through Q/DQ. layers: whose weights are bytes. signed: int8 activations, or uint8.

    shared: sets of values with one scale. outputs: of the graph, that are given out through Q/DQ.
    """

    values: Mapping[str, frozenset[Reader]]
    layers: tuple[Layer, ...]
    signed: bool
    shared: tuple[frozenset[str], ...]
    outputs: frozenset[str] = frozenset()


def reader(node: ir.Node, index: int) -> Reader:
    """How a reader is named."""
    return (node.outputs[0].name or "", index)


def joined(groups: Iterable[Iterable[str]]) -> tuple[frozenset[str], ...]:
    """Sets that have a member in common, united."""
    found: list[set[str]] = []
    for group in groups:
        new = set(group)
        for other in [o for o in found if o & new]:
            found.remove(other)
            new |= other
        found.append(new)
    return tuple(frozenset(g) for g in found)


def readers_of(value: ir.Value, graph: ir.Graph) -> Iterator[tuple[ir.Node, int]]:
    """Who reads a value in the graph itself. What reads it inside of a sub-graph goes on reading floats."""
    for use in value.uses():
        if use.node.graph is graph:
            yield use.node, use.idx


def sole_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value which is no output of the graph; None where there are none or several."""
    users, producer = list(value.uses()), value.producer()
    if len(users) != 1 or value.is_graph_output() or producer is None or users[0].node.graph is not producer.graph:
        return None
    return users[0].node
