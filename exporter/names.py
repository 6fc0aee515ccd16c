"""Names that a graph has not got yet: two values of one name make it invalid, and a file may hold any name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def free_name(graph: ir.Graph, wanted: str) -> str:
    """`wanted`, or with a number behind it where the graph or one of its sub-graphs has that name already."""
    taken = set(_names(graph))
    numbered = (f"{wanted}_{number}" for number in count(2))
    return wanted if wanted not in taken else next(name for name in numbered if name not in taken)


def free_prefix(graph: ir.Graph, wanted: str) -> str:
    """`wanted`, or with underscores behind it: no name of the graph or its sub-graphs begins with it."""
    taken = tuple(_names(graph))
    while any(name.startswith(wanted) for name in taken):
        wanted += "_"
    return wanted


def add_constant(graph: ir.Graph, wanted: str, array: NDArray[np.generic]) -> ir.Value:
    """A new initializer, under this name if it is free."""
    name = free_name(graph, wanted)
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def give_way(graph: ir.Graph, old: ir.Value, new: ir.Value, wanted: str) -> None:
    """Let all that reads `old` read `new`. A graph output keeps its name: its users know it by that."""
    if old.is_graph_output():
        name, old.name = old.name, free_name(graph, wanted)
        new.name = name
    else:
        new.name = free_name(graph, wanted)
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _names(graph: ir.Graph) -> Iterator[str]:
    yield from (v.name or "" for v in (*graph.inputs, *graph.initializers.values()))
    for node in graph:
        yield from (v.name or "" for v in node.outputs)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _names(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner in attribute.as_graphs():
                    yield from _names(inner)
