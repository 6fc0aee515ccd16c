"""Pooling and resizing: space changes, channels do not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank
from ..dims import entries
from .registry import rule
from .regroup import check_entries


@rule("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "MaxPool")
def pool(node: ir.Node, channels: Channels) -> str | None:
    """Axis 1 passes; a pool of zeros is zero (padding is ignored by maxima, zero in averages)."""
    x = operand(node, 0)
    if len(node.outputs) > 1 and any(o.uses() for o in node.outputs[1:]):
        return "indices of maxima are used"
    channels.set(node.outputs[0], _only_channels(node, x, channels))
    return None


@rule("GridSample", "RoiAlign")
def sample(node: ir.Node, channels: Channels) -> str | None:
    """Interpolates the image between its pixels, channel by channel; where it looks is data."""
    x = operand(node, 0)
    axes = channels.axes(x)
    channels.pin_but_channels(x, f"an axis over which {place(node)} samples")
    for value in node.inputs[1:]:
        channels.pin(value, f"says where {place(node)} samples")
    out: Axes = [None] * rank(node.outputs[0])
    if len(axes) > 1 and len(out) > 1:
        out[1] = axes[1]
    channels.set(node.outputs[0], out)
    return None


@rule("Upsample")
def upsample(node: ir.Node, channels: Channels) -> str | None:
    """Resize of opset 9, with scales alone."""
    x = operand(node, 0)
    scales = channels.constant(node.inputs[1] if len(node.inputs) > 1 else None)
    if scales is None:
        return "scales unknown" if channels.labelled(x) else None
    if any(a is not None and s != 1.0 for a, s in zip(channels.axes(x)[:2], np.ravel(scales))):
        return "resizes channels"
    channels.set(node.outputs[0], _only_channels(node, x, channels))
    return None


@rule("Resize")
def resize(node: ir.Node, channels: Channels) -> str | None:
    """Interpolates space: the channel axis must keep its length, given as scale 1 or as its own size."""
    x = operand(node, 0)
    axes = _only_channels(node, x, channels)
    outside = "extrapolation_value" in node.attributes and node.attributes["extrapolation_value"].as_float() != 0
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
    channels.set(node.outputs[0], [a.with_zero(False) if a is not None and outside else a for a in axes])
    return None


def _only_channels(node: ir.Node, x: ir.Value, channels: Channels) -> Axes:
    """The axes of an image whose height and width are about to change: what is carried there stays whole."""
    channels.pin_but_channels(x, f"an axis of the image in {place(node)}")
    return [a if i == 1 else None for i, a in enumerate(channels.axes(x))]
