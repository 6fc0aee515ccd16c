"""Operators that pick elements along an axis: Split, Slice, Gather.

Where a number in the graph says how many elements move (the sizes of Split, the bounds of Slice), it is the count of
some labels and is registered to be counted again after removal. Where it is a position (the indices of Gather), it is
registered to be numbered anew.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank, static_size
from ..labels import Axis
from .registry import rule


@rule("Split")
def split(node: ir.Node, channels: Channels) -> str | None:
    """Labels along the axis are cut into pieces, whose sizes are counted again."""
    x = operand(node, 0)
    axes = list(channels.axes(x))
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % max(len(axes), 1)
    carried = axes[axis] if axes else None
    if carried is None:
        for output in node.outputs:
            channels.set(output, axes)
        return None
    sizes = [static_size(output, axis) for output in node.outputs]
    if any(n is None for n in sizes) or sum(n or 0 for n in sizes) != len(carried):
        return "piece sizes unknown"
    given = "split" in node.attributes or (len(node.inputs) > 1 and node.inputs[1] is not None)
    if "split" in node.attributes:
        return "piece sizes as an attribute (opset before 13)"
    start = 0
    for position, (output, size) in enumerate(zip(node.outputs, sizes)):
        stop = start + (size or 0)
        piece = Axis(carried.ids[start:stop], carried.zero[start:stop])
        channels.set(output, [*axes[:axis], piece, *axes[axis + 1 :]])
        if given:
            channels.count(node, piece.ids, input=1, position=position)
        start = stop
    if not given:  # equal pieces must stay equal: index j of every piece shares its fate
        if len(carried) % len(sizes):
            return "unequal pieces without sizes"
        rows = carried.ids.reshape(len(sizes), -1)
        channels.labels.unite(rows, rows[:1])
    return None


@rule("Slice")
def slice_(node: ir.Node, channels: Channels) -> str | None:
    """Labels are sliced; the bounds are counted again. (A step other than 1 reaches the analysis as a Gather.)"""
    x = operand(node, 0)
    axes: Axes = list(channels.axes(x))
    starts, ends, which, steps = _slices(node, channels)
    if which is None:
        return "axes unknown" if channels.labelled(x) else None
    for position, axis in enumerate(which):
        carried = axes[axis] if axes else None
        if carried is None:
            continue
        if starts is None or ends is None or steps is None:
            return "bounds unknown"
        if steps[position] != 1:
            return f"step {steps[position]} over channels"
        low, high, _ = slice(starts[position], ends[position]).indices(len(carried))
        axes[axis] = Axis(carried.ids[low:high], carried.zero[low:high])
        if low > 0:
            channels.count(node, carried.ids[:low], input=1, position=position)
        if high < len(carried):
            channels.count(node, carried.ids[:high], input=2, position=position)
    channels.set(node.outputs[0], axes)
    return None


def _slices(node: ir.Node, channels: Channels) -> list[list[int] | None]:
    """starts, ends, axes, steps as numbers; None for each that is computed."""
    given = [node.inputs[i] if i < len(node.inputs) else None for i in range(1, 5)]
    found = [None if v is None else channels.constant(v) for v in given]
    starts, ends, axes, steps = (None if c is None else [int(i) for i in np.ravel(c)] for c in found)
    count = next((len(a) for a in (starts, ends, axes, steps) if a is not None), None)
    if axes is None and given[2] is None and count is not None:
        axes = list(range(count))
    if steps is None and given[3] is None and count is not None:
        steps = [1] * count
    return [starts, ends, axes, steps]


@rule("GatherND")
def gather_nd(node: ir.Node, channels: Channels) -> str | None:
    """Advanced indexing as it is traced: the first axes are picked by constant positions, the others pass.

    Channels may be picked alone, out[j] = in[index[j]] with indices (k, 1), or lie behind the axes that are picked.
    """
    x, indices = operand(node, 0), operand(node, 1)
    axes = channels.axes(x)
    if not channels.labelled(x):
        return None
    depth = static_size(indices, -1)
    if depth is None or ("batch_dims" in node.attributes and node.attributes["batch_dims"].as_int()):
        return "indices of unknown depth"
    constant = channels.constant(indices)
    picked: Axes = [None] * (rank(indices) - 1)
    if depth == 1 and constant is not None and constant.ndim == 2 and axes[0] is not None:
        where = np.asarray(constant, np.int64).ravel() % len(axes[0])
        picked = [Axis(axes[0].ids[where], axes[0].zero[where])]
        channels.renumber(node, 1, axes[0].ids)
    elif any(a is not None for a in axes[:depth]):
        return "indices over channels on several axes, or computed ones"
    channels.set(node.outputs[0], [*picked, *axes[depth:]])
    return None


@rule("Gather")
def gather(node: ir.Node, channels: Channels) -> str | None:
    """out[..., j, ...] = in[..., index[j], ...]: labels are picked, the indices numbered anew.

    An index that picks one channel and drops the axis (a scalar) keeps that channel for good.
    """
    x, indices = operand(node, 0), operand(node, 1)
    axes = channels.axes(x)
    if not axes:
        return None
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % len(axes)
    carried, constant = axes[axis], channels.constant(indices)
    if indices.shape is None:
        return "indices of unknown rank" if channels.labelled(x) else None
    picked: Axes = [None] * len(indices.shape)
    if carried is not None and constant is None:
        channels.pin(carried, f"picked by computed indices in {place(node)}")
    elif carried is not None:
        where = np.asarray(constant, np.int64) % len(carried)
        if where.ndim > 1:
            return "indices over channels on several axes"
        if where.ndim == 0:
            channels.labels.pin(carried.ids[where], f"picked alone by {place(node)}")
        else:
            picked = [Axis(carried.ids[where], carried.zero[where])]
        channels.renumber(node, 1, carried.ids)
    channels.set(node.outputs[0], [*axes[:axis], *picked, *axes[axis + 1 :]])
    return None
