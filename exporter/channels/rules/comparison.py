"""Comparisons, logic, and the choice they make: labels pass as in any other elementwise operator.

A truth value about a silent channel is no zero, so only Where, whose two values may both be silent, lets silence pass.
"""

from __future__ import annotations

import onnx_ir as ir

from ..context import Channels, operand
from .elementwise import broadcast
from .registry import rule


@rule("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")
def compare(node: ir.Node, channels: Channels) -> str | None:
    """Element by element; nothing is known of the answer."""
    return broadcast(node, channels, [operand(node, 0), operand(node, 1)], needs_all=False, silencers=0)


@rule("IsInf", "IsNaN", "Not")
def test(node: ir.Node, channels: Channels) -> str | None:
    """The same of one tensor."""
    return broadcast(node, channels, [operand(node, 0)], needs_all=False, silencers=0)


@rule("Where")
def where(node: ir.Node, channels: Channels) -> str | None:
    """Zero where both values are, whatever the condition says."""
    values = [operand(node, 1), operand(node, 2)]
    return broadcast(node, channels, [*values, operand(node, 0)], needs_all=True, silencers=2)
