"""Small graphs of known sizes, and checkers of what is said of their buffers: they compute nothing as the code does."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from hypothesis import strategies as st

from edgeslim.exporter.memory.liveness import Life, Liveness
from edgeslim.exporter.memory.reuse import overwritten_input, renamed_input
from edgeslim.exporter.memory.sized import SizedGraph

OPERATORS = ("Conv", "Concat", "Relu", "Softmax", "Reshape", "Add")


def graph(nodes: Sequence[tuple[str, str, Sequence[str]]], outputs: Sequence[str], **sizes: int) -> SizedGraph:
    """nodes: (operator, result, what it reads), `x` being the input. sizes: bytes; equal sizes have equal shapes."""
    values = {"x": ir.Value(name="x")}
    made = []
    for operator, result, inputs in nodes:
        node = ir.node(operator, [values[name] for name in inputs])
        node.outputs[0].name = result
        values[result] = node.outputs[0]
        made.append(node)
    own = ir.Graph([values["x"]], [values[name] for name in outputs], nodes=made, opset_imports={"": 18})
    return SizedGraph(
        model=ir.Model(own, ir_version=10),
        value_bytes=sizes,
        stated={name: (4, size) for name, size in sizes.items()},
    )


@st.composite
def graphs(draw: st.DrawFn, operators: Sequence[str] = OPERATORS) -> SizedGraph:
    """Random graphs: values are read once, many times or never, far away or next door; outputs are read inside, too."""
    count = draw(st.integers(1, 12))
    names = [f"v{i}" for i in range(count)]
    nodes = []
    sizes: dict[str, int] = {}
    for i, name in enumerate(names):
        operator = draw(st.sampled_from(operators))
        inputs = draw(st.lists(st.sampled_from(["x", *names[:i]]), min_size=1, max_size=3))
        nodes.append((operator, name, inputs))
        renamed = operator == "Reshape" and inputs[0] in sizes
        sizes[name] = sizes[inputs[0]] if renamed else 256 * draw(st.integers(0, 4))
    outputs = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    return graph(nodes, outputs, **sizes)


def faults(graph: SizedGraph, found: Liveness) -> list[str]:
    """Run the graph on its buffers: every value must still be there when it is read, and outputs at the end."""
    buffer = {value: life for life in found.lives for value in life.values}
    content: dict[int, set[str]] = {}
    wrong = []
    for position, node in enumerate(graph.model.graph):
        reads = [v.name or "" for v in node.inputs if v is not None and v.name in graph.value_bytes]
        result = node.outputs[0].name or ""
        for name in reads:
            life = buffer[name]
            if not life.birth <= position <= life.death:
                wrong.append(f"{name} is read at {position} and lives from {life.birth} to {life.death}")
            if name not in content[id(life)]:
                wrong.append(f"{name} is read at {position}, when its buffer holds {content[id(life)]}")
        own, renamed, over = buffer[result], renamed_input(node), overwritten_input(node)
        shared = [name for name in reads if buffer[name] is own]
        allowed = {v.name for v in (renamed, over) if v is not None}
        if not set(shared) <= allowed and (renamed is None or buffer.get(renamed.name or "") is not own):
            wrong.append(f"{result} is written over {shared}, which its node is still reading")
        if own.bytes < graph.value_bytes[result]:
            wrong.append(f"{result} has {graph.value_bytes[result]} bytes, its buffer {own.bytes}")
        kept = content.get(id(own), set()) if renamed is not None and shared else set()
        content[id(own)] = {*kept, result}
    end = len(found.nodes) - 1
    for value in graph.model.graph.outputs:
        life = buffer[value.name or ""]
        if value.name not in content[id(life)] or life.death != end or not life.leaves:
            wrong.append(f"the output {value.name} is not there at the end")
    return wrong


def overlaps(lives: Sequence[Life], offsets: Sequence[int]) -> list[tuple[Life, Life]]:
    """Pairs that are alive at the same time in the same bytes."""
    spans = list(zip(lives, offsets))
    return [
        (a, b)
        for i, (a, start) in enumerate(spans)
        for b, other in spans[:i]
        if max(a.birth, b.birth) <= min(a.death, b.death) and max(start, other) < min(start + a.bytes, other + b.bytes)
    ]
