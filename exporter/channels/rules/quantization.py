"""Quantised tensors: scales and zero points per channel are cut with their channels.

    y = saturate(round(x / scale) + zero_point)        x = (y - zero_point) * scale

Zero becomes the zero point and comes back as zero, so silence passes through both. A quantised weight is a parameter
like any other: masking it to zero silences its channel if its zero point is zero.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank, static_size
from ..labels import Axis
from .registry import rule


@rule("QuantizeLinear", "DequantizeLinear")
def quantize(node: ir.Node, channels: Channels) -> str | None:
    """Labels pass; per channel (scale and zero point are vectors) they are tied to those of `axis`."""
    x, scale = operand(node, 0), operand(node, 1)
    point = node.inputs[2] if len(node.inputs) > 2 else None
    if "block_size" in node.attributes and node.attributes["block_size"].as_int():
        return "quantised in blocks"
    if rank(scale) > 1:
        return "scales on several axes"
    axes: Axes = list(channels.label_integers(x) if x.is_initializer() else channels.axes(x))
    if rank(scale) == 1 and static_size(scale, 0) != 1 and axes:
        axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 1) % len(axes)
        for parameter in (scale, point):
            if parameter is not None and rank(parameter) == 1:
                vector = channels.label_integers(parameter)[0]
                channels.unite(axes[axis], vector, f"quantised with {place(node)}")
    if x.is_initializer() and not _is_zero(point, channels):
        # Masked to zero it would read as -zero_point * scale.
        axes = [a if a is None else Axis(a.ids, a.zero) for a in axes]
    channels.set(node.outputs[0], axes)
    return None


def _is_zero(point: ir.Value | None, channels: Channels) -> bool:
    constant = channels.constant(point)
    return point is None or (constant is not None and not np.any(constant))
