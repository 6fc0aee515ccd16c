"""Pooling and resizing: space changes, channels do not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Channels, operand
from ..dims import entries
from .registry import rule
from .regroup import check_entries


@rule("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "MaxPool")
def pool(node: ir.Node, channels: Channels) -> str | None:
    """Axis 1 passes; a pool of zeros is zero (padding is ignored by maxima, zero in averages)."""
    x = operand(node, 0)
    if any(axis is not None for axis in channels.axes(x)[2:]):
        return "channels on a pooled axis"
    if len(node.outputs) > 1 and any(o.uses() for o in node.outputs[1:]):
        return "indices of maxima are used"
    channels.set(node.outputs[0], channels.axes(x))
    return None


@rule("Resize")
def resize(node: ir.Node, channels: Channels) -> str | None:
    """Interpolates space: the channel axis must keep its length, given as scale 1 or as its own size."""
    x = operand(node, 0)
    axes = channels.axes(x)
    if "axes" in node.attributes:
        resized = {a % len(axes) for a in node.attributes["axes"].as_ints()}
        if any(axes[a] is not None for a in resized):
            return "resizes channels"
    else:
        scales = channels.constant(node.inputs[2] if len(node.inputs) > 2 else None)
        if scales is not None and scales.size:
            if any(a is not None and s != 1.0 for a, s in zip(axes, np.ravel(scales))):
                return "resizes channels"
        else:
            target = entries(node, 3, channels)
            if target is None:
                return "output size unknown" if channels.labelled(x) else None
            problem = check_entries(node, target, axes, channels)
            if problem:
                return problem
            if any(a is not None and e.size not in (None, len(a)) for a, e in zip(axes, target)):
                return "resizes channels"
    channels.set(node.outputs[0], axes)
    return None
