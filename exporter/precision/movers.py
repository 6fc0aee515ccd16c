"""Operators that only move numbers: what comes out of them, went in."""

from __future__ import annotations

import onnx_ir as ir

MOVERS = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Resize",
        "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators whose outputs hold numbers of their input and nothing else (`moves`)."""


def moves(node: ir.Node) -> bool:
    """Whether a node only moves numbers. Padding with anything but 0 and a Resize between pixels make new ones."""
    if node.op_type == "Resize":
        return "mode" not in node.attributes or node.attributes["mode"].as_string() == "nearest"
    if node.op_type == "Pad":
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
        filler = node.inputs[2] if len(node.inputs) > 2 else None
        zero = filler is None or (filler.const_value is not None and not filler.const_value.numpy().any())
        return mode != "constant" or zero
    return node.op_type in MOVERS


def moved(node: ir.Node) -> list[ir.Value]:
    """The inputs whose numbers a mover moves."""
    wanted = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return [v for v in wanted if v is not None]


def sources(value: ir.Value) -> set[str]:
    """Where the numbers of a value come from: back through all that only moves them."""
    found, waiting, seen = set(), [value], set[ir.Value]()
    while waiting:
        current = waiting.pop()
        if current in seen:  # ways that part and meet again are gone once: there may be 2^depth of them
            continue
        seen.add(current)
        producer = current.producer()
        if producer is not None and moves(producer):
            waiting.extend(moved(producer))
        else:
            found.add(current.name or "")
    return found
