"""Operators that join, pad or reorder axes, and those that read shapes: their index arithmetic applied to labels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank, static_size
from ..dims import FOLLOWED, entries
from ..labels import Axis
from .registry import rule

_TAKES_SHAPE = {"Reshape": 1, "Resize": 3, "Expand": 1, "ConstantOfShape": 0}
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


@rule("Pad")
def pad(node: ir.Node, channels: Channels) -> str | None:
    """New elements get labels that stay; spatial padding with anything but zero ends the silence."""
    x = operand(node, 0)
    if not channels.labelled(x):
        return None
    amounts = entries(node, 1, channels)
    if amounts is None:
        return "amounts unknown"
    axes: Axes = list(channels.axes(x))
    chosen = node.inputs[3] if len(node.inputs) > 3 else None
    listed = channels.constant(chosen)
    if chosen is not None and listed is None:
        return "axes unknown"
    which = range(len(axes)) if listed is None else [int(a) % len(axes) for a in listed]
    # An amount computed from the image size is None: enough to know, where the axis has no channels.
    sizes = [entry.size for entry in amounts]
    before, after = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    silent = mode != "constant" or _pads_with_zero(node, channels)
    padded = {axis for axis, low, high in zip(which, before, after) if low != 0 or high != 0}
    for axis, low, high in zip(which, before, after):
        carried = axes[axis]
        if carried is not None and axis in padded:
            if low is None or high is None:
                return "channels are added, and how many depends on the image size"
            if mode != "constant" or low < 0 or high < 0:
                return f"{mode} padding over channels"
            reason = f"added by {place(node)}"
            ends = [channels.fixed(n, reason) for n in (low, high)]
            parts = [ends[0], carried, ends[1]]
            axes[axis] = Axis(np.concatenate([p.ids for p in parts]), np.concatenate([p.zero for p in parts]))
    if not silent:  # an axis is padded all along every other axis
        axes = [a.with_zero(False) if a is not None and padded - {i} else a for i, a in enumerate(axes)]
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
    axes = channels.axes(x)
    if listed is None and node.op_type == "Squeeze":
        sizes = [static_size(x, i) for i in range(len(axes))]
        listed = None if None in sizes else np.asarray([i for i, size in enumerate(sizes) if size == 1])
    if listed is None:
        return "axes unknown"
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
            if (user.op_type in FOLLOWED and index == 0) or user.op_type in ("Concat", "Mul", "Div"):
                pending.extend(user.outputs)
            elif _TAKES_SHAPE.get(user.op_type) != index:
                return False
    return True


def _pads_with_zero(node: ir.Node, channels: Channels) -> bool:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return True
    constant = channels.settled(value)
    return constant is not None and not np.any(constant)
