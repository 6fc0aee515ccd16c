"""Which nodes stay in float32, and why.

A node computes in float16 unless
- a number it reads or makes, or a sum that its kernel runs up, exceeds what float16 holds, divided by a margin;
- a number it reads or makes is so small that rounding takes a noticeable share of it;
- what it divides by has a number that float16 rounds to 0, or nearly so: then who makes the divisor is an island too;
- a constant of it is (an epsilon of 1e-12 is 0 in float16, and 1e-5 has lost its last digits);
- its operator squares, exponentiates or counts inside, where no range of values tells what happens;
- it normalises the camera's frame: a difference of near numbers, before anything has been computed;
- it has sub-graphs, or the user says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..channels.rules.contraction import WEIGHTED
from .calibration import Calibration
from .movers import moved, moves
from .ranges import ValueRange, measure_ranges, measure_sums, norms

LARGEST = 65504.0
"""The largest number of float16."""
SMALLEST_NORMAL = 2.0**-14
"""Below it a float16 has fewer digits the smaller it is."""

_SQUARES = "its kernel squares what it reads"
_EXPONENTIATES = "its kernel exponentiates and sums"
_COUNTS = "its numbers are counts or coordinates, which float16 holds up to 2048"
BY_KIND: Mapping[str, str] = {
    "CumSum": "its sum grows along the axis",
    "Exp": "it exponentiates",
    "GridSample": _COUNTS,
    "GroupNormalization": _SQUARES,
    "InstanceNormalization": _SQUARES,
    "LRN": _SQUARES,
    "LayerNormalization": _SQUARES,
    "Log": "near 0 it turns lost digits into large errors",
    "LogSoftmax": _EXPONENTIATES,
    "LpNormalization": _SQUARES,
    "LpPool": _SQUARES,
    "MeanVarianceNormalization": _SQUARES,
    "NonMaxSuppression": _COUNTS,
    "Pow": "it may square or exponentiate",
    "RMSNormalization": _SQUARES,
    "Range": _COUNTS,
    "ReduceL2": _SQUARES,
    "ReduceLogSum": _EXPONENTIATES,
    "ReduceLogSumExp": _EXPONENTIATES,
    "ReduceProd": "its product may leave the range at any factor",
    "ReduceSumSquare": _SQUARES,
    "RoiAlign": _COUNTS,
}
_PREPARES = frozenset({"Add", "Cast", "Div", "Mul", "Sub"})
_QDQ = frozenset({"DequantizeLinear", "QuantizeLinear"})
_DIVISORS = {"Div": 1, "Reciprocal": 0}
_STEPS = 8
"""How many nodes a frame is prepared by at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """margin: how many times the largest number seen must fit. lost: the share of a value that rounding may take."""

    margin: float = 4.0
    lost: float = 2.0**-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """A node that stays in float32. value: its first output. layer: its weight's name, "" where it has none."""

    value: str
    operator: str
    layer: str
    reason: str


def find_islands(
    model: ir.Model, calibration: Calibration, limits: Limits | None = None, keep: Collection[str] = ()
) -> tuple[Island, ...]:
    """All nodes of a typed float32 graph that must not be float16, in graph order.

    keep: first outputs of nodes, or weights, that stay by request. Raises DataError where the net does not run.
    """
    limits = limits or Limits()
    ranges, sums = measure_ranges(model, calibration), measure_sums(model, calibration)
    frames, divisors = frame_nodes(model), _small_divisors(model, ranges)
    found = []
    for node in model.graph:
        near = [v.name for v in (*node.inputs, *node.outputs) if v in divisors]
        small = f"{near[0]} is divided by, and comes near 0" if near else None
        reason = next(_reasons(node, ranges, sums, frames, limits, keep), small)
        if reason is not None and _has_floats(node):
            found.append(
                Island(
                    value=node.outputs[0].name or "",
                    operator=node.op_type,
                    layer=_layer(node),
                    reason=reason,
                )
            )
    return tuple(found)


def _reasons(
    node: ir.Node,
    ranges: Mapping[str, ValueRange],
    sums: Mapping[str, float],
    frames: Collection[ir.Node],
    limits: Limits,
    keep: Collection[str],
) -> Iterator[str]:
    """All reasons to keep a node, the most telling one first."""
    if node.outputs[0].name in keep or _layer(node) in keep:
        yield "kept in float32 by request"
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        yield "it has sub-graphs, which stay as they are"
    if node.op_type in BY_KIND:
        yield BY_KIND[node.op_type]
    if node in frames:
        yield "it normalises the frame: a difference of near numbers"
    if any(
        v is not None and isinstance(v.type, ir.SequenceType | ir.OptionalType) for v in (*node.inputs, *node.outputs)
    ):
        yield "it reads or makes a sequence, which stays as it is"
    if node.op_type in _QDQ:
        bound = [v for v in (*node.inputs[:1], *node.outputs) if v is not None]  # scales: see `_constant`
    else:
        bound = [v for v in (*node.inputs, *node.outputs) if v is not None]
    yield from _too_large(node, bound, ranges, sums, limits)
    for value in bound:
        seen = ranges.get(value.name or "")
        if seen is not None and seen.lost > limits.lost:
            yield f"{value.name} is too small: float16 loses {100 * seen.lost:.2g} % of it"
    for constant in node.inputs:
        if constant is not None and constant.is_initializer() and constant.dtype == ir.DataType.FLOAT:
            yield from _constant(node, constant, limits)
    if node.op_type == "BatchNormalization":
        yield from _variance(node)


def _too_large(
    node: ir.Node,
    values: list[ir.Value],
    ranges: Mapping[str, ValueRange],
    sums: Mapping[str, float],
    limits: Limits,
) -> Iterator[str]:
    bound = LARGEST / limits.margin
    allowed = f"float16 holds {LARGEST:.0f}, and {limits.margin:g} times as much must fit"
    for value in values:
        seen = ranges.get(value.name or "")
        if seen is not None and seen.largest > bound:
            yield f"{value.name} reaches {seen.largest:.4g}; {allowed}"
    largest = sums.get(node.outputs[0].name or "", 0.0)
    if largest > bound:
        yield f"its sum may reach {largest:.4g} on the way; {allowed}"


def _constant(node: ir.Node, value: ir.Value, limits: Limits) -> Iterator[str]:
    """Of a layer's weight what counts is each output's norm, of other constants every number that is not 0."""
    array = value.const_value.numpy() if value.const_value is not None else None
    if array is None or not array.size:
        return
    largest = float(np.abs(array).max())
    if largest > LARGEST:
        yield f"its constant {value.name} reaches {largest:.4g}, beyond float16"
    elif node.op_type in _QDQ and not np.all(array.astype(np.float16)):
        yield f"its scale {value.name} is 0 in float16"
    elif node.op_type in WEIGHTED or node.op_type in _QDQ:
        kept, lost = norms(array)
        share = float(np.sqrt(lost / kept)) if kept else 0.0
        if share > limits.lost:
            yield f"its weight {value.name} is too small: float16 loses {100 * share:.2g} % of it"
    elif 0 < largest < SMALLEST_NORMAL:
        yield f"its constant {value.name} is {largest:.4g}, below the smallest normal float16"


def _variance(node: ir.Node) -> Iterator[str]:
    variance = node.inputs[4]
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    array: NDArray[np.generic] | None = None
    if variance is not None and variance.const_value is not None:
        array = variance.const_value.numpy()
    if (
        array is None
        or float(array.min(initial=1.0)) + epsilon < SMALLEST_NORMAL
        or float(array.max(initial=0)) > LARGEST
    ):
        yield "a variance of it is beyond or below what float16 holds"


def frame_nodes(model: ir.Model) -> set[ir.Node]:
    """What turns a frame of bytes into normalised numbers: casts, products and sums with constants."""
    found: set[ir.Node] = set()
    for value in model.graph.inputs:
        current: ir.Value | None = value if value.dtype == ir.DataType.UINT8 else None
        for _ in range(_STEPS):
            users = [use.node for use in current.uses()] if current is not None else []
            if len(users) != 1 or current is None:
                break
            node = users[0]
            others = [v for v in node.inputs if v is not None and v is not current]
            if node.op_type in _PREPARES and all(v.is_initializer() for v in others):
                found.add(node)
            elif node.op_type != "Transpose":
                break
            current = node.outputs[0]
    return found


def _small_divisors(model: ir.Model, ranges: Mapping[str, ValueRange]) -> set[ir.Value]:
    """Values that are divided by and come nearer to 0 than float16 can, back to where their numbers are made."""
    found: set[ir.Value] = set()
    for node in model.graph:
        operand = _DIVISORS.get(node.op_type)
        value = node.inputs[operand] if operand is not None and operand < len(node.inputs) else None
        seen = ranges.get((value.name or "") if value is not None else "")
        waiting = [value] if value is not None and seen is not None and seen.least < SMALLEST_NORMAL else []
        while waiting:
            current = waiting.pop()
            if current in found:
                continue
            found.add(current)
            producer = current.producer()
            if producer is not None and moves(producer):
                waiting.extend(moved(producer))
    return found


def _has_floats(node: ir.Node) -> bool:
    return any(v is not None and v.dtype == ir.DataType.FLOAT for v in (*node.inputs, *node.outputs))


def _layer(node: ir.Node) -> str:
    weight = node.inputs[1] if node.op_type in WEIGHTED and len(node.inputs) > 1 else None
    return (weight.name or "") if weight is not None and weight.is_initializer() else ""
