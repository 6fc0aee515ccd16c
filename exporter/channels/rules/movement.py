"""Operators that move elements without changing them: their index arithmetic applied to labels.

Where a number in the graph says how many elements move (the sizes of Split, the bounds of Slice), that number is the
count of some labels and is registered to be counted again after removal.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank, static_size
from ..dims import FOLLOWED
from ..labels import Axis
from .registry import rule

_TAKES_SHAPE = {"Reshape": 1, "Resize": 3, "Expand": 1}
"""Operators that check every entry of the shape they are given, and the input at which they take it."""


@rule("Transpose")
def transpose(node: ir.Node, channels: Channels) -> str | None:
    """out axis i = in axis perm[i]."""
    x = operand(node, 0)
    axes = channels.axes(x)
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(axes))[::-1]
    channels.set(node.outputs[0], [axes[i] for i in perm])
    return None


@rule("Concat")
def concat(node: ir.Node, channels: Channels) -> str | None:
    """Labels along the axis are concatenated; all other axes are united."""
    operands = [v for v in node.inputs if v is not None]
    size = rank(operands[0])
    if size == 0:
        return "input shape unknown"
    axis = node.attributes["axis"].as_int() % size
    out: Axes = []
    for index in range(size):
        columns = [channels.axes(v)[index] for v in operands]
        if index == axis:
            if not any(a is not None for a in columns):
                out.append(None)
                continue
            lengths = [static_size(v, axis) for v in operands]
            if any(n is None for n in lengths):
                return "a joined length is unknown"
            parts = [
                a if a is not None else channels.fixed(n or 0, f"fixed part of {place(node)}")
                for a, n in zip(columns, lengths)
            ]
            out.append(Axis(np.concatenate([a.ids for a in parts]), np.concatenate([a.zero for a in parts])))
        else:
            for a in columns[1:]:
                channels.unite(columns[0], a, f"joined in {place(node)}")
            whole = [a for a in columns if a is not None]
            # Silent only where every part is: the parts lie beside each other on another axis.
            silent = len(whole) == len(columns) and np.logical_and.reduce([a.zero for a in whole])
            out.append(whole[0].with_zero(silent) if whole else None)
    channels.set(node.outputs[0], out)
    return None


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
    """Labels are sliced; with step 1 the bounds are counted again, other steps fix the axis."""
    x = operand(node, 0)
    axes: Axes = list(channels.axes(x))
    bounds = [channels.constant(v) for v in node.inputs[1:]]
    if len(node.inputs) < 3 or any(b is None for b in bounds):
        return "bounds unknown" if channels.labelled(x) else None
    starts, ends, *rest = ([int(i) for i in np.ravel(b)] for b in bounds if b is not None)
    which = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    for position, (start, end, axis, step) in enumerate(zip(starts, ends, which, steps)):
        carried = axes[axis] if axes else None
        if carried is None:
            continue
        if step != 1:
            return f"step {step} over channels"
        low, high, _ = slice(start, end).indices(len(carried))
        axes[axis] = Axis(carried.ids[low:high], carried.zero[low:high])
        if low > 0:
            channels.count(node, carried.ids[:low], input=1, position=position)
        if high < len(carried):
            channels.count(node, carried.ids[:high], input=2, position=position)
    channels.set(node.outputs[0], axes)
    return None


@rule("Pad")
def pad(node: ir.Node, channels: Channels) -> str | None:
    """New elements get labels that stay; spatial padding with anything but zero ends the silence."""
    x = operand(node, 0)
    if not channels.labelled(x):
        return None
    amounts = channels.constant(node.inputs[1] if len(node.inputs) > 1 else None)
    if amounts is None:
        return "amounts unknown"
    axes: Axes = list(channels.axes(x))
    chosen = node.inputs[3] if len(node.inputs) > 3 else None
    listed = channels.constant(chosen)
    if chosen is not None and listed is None:
        return "axes unknown"
    which = range(len(axes)) if listed is None else [int(a) % len(axes) for a in listed]
    before, after = np.ravel(amounts).reshape(2, -1).tolist()
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    silent = mode != "constant" or _pads_with_zero(node, channels)
    grown = False
    for axis, low, high in zip(which, before, after):
        carried = axes[axis]
        if carried is None:
            grown = grown or low != 0 or high != 0
        elif low or high:
            if mode != "constant" or low < 0 or high < 0:
                return f"{mode} padding over channels"
            reason = f"added by {place(node)}"
            ends = [channels.fixed(n, reason) for n in (low, high)]
            parts = [ends[0], carried, ends[1]]
            axes[axis] = Axis(np.concatenate([p.ids for p in parts]), np.concatenate([p.zero for p in parts]))
    if grown and not silent:
        axes = [a if a is None else a.with_zero(False) for a in axes]
    channels.set(node.outputs[0], axes)
    return None


@rule("Squeeze", "Unsqueeze")
def squeeze(node: ir.Node, channels: Channels) -> str | None:
    """Axes of length 1 go or come; they carry no labels."""
    x = operand(node, 0)
    if not channels.labelled(x):
        return None
    listed = channels.constant(node.inputs[1] if len(node.inputs) > 1 else None)
    if listed is None and "axes" in node.attributes:
        listed = np.asarray(node.attributes["axes"].as_ints())
    if listed is None:
        return "axes unknown"
    axes = channels.axes(x)
    if node.op_type == "Squeeze":
        gone = {int(a) % len(axes) for a in listed.ravel()}
        channels.set(node.outputs[0], [a for i, a in enumerate(axes) if i not in gone])
        return None
    size = len(axes) + listed.size
    new = {int(a) % size for a in listed.ravel()}
    rest = iter(axes)
    channels.set(node.outputs[0], [None if i in new else next(rest) for i in range(size)])
    return None


@rule("Shape")
def shape(node: ir.Node, channels: Channels) -> str | None:
    """A width read as a number is fine where it only sizes tensors that check it; elsewhere it is data."""
    x = operand(node, 0)
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else rank(x)
    read = [a for a in channels.axes(x)[start:end] if a is not None]
    if read and not _only_sizes_tensors(node):
        for axis in read:
            channels.pin(axis, f"its width is read as data by {place(node)}")
    return None


@rule("Size", "NonZero")
def reads_data(node: ir.Node, channels: Channels) -> str | None:
    """Depends on the number of elements."""
    return "depends on the number of elements"


def _only_sizes_tensors(node: ir.Node) -> bool:
    """Whether everything computed from this shape ends as the shape input of an operator that checks it."""
    pending, seen = list(node.outputs), set()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.is_graph_output():
            return False
        for user, index in value.uses():
            if (user.op_type in FOLLOWED and index == 0) or user.op_type == "Concat":
                pending.extend(user.outputs)
            elif _TAKES_SHAPE.get(user.op_type) != index:
                return False
    return True


def _pads_with_zero(node: ir.Node, channels: Channels) -> bool:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return True
    constant = channels.constant(value)
    return constant is not None and not np.any(constant)
