"""Follow the integers of a shape to where they come from.

`x.view(n, 64, -1)` reaches the graph as Reshape(x, Concat(Shape(x)[0], [64], [-1])). Each entry of such a
shape is either a constant, which may have to be rewritten at the place where it enters the chain, or the size of
an axis of some tensor, which follows by itself when that tensor shrinks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from .context import Channels

FOLLOWED = frozenset({"Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"})
"""Operators that only carry entries of a shape along."""
_ARITHMETIC = frozenset({"Add", "Ceil", "Div", "Floor", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "Sub"})
"""What a forward does with image sizes; the result is a number that no channel has a part in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a shape: a constant `size` at (node, input, position), or `factor` * the size of `axis` of `value`.

    Neither: a number computed from image sizes.
    """

    size: int | None = None
    node: ir.Node | None = None
    input: int = 0
    position: int = 0
    value: ir.Value | None = None
    axis: int = 0
    factor: Fraction = Fraction(1)


def entries(node: ir.Node, index: int, channels: Channels) -> list[Entry] | None:
    """Where each entry of input `index` of `node` comes from; None if it cannot be followed."""
    source = node.inputs[index] if index < len(node.inputs) else None
    if source is None:
        return None
    constant = channels.constant(source)
    if constant is not None:
        flat = constant.ravel().tolist()
        return [
            Entry(size=int(v), node=node, input=index, position=i) if float(v).is_integer() else Entry()
            for i, v in enumerate(flat)
        ]
    producer = source.producer()
    return None if producer is None else _through(producer, channels)


def _through(node: ir.Node, channels: Channels) -> list[Entry] | None:
    if node.op_type == "Shape":
        return _of_shape(node)
    if node.op_type in _ARITHMETIC:
        return _computed(node, channels)
    if node.op_type not in FOLLOWED:
        return None
    if node.op_type == "Concat":
        parts = [entries(node, i, channels) for i in range(len(node.inputs))]
        return None if any(p is None for p in parts) else [e for p in parts if p is not None for e in p]
    carried = entries(node, 0, channels)
    if carried is None:
        return None
    if node.op_type == "Gather":
        return _pick(carried, channels.constant(node.inputs[1]))
    if node.op_type == "Slice":
        return _slice(carried, [channels.constant(v) for v in node.inputs[1:]])
    return carried  # Cast, Identity, Reshape, Squeeze, Unsqueeze of at most one axis keep the order


def _of_shape(node: ir.Node) -> list[Entry] | None:
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else len(value.shape)
    return [Entry(value=value, axis=a) for a in range(len(value.shape))[start:end]]


def _computed(node: ir.Node, channels: Channels) -> list[Entry] | None:
    """Arithmetic on numbers in which no width takes part, or one width is scaled by a constant."""
    operands = [entries(node, i, channels) for i in range(len(node.inputs))]
    if any(o is None for o in operands):
        return None
    carried = [e for o in operands for e in o or ()]
    if any(e.value is not None and channels.axes(e.value)[e.axis] is not None for e in carried):
        return _scaled(node, [o or [] for o in operands])
    return [Entry()] * max(len(o or ()) for o in operands)


def _scaled(node: ir.Node, operands: list[list[Entry]]) -> list[Entry] | None:
    """width * n, n * width or width / n."""
    if len(operands) != 2 or any(len(o) != 1 for o in operands) or node.op_type not in ("Mul", "Div"):
        return None
    (first,), (second,) = operands
    if node.op_type == "Mul" and first.size is not None:
        first, second = second, first
    if first.value is None or not second.size:
        return None
    step = Fraction(second.size) if node.op_type == "Mul" else Fraction(1, second.size)
    return [dataclasses.replace(first, factor=first.factor * step)]


def _pick(carried: list[Entry], indices: object) -> list[Entry] | None:
    if not isinstance(indices, np.ndarray):
        return None
    return [carried[int(i)] for i in indices.ravel()]


def _slice(carried: list[Entry], bounds: list[object]) -> list[Entry] | None:
    arrays = [b for b in bounds if isinstance(b, np.ndarray)]
    if len(arrays) != len(bounds) or any(a.size != 1 for a in arrays):
        return None
    start, end = (int(a.ravel()[0]) for a in arrays[:2])
    step = int(arrays[3].ravel()[0]) if len(arrays) > 3 else 1
    return carried[start:end:step]
