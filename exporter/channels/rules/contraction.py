"""Operators that sum over channels: Conv, ConvTranspose, Gemm, MatMul.

    y[n, o, p] = sum_i w[o, i] * x[n, i, p]        out labels = labels of w's output axis
                                                   x's channels are tied to w's input axis

An input channel may leave where its contribution is zero; an output channel is zero once its weights and bias are.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank, static_size
from ..labels import Axis, Flags
from .registry import rule

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""The operators of this file: those of layers with kernels, wherever these are meant."""


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
    silent: Flags | bool = False  # an output of one input alone is silent with it, whatever the kernel
    if group == 1:
        channels.contract(data, into, f"read by {place(node)}")
    elif weight.shape.numpy()[1] == 1:
        silent = _tie_depthwise(node, channels, data, out, width // group)
    elif data is None or out is None:
        for axis in (data, into, out):
            channels.pin(axis, f"grouped {place(node)} with a fixed side")
    else:
        # contract, group by group: the weight's input axis stands for index j of every group
        spread = into.moved(lambda a: np.tile(a, group)) if into is not None else None
        channels.contract(data, spread, f"read by {place(node)}")
        rows = out.ids.reshape(group, -1)
        channels.labels.unite(rows, rows[:1])
    if out is not None:
        out = out.with_zero(np.logical_or(channels.mask(weight, 0), silent))
    _give(node, channels, out)
    return None


@rule("ConvTranspose")
def conv_transpose(node: ir.Node, channels: Channels) -> str | None:
    """Weight (I, O/g, k...): the axes of Conv, swapped.

    Grouped: index j of every group shares its fate on both sides. Depthwise (I/g = 1): input i makes the outputs
    i*m .. i*m+m-1 and leaves with them.
    """
    x, weight = operand(node, 0), operand(node, 1)
    if weight.shape is None or rank(x) < 3:
        return "weight or input shape unknown"
    channels.pin_but_channels(x, f"an axis over which {place(node)} slides")
    data, (into, out, *kernel) = channels.axes(x)[1], channels.axes(weight)
    for axis in kernel:
        channels.pin(axis, "spatial axis of a kernel")
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    inputs, outputs = weight.shape.numpy()[:2]
    if group > 1 and inputs == group:
        channels.unite(data, into, f"depthwise {place(node)} with a fixed side")
        channels.pin(out, f"multiplier of depthwise {place(node)}")
        if into is not None:
            if data is not None:
                channels.count(node, data.ids, attribute="group")
            silent = channels.mask(weight, 0) if data is None else np.logical_or(channels.mask(weight, 0), data.zero)
            into = into.with_zero(silent).moved(lambda a: np.repeat(a, outputs))
        _give(node, channels, into)
        return None
    channels.contract(data, into, f"read by {place(node)}")
    if group > 1 and into is not None:
        rows = into.ids.reshape(group, -1)
        channels.labels.unite(rows, rows[:1])
    if out is not None:
        out = out.with_zero(channels.mask(weight, 1)).moved(lambda a: np.tile(a, group))
    _give(node, channels, out)
    return None


@rule("Gemm")
def gemm(node: ir.Node, channels: Channels) -> str | None:
    """A (M, K) and B (K, N), either of them stored transposed: K is contracted, N is the output width."""
    a, b = operand(node, 0), operand(node, 1)
    if rank(a) != 2 or rank(b) != 2:
        return "operand shapes unknown"
    rows, shared = channels.axes(a)[::-1] if _flag(node, "transA") else channels.axes(a)
    outer, inner = (0, 1) if _flag(node, "transB") else (1, 0)
    channels.contract(shared, channels.axes(b)[inner], f"read by {place(node)}")
    out = channels.axes(b)[outer]
    if out is not None:
        out = out.with_zero(channels.mask(b, outer) if out.source else out.zero)
    # A bias is added to silent rows too.
    _give(node, channels, out, rows if rows is None or len(node.inputs) < 3 else rows.with_zero(False))
    return None


@rule("MatMul")
def matmul(node: ir.Node, channels: Channels) -> str | None:
    """(..., M, K) @ (..., K, N): K is contracted; M comes from the left, N from the right; batch axes are united.

    Either side may be a parameter, whose rows (left) or columns (right) are then the producers. (..., M, K) @ (K) has
    no columns.
    """
    a, b = operand(node, 0), operand(node, 1)
    if rank(a) < 2 or rank(b) < 1:
        return "operand shapes unknown or one-dimensional"
    left, right = channels.axes(a), channels.axes(b)
    channels.contract(left[-1], right[-2] if rank(b) > 1 else right[0], f"read by {place(node)}")
    if rank(b) == 1:
        rows = left[-2]
        masked = rows is not None and rows.source and rows.with_zero(channels.mask(a, rank(a) - 2))
        channels.set(node.outputs[0], [*left[:-2], masked or rows])
        return None
    batch: Axes = []
    for index in range(max(len(left), len(right)), 2, -1):
        sides = [(v, axes[-index]) for v, axes in ((a, left), (b, right)) if index <= len(axes)]
        batch.append(_batch_axis(node, channels, [(static_size(v, -index), axis) for v, axis in sides]))
    rows, columns = left[-2], right[-1]
    if rows is not None and rows.source:
        rows = rows.with_zero(channels.mask(a, rank(a) - 2))
    if columns is not None and columns.source:
        columns = columns.with_zero(channels.mask(b, rank(b) - 1))
    channels.set(node.outputs[0], [*batch, rows, columns])
    return None


def _batch_axis(node: ir.Node, channels: Channels, sides: list[tuple[int | None, Axis | None]]) -> Axis | None:
    """One axis over which products run side by side: zero where either factor is."""
    carried = [axis for _, axis in sides if axis is not None]
    if not carried:
        return None
    if any(axis is None and size != 1 for size, axis in sides):
        for axis in carried:
            channels.pin(axis, f"batch axis of {place(node)} with a fixed side")
    for axis in carried[1:]:
        channels.unite(carried[0], axis, "")
    return carried[0].with_zero(reduce(np.logical_or, [axis.zero for axis in carried]))


def _tie_depthwise(
    node: ir.Node, channels: Channels, data: Axis | None, out: Axis | None, multiplier: int
) -> Flags | bool:
    """Each input goes with its outputs. Returns which outputs are silent because their input is."""
    repeated = data.moved(lambda a: np.repeat(a, multiplier)) if data is not None else None
    channels.unite(repeated, out, f"depthwise {place(node)} with a fixed side")
    if data is not None:
        channels.count(node, data.ids, attribute="group")
    return False if repeated is None or out is None else repeated.zero


def _give(node: ir.Node, channels: Channels, out: Axis | None, rows: Axis | None = None) -> None:
    """Give axis 1 of the output the labels `out` and tie them to the bias: zero where that is masked too."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        if rank(bias) == 0 or static_size(bias, -1) == 1:
            channels.pin(out, f"one bias for all channels of {place(node)}")
        else:
            channels.unite(out, channels.axes(bias)[-1], f"bias of {place(node)}")
            for axis in channels.axes(bias)[:-1]:
                channels.pin(axis, f"bias of {place(node)}")
    if out is not None:
        silent = channels.mask(bias, rank(bias) - 1) if bias is not None and rank(bias) else bias is None
        out = out.with_zero(np.logical_and(out.zero, silent))
    axes: Axes = [None] * max(rank(node.outputs[0]), 2)
    axes[0], axes[1] = rows, out
    channels.set(node.outputs[0], axes)


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and bool(node.attributes[name].as_int())
