"""Normalisations.

BatchNormalization in inference is y = scale * (x - mean) / sqrt(var + eps) + bias, channel by channel: its four
vectors shrink with x, and a masked scale and bias make the channel zero whatever mean and variance say.
InstanceNormalization takes mean and variance from the channel itself, GroupNormalization from a group of channels: a
group may leave as a whole, for then nobody else's statistics change. What normalises over channels keeps them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank
from ..labels import Flags
from .registry import rule


@rule("BatchNormalization")
def batch_normalization(node: ir.Node, channels: Channels) -> str | None:
    """x ~ scale ~ bias ~ mean ~ variance; zero once scale and bias are masked."""
    x, *parameters = (v for v in node.inputs if v is not None)
    if rank(x) < 2:
        return "input shape unknown"
    if "training_mode" in node.attributes and node.attributes["training_mode"].as_int():
        return "batch statistics of training mode"
    channels.pin_but_channels(x, f"an axis that {place(node)} leaves alone")
    data = channels.axes(x)[1]
    for parameter in parameters:
        channels.unite(data, channels.axes(parameter)[0], f"normalised by {place(node)}")
    scale, bias = parameters[0], parameters[1]
    axes: Axes = [None] * rank(x)
    if data is not None:
        axes[1] = data.with_zero(np.logical_and(channels.mask(scale, 0), channels.mask(bias, 0)))
    channels.set(node.outputs[0], axes)
    return None


@rule("InstanceNormalization")
def instance_normalization(node: ir.Node, channels: Channels) -> str | None:
    """x ~ scale ~ bias; a silent channel comes out as its bias."""
    x, scale, bias = (operand(node, i) for i in range(3))
    if rank(x) < 3:
        return "input shape unknown"
    channels.pin_but_channels(x, f"an axis over which {place(node)} takes its statistics")
    data = channels.axes(x)[1]
    for parameter in (scale, bias):
        channels.unite(data, channels.axes(parameter)[0], f"normalised by {place(node)}")
    axes: Axes = [None] * rank(x)
    if data is not None:
        silent = np.logical_or(data.zero, channels.mask(scale, 0))
        axes[1] = data.with_zero(np.logical_and(silent, channels.mask(bias, 0)))
    channels.set(node.outputs[0], axes)
    return None


@rule("GroupNormalization")
def group_normalization(node: ir.Node, channels: Channels) -> str | None:
    """Whole groups leave: all channels of one share their fate, and `num_groups` is counted again."""
    x, scale, bias = (operand(node, i) for i in range(3))
    if rank(x) < 3:
        return "input shape unknown"
    channels.pin_but_channels(x, f"an axis over which {place(node)} takes its statistics")
    data, groups = channels.axes(x)[1], node.attributes["num_groups"].as_int()
    parameters = [channels.axes(p)[0] for p in (scale, bias)]
    if data is None:
        for axis in parameters:
            channels.pin(axis, f"normalised by {place(node)}")
        channels.set(node.outputs[0], [None] * rank(x))
        return None
    if any(axis is None or len(axis) != len(data) for axis in parameters):
        return "parameters per group"  # before opset 21
    rows = data.ids.reshape(groups, -1)
    channels.labels.unite(rows, rows[:, :1])
    for axis in parameters:
        channels.unite(data, axis, f"normalised by {place(node)}")
    channels.count(node, rows[:, 0], attribute="num_groups")
    silent = np.logical_and(
        np.logical_or(_whole_groups(data.zero, groups), channels.mask(scale, 0)), channels.mask(bias, 0)
    )
    axes: Axes = [None] * rank(x)
    axes[1] = data.with_zero(silent)
    channels.set(node.outputs[0], axes)
    return None


def _whole_groups(zero: Flags, groups: int) -> Flags:
    """Whether all channels of each channel's group are silent."""
    rows = zero.reshape(groups, -1)
    return np.repeat(rows.all(axis=1), rows.shape[1])


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(node: ir.Node, channels: Channels) -> str | None:
    """The axes from `axis` on stay whole: their statistics would change. The others pass, though not as zeros."""
    x = operand(node, 0)
    axes = channels.axes(x)
    if any(o.uses() for o in node.outputs[1:]):
        return "statistics are used"
    first = (node.attributes["axis"].as_int() if "axis" in node.attributes else -1) % max(len(axes), 1)
    for value in node.inputs:
        if value is not None:
            for axis in channels.axes(value)[first if value is x else 0 :]:
                channels.pin(axis, f"normalised over channels by {place(node)}")
    out: Axes = [None if a is None or i >= first else a.with_zero(False) for i, a in enumerate(axes)]
    channels.set(node.outputs[0], out)
    return None


@rule("LpNormalization")
def lp_normalization(node: ir.Node, channels: Channels) -> str | None:
    """x / |x|_p: silent channels add nothing to the norm, and stay silent."""
    x = operand(node, 0)
    axes = channels.axes(x)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    if axes and axes[axis] is not None:
        channels.contract(axes[axis], axes[axis], f"summed by {place(node)}")
    channels.set(node.outputs[0], axes)
    return None


@rule("LRN")
def local_response(node: ir.Node, channels: Channels) -> str | None:
    """Divides by neighbouring channels."""
    return "normalises over neighbouring channels"


@rule("Softmax", "LogSoftmax")
def softmax(node: ir.Node, channels: Channels) -> str | None:
    """Over a fixed axis labels pass, though nothing stays zero; over channels the result would change."""
    x = operand(node, 0)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    axes = channels.axes(x)
    if not axes or axes[axis] is not None:
        return "normalises over channels"
    channels.set(node.outputs[0], [a if a is None else a.with_zero(False) for a in axes])
    return None
