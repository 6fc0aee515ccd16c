"""Operators that treat each element by itself.

Unary: labels pass through; f(0) = 0 decides whether a masked channel stays zero.
Binary: operands are aligned from the right, labels on the same axis are united. A sum is zero where all its terms
are, a product where one of its factors is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank, static_size
from ..labels import Axis, Flags
from .registry import rule

_KEEPS_ZERO = (
    "Abs", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Celu", "Dropout", "Elu", "Erf", "Floor",
    "Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Shrink", "Sign", "Sin",
    "Sinh", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_LOSES_ZERO = ("Acos", "Acosh", "Cos", "Cosh", "Exp", "HardSigmoid", "Log", "Reciprocal", "Sigmoid", "Softplus")


@rule(*_KEEPS_ZERO)
def keeps_zero(node: ir.Node, channels: Channels) -> str | None:
    """f(0) = 0: the activations that let a masked channel stay silent."""
    x = operand(node, 0)
    channels.set(node.outputs[0], channels.axes(x))
    return None


@rule(*_LOSES_ZERO)
def loses_zero(node: ir.Node, channels: Channels) -> str | None:
    """f(0) != 0: a masked channel becomes a constant."""
    x = operand(node, 0)
    channels.set(node.outputs[0], [a if a is None else a.with_zero(False) for a in channels.axes(x)])
    return None


@rule("Clip")
def clip(node: ir.Node, channels: Channels) -> str | None:
    """Keeps zero if the bounds enclose it."""
    x = operand(node, 0)
    bounds = [_bound(node, channels, i, n) for i, n in ((1, "min"), (2, "max"))]
    encloses = all(b is not None for b in bounds) and bounds[0] <= 0 <= bounds[1]  # type: ignore[operator]
    passed = [a if a is None or encloses else a.with_zero(False) for a in channels.axes(x)]
    channels.set(node.outputs[0], passed)
    return None


@rule("Pow")
def power(node: ir.Node, channels: Channels) -> str | None:
    """0 to a positive constant power is zero; any other power is unknown."""
    base, exponent = operand(node, 0), operand(node, 1)
    constant = channels.settled(exponent)
    problem = broadcast(node, channels, [base, exponent], needs_all=False, silencers=1)
    if problem is None and (constant is None or not np.all(np.asarray(constant, np.float64) > 0)):
        out = node.outputs[0]
        channels.set(out, [a if a is None else a.with_zero(False) for a in channels.axes(out)])
    return problem


@rule("Max", "Min", "Mean")
def extremum(node: ir.Node, channels: Channels) -> str | None:
    """Element by element over several tensors: zero where all of them are."""
    return broadcast(node, channels, [v for v in node.inputs if v is not None], needs_all=True)


@rule("Add", "Sub", "Sum")
def add(node: ir.Node, channels: Channels) -> str | None:
    """Zero where every term is; a per-channel constant that is a parameter is masked with its channel."""
    operands = [v for v in node.inputs if v is not None]
    for value in operands:
        for axis, carried in enumerate(channels.axes(value)):
            if carried is not None and carried.source is not None:  # a parameter, moved perhaps
                channels.mask(value, axis)
    return broadcast(node, channels, operands, needs_all=True)


@rule("Mul")
def mul(node: ir.Node, channels: Channels) -> str | None:
    """Zero where any factor is: this is how gates (squeeze-and-excitation) keep their channels silent."""
    return broadcast(node, channels, [v for v in node.inputs if v is not None], needs_all=False)


@rule("Div")
def div(node: ir.Node, channels: Channels) -> str | None:
    """Numerator rules; a denominator whose elements could become zero one by one stays whole."""
    numerator, denominator = operand(node, 0), operand(node, 1)
    for axis in channels.axes(denominator):
        if not channels.is_free(axis):
            channels.pin(axis, f"denominator of {place(node)}")
    return broadcast(node, channels, [numerator, denominator], needs_all=False, silencers=1)


@rule("PRelu")
def prelu(node: ir.Node, channels: Channels) -> str | None:
    """x if x > 0 else slope * x: the slope (C, 1, 1) shrinks with x, zero stays zero."""
    return broadcast(node, channels, [operand(node, 0), operand(node, 1)], needs_all=False, silencers=1)


def broadcast(
    node: ir.Node, channels: Channels, operands: Sequence[ir.Value], needs_all: bool, silencers: int | None = None
) -> str | None:
    """Unite labels axis by axis, aligned from the right, and combine the zero flags into those of the output.

    silencers: only so many operands, from the first, can make the result zero; all where None.
    """
    if any(v.shape is None for v in operands):
        return "operand shape unknown"
    size = max(rank(v) for v in operands)
    out: Axes = [None] * size
    for axis in range(1, size + 1):
        columns = [(v, channels.axes(v)[-axis]) for v in operands if axis <= rank(v)]
        carried = [a for _, a in columns if a is not None]
        if not carried:
            continue
        fixed = [v for v, a in columns if a is None and static_size(v, -axis) != 1]
        for value in fixed:
            for other in carried:
                channels.pin(other, f"combined with fixed {value.name} in {place(node)}")
        if fixed:
            continue  # so is the result
        for other in carried[1:]:
            channels.unite(carried[0], other, "")
        deciding = operands if silencers is None else operands[:silencers]
        zeros = [_zero(channels, v, axis, channels.axes(v)[-axis] if axis <= rank(v) else None) for v in deciding]
        zeros = zeros or [np.False_]
        combine = np.logical_and if needs_all else np.logical_or
        out[-axis] = Axis(carried[0].ids, np.broadcast_to(reduce(combine, zeros), carried[0].ids.shape))
    channels.set(node.outputs[0], out)
    return None


def _zero(channels: Channels, value: ir.Value, axis: int, carried: Axis | None) -> Flags | np.bool_:
    """Flags of one operand along the axis counted from the right, () or (n,) bool."""
    if carried is None:
        constant = channels.settled(value)
        return np.bool_(constant is not None and not np.any(constant))
    if carried.source in channels.masked:
        return np.True_
    return carried.zero


def _bound(node: ir.Node, channels: Channels, index: int, name: str) -> float | None:
    """A bound of Clip from its input (opset 11 on) or attribute; open bounds are infinite."""
    if name in node.attributes:
        return node.attributes[name].as_float()
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return -np.inf if name == "min" else np.inf
    constant = channels.settled(value)
    return None if constant is None else float(constant.ravel()[0])
