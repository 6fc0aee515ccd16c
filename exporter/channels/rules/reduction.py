"""Reductions: fine over space; over channels only where a silent channel adds nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place
from .registry import rule

_ADDITIVE = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
"""Zero terms change nothing."""
_OF_ZEROS_NOT_ZERO = frozenset({"ReduceLogSum", "ReduceLogSumExp"})


@rule("ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", *sorted(_ADDITIVE))
def reduce(node: ir.Node, channels: Channels) -> str | None:
    """Over space labels pass. A sum over channels loses silent ones exactly; a mean or maximum would change."""
    x = operand(node, 0)
    axes = channels.axes(x)
    over = _axes(node, channels, len(axes))
    if over is None:
        return "axes unknown" if channels.labelled(x) else None
    keep = bool(node.attributes["keepdims"].as_int()) if "keepdims" in node.attributes else True
    silent = node.op_type not in _OF_ZEROS_NOT_ZERO
    out: Axes = []
    for index, axis in enumerate(axes):
        if index not in over:
            out.append(axis if axis is None or silent else axis.with_zero(False))
            continue
        if axis is not None and node.op_type in _ADDITIVE:
            channels.contract(axis, axis, f"summed by {place(node)}")
        else:
            channels.pin(axis, f"reduced by {place(node)}")
        if keep:
            out.append(None)
    channels.set(node.outputs[0], out)
    return None


@rule("ArgMax", "ArgMin", "CumSum", "TopK")
def along_one_axis(node: ir.Node, channels: Channels) -> str | None:
    """Along space every channel is by itself; along channels the result would change."""
    x = operand(node, 0)
    axes = channels.axes(x)
    if not channels.labelled(x):
        return None
    if node.op_type == "CumSum":
        constant = channels.constant(operand(node, 1))
        along = None if constant is None else int(np.ravel(constant)[0])
    else:
        default = -1 if node.op_type == "TopK" else 0
        along = node.attributes["axis"].as_int() if "axis" in node.attributes else default
    if along is None:
        return "axis unknown"
    if axes[along] is not None:
        return "runs along channels"
    # Sums of zeros are zero; of positions nothing is known.
    out: Axes = [a if a is None or node.op_type == "CumSum" else a.with_zero(False) for a in axes]
    keep = "keepdims" not in node.attributes or bool(node.attributes["keepdims"].as_int())
    if node.op_type.startswith("Arg") and not keep:
        del out[along]
    for output in node.outputs:
        channels.set(output, out)
    return None


def _axes(node: ir.Node, channels: Channels, size: int) -> set[int] | None:
    if "axes" in node.attributes:
        return {a % size for a in node.attributes["axes"].as_ints()}
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is None:
        identity = "noop_with_empty_axes" in node.attributes and node.attributes["noop_with_empty_axes"].as_int()
        return set() if identity else set(range(size))
    constant = channels.constant(given)
    return None if constant is None else {int(a) % size for a in np.ravel(constant)}
