"""Einsum: every letter is an axis, so the equation says it all.

A letter of the output keeps its labels, united over the operands that carry it, and is zero where one of them is. A
letter that is summed over is contracted: an index may leave if what it contributes, a product, is zero.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank, static_size
from ..labels import Axis
from .registry import rule


@rule("Einsum")
def einsum(node: ir.Node, channels: Channels) -> str | None:
    """See the module docstring. Ellipses and letters repeated within one operand decline."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    terms, arrow, result = equation.partition("->")
    letters = terms.split(",")
    operands = [operand(node, i) for i in range(len(letters))]
    if not arrow or "." in equation:
        return "an equation with an ellipsis or without ->"
    if any(len(set(term)) < len(term) or rank(v) != len(term) for term, v in zip(letters, operands)):
        return "an equation with a diagonal"
    out: dict[str, Axis | None] = {}
    for letter in dict.fromkeys("".join(letters)):
        places = [(v, term.index(letter)) for term, v in zip(letters, operands) if letter in term]
        out[letter] = _join(node, channels, letter, places, summed=letter not in result)
    axes: Axes = [out[letter] for letter in result]
    channels.set(node.outputs[0], axes)
    return None


def _join(
    node: ir.Node, channels: Channels, letter: str, places: list[tuple[ir.Value, int]], summed: bool
) -> Axis | None:
    """Unite what the operands carry under one letter; None if that is nothing, or fixed."""
    carried = [channels.axes(value)[axis] for value, axis in places]
    found = [a for a in carried if a is not None]
    if not found:
        return None
    reason = f"axis {letter} of {place(node)}"
    if any(a is None and static_size(v, i) != 1 for a, (v, i) in zip(carried, places)):
        for axis in found:
            channels.pin(axis, f"{reason} with a fixed side")
    for axis in found[1:]:
        channels.unite(found[0], axis, reason)
    zero = reduce(np.logical_or, [a.zero for a in found])
    if not summed:
        # Rows of a parameter that feed the output are its producers.
        masks = [channels.mask(v, i) for (v, i), a in zip(places, carried) if a is not None and a.source is not None]
        return found[0].with_zero(reduce(np.logical_or, masks, zero))
    channels.sum_over(found[0].ids, zero, f"summed over {reason}")
    return None
