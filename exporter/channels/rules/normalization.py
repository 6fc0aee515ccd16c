"""Normalisations with per-channel parameters.

BatchNormalization in inference is y = scale * (x - mean) / sqrt(var + eps) + bias, channel by channel: its four
vectors shrink with x, and a masked scale and bias make the channel zero whatever mean and variance say.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank
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
