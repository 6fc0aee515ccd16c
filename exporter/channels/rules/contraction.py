"""Operators that sum over channels: Conv, ConvTranspose, Gemm, MatMul.

    y[n, o, p] = sum_i w[o, i] * x[n, i, p]        out labels = labels of w's output axis
                                                   x's channels are tied to w's input axis

An input channel may leave where its contribution is zero; an output channel is zero once its weights and bias are.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank
from ..labels import Axis
from .registry import rule


@rule("Conv")
def conv(node: ir.Node, channels: Channels) -> str | None:
    """Weight (O, I/g, k...). Dense: x ~ axis 1. Depthwise (I/g = 1): x[i] ~ out[i*m .. i*m+m-1], `group` counted.

    Grouped: index j of every group shares its fate on both sides, so that all groups stay equally wide.
    """
    x, weight = operand(node, 0), operand(node, 1)
    if weight.shape is None or rank(x) < 3:
        return "weight or input shape unknown"
    channels.pin_but_channels(x, f"an axis over which {place(node)} slides")
    data, (out, into, *kernel) = channels.axes(x)[1], channels.axes(weight)
    for axis in kernel:
        channels.pin(axis, "spatial axis of a kernel")
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    width = weight.shape.numpy()[0]
    if group == 1:
        channels.contract(data, into, f"read by {place(node)}")
    elif weight.shape.numpy()[1] == 1:
        _tie_depthwise(node, channels, data, out, width // group)
    elif data is None or out is None:
        for axis in (data, into, out):
            channels.pin(axis, f"grouped {place(node)} with a fixed side")
    else:
        # contract, group by group: the weight's input axis stands for index j of every group
        spread = into.moved(lambda a: np.tile(a, group)) if into is not None else None
        channels.contract(data, spread, f"read by {place(node)}")
        rows = out.ids.reshape(group, -1)
        channels.labels.unite(rows, rows[:1])
    _produce(node, channels, weight, 0)
    return None


@rule("ConvTranspose")
def conv_transpose(node: ir.Node, channels: Channels) -> str | None:
    """Weight (I, O, k...): the axes of Conv, swapped."""
    x, weight = operand(node, 0), operand(node, 1)
    if "group" in node.attributes and node.attributes["group"].as_int() != 1:
        return "grouped transposed convolution"
    if weight.shape is None or rank(x) < 3:
        return "weight or input shape unknown"
    channels.pin_but_channels(x, f"an axis over which {place(node)} slides")
    into, _, *kernel = channels.axes(weight)
    for axis in kernel:
        channels.pin(axis, "spatial axis of a kernel")
    channels.contract(channels.axes(x)[1], into, f"read by {place(node)}")
    _produce(node, channels, weight, 1)
    return None


@rule("Gemm")
def gemm(node: ir.Node, channels: Channels) -> str | None:
    """A (M, K), B (K, N) or, with transB, (N, K): K is contracted, N is the output width."""
    a, b = operand(node, 0), operand(node, 1)
    if "transA" in node.attributes and node.attributes["transA"].as_int():
        return "transposed first operand"
    transposed = "transB" in node.attributes and bool(node.attributes["transB"].as_int())
    inner, outer = (1, 0) if transposed else (0, 1)
    if rank(a) != 2 or rank(b) != 2:
        return "operand shapes unknown"
    channels.contract(channels.axes(a)[1], channels.axes(b)[inner], f"read by {place(node)}")
    _produce(node, channels, b, outer, at=1, rows=channels.axes(a)[0])
    return None


@rule("MatMul")
def matmul(node: ir.Node, channels: Channels) -> str | None:
    """(..., M, K) @ (..., K, N): K is contracted; M comes from the left, N from the right; batch axes broadcast."""
    a, b = operand(node, 0), operand(node, 1)
    if rank(a) < 2 or rank(b) < 2:
        return "operand shapes unknown or one-dimensional"
    left, right = channels.axes(a), channels.axes(b)
    if any(axis is not None for axis in (*left[:-2], *right[:-2])):
        return "channels on a batch axis"
    channels.contract(left[-1], right[-2], f"read by {place(node)}")
    batch: Axes = [None] * (max(len(left), len(right)) - 2)
    columns = right[-1]
    if columns is not None:
        columns = columns.with_zero(channels.mask(b, rank(b) - 1) if columns.source else columns.zero)
    channels.set(node.outputs[0], [*batch, left[-2], columns])
    return None


def _tie_depthwise(node: ir.Node, channels: Channels, data: Axis | None, out: Axis | None, multiplier: int) -> None:
    repeated = data.moved(lambda a: np.repeat(a, multiplier)) if data is not None else None
    channels.unite(repeated, out, f"depthwise {place(node)} with a fixed side")
    if data is not None:
        channels.count(node, data.ids, attribute="group")


def _produce(
    node: ir.Node, channels: Channels, weight: ir.Value, axis: int, at: int = 1, rows: Axis | None = None
) -> None:
    """Give the output the labels of the weight's output axis; zero where weight and bias are masked."""
    out = channels.axes(weight)[axis]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        channels.unite(out, channels.axes(bias)[-1] if rank(bias) else None, f"bias of {place(node)}")
    if out is not None:
        zero = np.logical_and(
            channels.mask(weight, axis), channels.mask(bias, rank(bias) - 1 if bias is not None else 0)
        )
        out = out.with_zero(zero)
    size = max(rank(node.outputs[0]), at + 1)
    axes: Axes = [None] * size
    axes[0], axes[at] = rows, out
    channels.set(node.outputs[0], axes)
