"""Reshape, Flatten and Expand: axes that are merged and split.

The dimensions of input and output are matched into the smallest groups of equal product. Inside a group the labels
are laid out as the grid of the input axes and read off as the grid of the output axes, so that

    merge (C, H, W) -> C*H*W      repeats each label H*W times
    split C -> (g, C/g)           ties the labels over g, so that every group of the split keeps equal width
    (C, 1, 1) -> C                is the identity
    (C, H, W) -> (g, C/g*H*W)     ties the C/g labels of a group, whatever H and W are (as GroupNorm is traced)

A group with channels on two input axes, or one whose product is not known as a number, declines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, place, rank, static_size
from ..dims import Entry, entries
from ..labels import Axis
from .registry import rule

Dim = int | str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Input axes [i0, i1) become output axes [o0, o1), of equal product."""

    inputs: range
    outputs: range


@rule("Reshape")
def reshape(node: ir.Node, channels: Channels) -> str | None:
    """Regroup, and count again every number of the target shape that is a width."""
    x, out = operand(node, 0), node.outputs[0]
    target = entries(node, 1, channels)
    if x.is_initializer() and target is None:
        return "target shape unknown"
    if target is None:
        return "target shape unknown" if channels.labelled(x) else None
    if x.shape is None or out.shape is None:
        return "shape unknown"
    axes = regroup(channels.axes(x), _dims(x), _dims(out), channels)
    if isinstance(axes, str):
        return axes
    problem = check_entries(node, target, axes, channels)
    if problem:
        return problem
    channels.set(out, axes)
    return None


@rule("Flatten")
def flatten(node: ir.Node, channels: Channels) -> str | None:
    """Reshape to (d0*...*d[axis-1], d[axis]*...)."""
    x = operand(node, 0)
    if x.shape is None or node.outputs[0].shape is None:
        return "shape unknown"
    axes = regroup(channels.axes(x), _dims(x), _dims(node.outputs[0]), channels)
    if isinstance(axes, str):
        return axes
    channels.set(node.outputs[0], axes)
    return None


@rule("Expand")
def expand(node: ir.Node, channels: Channels) -> str | None:
    """Channels pass where they are not what is repeated; what is repeated to a width follows that width."""
    x, out = operand(node, 0), node.outputs[0]
    target = entries(node, 1, channels)
    if target is None:
        return "target shape unknown"
    if len(target) < rank(x):
        return "target of lower rank"
    constant = channels.settled(x)
    silent = constant is not None and not np.any(constant)
    own: Axes = [*([None] * (len(target) - rank(x))), *channels.axes(x)]
    axes = [a if a is not None else _sized_by(entry, channels, silent) for a, entry in zip(own, target)]
    repeated = _repeated(x, out, target, axes)
    if repeated is not None:
        axes[repeated] = channels.free(target[repeated].size or 0, silent)
    problem = check_entries(node, target, axes, channels)
    if problem:
        return problem
    channels.set(out, axes)
    return None


@rule("ConstantOfShape")
def constant_of_shape(node: ir.Node, channels: Channels) -> str | None:
    """A tensor of one value: each axis follows the width that sizes it."""
    target = entries(node, 0, channels)
    if target is None:
        return "shape unknown"
    value = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1)
    axes = [_sized_by(entry, channels, silent=not np.any(value)) for entry in target]
    channels.set(node.outputs[0], axes)
    return None


def _repeated(x: ir.Value, out: ir.Value, target: list[Entry], axes: Axes) -> int | None:
    """The axis of channels (1) if one value is repeated along it a constant number of times."""
    if len(target) < 3 or axes[1] is not None or (target[1].size or 0) < 2 or target[1].node is None:
        return None
    own = len(target) - rank(x)
    return 1 if own > 1 or static_size(x, 1 - own) == 1 else None


def _sized_by(entry: Entry, channels: Channels, silent: bool) -> Axis | None:
    """The labels of the axis that gives an entry of a shape its number, None for any other entry."""
    source = None if entry.value is None else channels.axes(entry.value)[entry.axis]
    return None if source is None else Axis(source.ids, np.full(len(source), silent))


def regroup(axes: Axes, before: Sequence[Dim], after: Sequence[Dim], channels: Channels) -> Axes | str:
    """The output axes of a reshape from `before` to `after`, or why there are none."""
    groups = match(before, after)
    out: Axes = [None] * len(after)
    covered: set[int] = set()
    for group in groups:
        covered.update(group.inputs)
        carried = [i for i in group.inputs if axes[i] is not None]
        if not carried:
            continue
        if len(carried) > 1:
            return "merges two channel axes"
        sizes_in = [before[i] for i in group.inputs]
        sizes_out = [after[o] for o in group.outputs]
        if len(sizes_in) == len(sizes_out) == 1:
            out[group.outputs[0]] = axes[carried[0]]
            continue
        if not all(isinstance(n, int) for n in (*sizes_in, *sizes_out)):
            return "merges channels with an axis of unknown length"
        where, axis = _read_off(axes[carried[0]], carried[0] - group.inputs[0], sizes_in, sizes_out, channels)
        if where is None:
            channels.pin(axes[carried[0]], "one channel fills an axis that is reshaped")
        else:
            out[group.outputs[where]] = axis
    rest = [i for i in range(len(before)) if i not in covered]
    if any(axes[i] is not None for i in rest):
        free = [o for o in range(len(after)) if not any(o in group.outputs for group in groups)]
        if not any(_across(axes, before, after, rest, free, out, channels, end) for end in (0, -1)):
            return "axes of unknown length around the channels"
    return out


def _across(
    axes: Axes,
    before: Sequence[Dim],
    after: Sequence[Dim],
    rest: list[int],
    free: list[int],
    out: Axes,
    channels: Channels,
    end: int,
) -> bool:
    """Regroup axes of which some lengths are unknown, where those at one end alone decide where the channels go.

    end 0, (C, H, W) -> (g, C/g*H*W) and back: group norms. end -1, (N, C) -> (N*g, C/g) and back: heads of attention.
    rest, free: the input and output axes that could not be matched. Returns whether the channels found their place.
    """
    if len(rest) < 2 or len(free) < 2 or any(axes[i] is not None for i in rest if i != rest[end]):
        return False
    axis, width, wanted = axes[rest[end]], before[rest[end]], after[free[end]]
    if axis is None or not isinstance(width, int) or not isinstance(wanted, int):
        return False
    if width % wanted == 0 and len(free) == 2:

        def rows(flat: np.ndarray) -> np.ndarray:
            return flat.reshape(wanted, -1) if end == 0 else flat.reshape(-1, wanted).T

        ids = rows(axis.ids)
        channels.labels.unite(ids, ids[:, :1])
        out[free[end]] = Axis(ids[:, 0], np.asarray(rows(axis.zero).all(axis=1), np.bool_))
        return True
    if wanted % width == 0 and len(rest) == 2:
        spread = np.repeat if end == 0 else np.tile
        out[free[end]] = axis.moved(lambda flat: np.asarray(spread(flat, wanted // width)))
        return True
    return False


def match(before: Sequence[Dim], after: Sequence[Dim]) -> list[Group]:
    """The smallest groups of axes of equal product, from both ends; what cannot be matched is left out."""
    front: list[Group] = []
    i = o = 0
    while i < len(before) and o < len(after):
        group = _next_group(before, after, i, o)
        if group is None:
            break
        front.append(group)
        i, o = group.inputs.stop, group.outputs.stop
    back: list[Group] = []
    j, p = len(before), len(after)
    while i < j and o < p:
        mirrored = _next_group(before[i:j][::-1], after[o:p][::-1], 0, 0)
        if mirrored is None:
            break
        ni, no = len(mirrored.inputs), len(mirrored.outputs)
        back.append(Group(range(j - ni, j), range(p - no, p)))
        j, p = j - ni, p - no
    return front + back[::-1]


def check_entries(node: ir.Node, target: list[Entry], axes: Axes, channels: Channels) -> str | None:
    """Register the constants of `target` that are widths; refuse widths that come from elsewhere."""
    if len(target) != len(axes):
        return "target shape of unknown rank"
    for entry, axis in zip(target, axes):
        if entry.value is not None:
            source = channels.axes(entry.value)[entry.axis]
            if source is not None and not channels.scales(axis, source, entry.factor):
                channels.pin(source, f"its width sizes another tensor in {place(node)}")
                return "sized by the width of another tensor"
            if source is None and axis is not None and static_size(entry.value, entry.axis) != 1:
                return "sized by an axis that is fixed"
        elif axis is not None and entry.size is None:
            return "sized by a computed number"
        elif axis is not None and entry.size == len(axis) and entry.node is not None:
            channels.count(entry.node, axis.ids, input=entry.input, position=entry.position)
    return None


def _next_group(before: Sequence[Dim], after: Sequence[Dim], i: int, o: int) -> Group | None:
    """The smallest group that starts at input axis i and output axis o."""
    if before[i] is not None and before[i] == after[o]:
        return Group(range(i, i + 1), range(o, o + 1))
    stop_in, stop_out = i + 1, o + 1
    while True:
        left, right = before[i:stop_in], after[o:stop_out]
        if not all(isinstance(n, int) for n in (*left, *right)):
            return None
        a, b = (
            math.prod(n for n in left if isinstance(n, int)),
            math.prod(n for n in right if isinstance(n, int)),
        )
        if a == b:
            break
        if a < b and stop_in < len(before):
            stop_in += 1
        elif a > b and stop_out < len(after):
            stop_out += 1
        else:
            return None
    # Axes of length 1 belong to the group before them, so that (C, 1, 1) -> C is one group.
    while stop_in < len(before) and before[stop_in] == 1:
        stop_in += 1
    while stop_out < len(after) and after[stop_out] == 1:
        stop_out += 1
    return Group(range(i, stop_in), range(o, stop_out))


def _read_off(
    axis: Axis | None, index: int, before: Sequence[Dim], after: Sequence[Dim], channels: Channels
) -> tuple[int | None, Axis | None]:
    """Lay labels out over `before`, read them off over `after`: (output axis in the group, its labels)."""
    assert axis is not None
    sizes = [int(n or 0) for n in before]
    spread = [1] * len(sizes)
    spread[index] = sizes[index]

    def grid(flat: np.ndarray) -> np.ndarray:
        return np.broadcast_to(flat.reshape(spread), sizes).reshape([int(n or 0) for n in after])

    ids, zero = grid(axis.ids), grid(axis.zero)
    varying = [a for a in range(ids.ndim) if bool(np.any(ids.take([0], a) != ids))]
    if not varying:
        return None, None
    keep = max(varying, key=lambda a: ids.shape[a])
    others = tuple(a for a in range(ids.ndim) if a != keep)
    first = tuple(slice(None) if a == keep else slice(0, 1) for a in range(ids.ndim))
    if len(varying) > 1:
        channels.labels.unite(ids, ids[first])
    moved = Axis(ids[first].ravel(), np.asarray(zero.all(axis=others), np.bool_), None)
    if axis.source is not None and len(moved) == len(axis) and len(varying) == 1:
        moved = Axis(moved.ids, moved.zero, axis.source)
    return keep, moved


def _dims(value: ir.Value) -> list[Dim]:
    if value.shape is None:
        return []
    return [d if isinstance(d, int) else (d.value if isinstance(d.value, str) else None) for d in value.shape]
