"""What a rule sees: the axes of every value, and the few things it may do with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.errors import UnsupportedGraphError

from .labels import Axis, Flags, Ids, Labels

Axes = list[Axis | None]
"""One entry per axis; None = fixed, or so spatial that no channel can leave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRewrite:
    """A number in the graph that is the count of some labels and must be counted again after removal.

    It stands in the integer attribute `attribute` of `node`, or in its constant input `input`, at `position`
    of the flattened constant. ids: (n,) int64, the labels it counts.
    """

    node: ir.Node
    attribute: str | None = None
    input: int | None = None
    position: int = 0
    ids: Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRewrite:
    """The constant input `input` of `node` holds positions on an axis; after removal they are numbered anew.

    ids: (n,) int64, the labels of that axis. Positions of cut labels leave the constant.
    """

    node: ir.Node
    input: int
    ids: Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class SumSite:
    """A node that sums over these labels, ids: (n,) int64: one may leave if it is zero there, or is folded into it."""

    node: ir.Node
    ids: Ids


class Channels:
    """Labels of one graph while it is analysed.

    `maskable` names the initializers that the trainer can set to zero (the parameters of the module).
    record_constants: do not pin what would arrive at a sum as a non-zero constant; the caller sees to it (`sums`).
    """

    def __init__(self, maskable: frozenset[str], record_constants: bool = False) -> None:
        self.labels = Labels()
        self.rewrites: list[CountRewrite | IndexRewrite] = []
        self.masked: set[tuple[str, int]] = set()
        self.initializer_axes: dict[str, Axes] = {}
        self.sums: list[SumSite] = []
        self.node: ir.Node | None = None
        """The node whose rule runs."""
        self._record_constants = record_constants
        self._maskable = maskable
        self._axes: dict[ir.Value, Axes] = {}
        self._free: set[int] = set()
        self._constants: dict[str, NDArray[np.generic] | None] = {}

    # --- reading -------------------------------------------------------------------------------------------

    def axes(self, value: ir.Value) -> Axes:
        """The axes of `value`; those of a float initializer are made on first sight."""
        found = self._axes.get(value)
        if found is None:
            found = self._initializer(value) if value.is_initializer() else [None] * rank(value)
            self._axes[value] = found
        return found

    def constant(self, value: ir.Value | None) -> NDArray[np.generic] | None:
        """The array behind a constant, None for anything computed."""
        if value is None or value.const_value is None or value.is_graph_input():
            return None
        name = value.name or ""
        if name not in self._constants:
            self._constants[name] = value.const_value.numpy()
        return self._constants[name]

    def settled(self, value: ir.Value | None) -> NDArray[np.generic] | None:
        """The array behind a constant that no training changes: a parameter that is zero now may not stay so."""
        return None if value is None or value.name in self._maskable else self.constant(value)

    def labelled(self, value: ir.Value) -> bool:
        """Whether any axis of `value` can still shrink."""
        return any(axis is not None for axis in self.axes(value))

    def same(self, a: Axis | None, b: Axis | None) -> bool:
        """Whether two axes carry the same labels, index by index."""
        if a is None or b is None:
            return a is b
        return len(a) == len(b) and np.array_equal(self.labels.find(a.ids), self.labels.find(b.ids))

    def scales(self, a: Axis | None, b: Axis | None, factor: Fraction) -> bool:
        """Whether `a` is `factor` times as wide as `b` whatever leaves: it has each label that many times as often."""
        if a is None or b is None:
            return a is b
        often, rarely = (np.repeat(axis.ids, n) for axis, n in ((b, factor.numerator), (a, factor.denominator)))
        return len(often) == len(rarely) and np.array_equal(
            np.sort(self.labels.find(often)), np.sort(self.labels.find(rarely))
        )

    # --- writing -------------------------------------------------------------------------------------------

    def set(self, value: ir.Value, axes: Sequence[Axis | None]) -> None:
        """Give `value` its axes; an axis of length 1 cannot shrink and becomes fixed."""
        kept: Axes = []
        for axis in axes:
            if axis is not None and len(axis) <= 1:
                self.pin(axis, "a width of 1 cannot shrink")
                axis = None
            kept.append(axis)
        self._axes[value] = kept

    def forget(self, value: ir.Value) -> None:
        """Make all axes of `value` fixed, whatever a rule had set."""
        self._axes[value] = [None] * rank(value)

    def unite(self, a: Axis | None, b: Axis | None, reason: str) -> None:
        """The two axes lose the same indices. Against a fixed axis the other is pinned with `reason`."""
        if a is not None and b is not None:
            self.labels.unite(a.ids, b.ids)
        elif a is not None or b is not None:
            self.pin(a or b, reason)

    def contract(self, x: Axis | None, weight: Axis | None, reason: str) -> None:
        """Sum over the two axes: an index may leave both, if what it contributes, a product, is zero."""
        self.unite(x, weight, f"{reason} beside a fixed side")
        if x is not None and weight is not None:
            self.sum_over(x.ids, x.zero | weight.zero, reason)

    def sum_over(self, ids: Ids, zero: Flags, reason: str) -> None:
        """These labels end in a sum: what is not zero there once masked stays, or is left to who asked to record."""
        if self.node is not None:
            self.sums.append(SumSite(node=self.node, ids=ids))
        if not self._record_constants and not np.all(zero):
            self.labels.pin(ids[~zero], f"{reason}, where it would arrive as a non-zero constant")

    def mask(self, value: ir.Value | None, axis: int) -> Flags | bool:
        """Ask that cut indices of a parameter's axis be set to zero.

        Returns the flags "is zero once masked": all true for a maskable parameter (or an absent one), else
        whether the constant's slices happen to be zero.
        """
        if value is None:
            return True
        carried = self.axes(value)[axis]
        if carried is not None and carried.source is not None and carried.source[0] in self._maskable:
            self.masked.add(carried.source)
            return True
        return False if carried is None else carried.zero

    def pin(self, target: Axis | ir.Value | None, reason: str) -> None:
        """Nothing of `target` (an axis, or all axes of a value) ever dies."""
        if isinstance(target, Axis):
            self.labels.pin(target.ids, reason)
        elif target is not None:
            for axis in self.axes(target):
                self.pin(axis, reason)

    def pin_but_channels(self, value: ir.Value, reason: str) -> None:
        """Pin every axis of `value` but axis 1: what has been moved to batch or space stays whole."""
        for index, axis in enumerate(self.axes(value)):
            if index != 1:
                self.pin(axis, reason)

    def fixed(self, n: int, reason: str) -> Axis:
        """An axis of n labels that exist only to stay."""
        ids = self.labels.fresh(n)
        self.labels.pin(ids, reason)
        return Axis(ids, np.zeros(n, np.bool_))

    def free(self, n: int, silent: bool) -> Axis:
        """An axis of n equal elements, any of which may leave: nobody silences it, it goes with what it meets."""
        ids = self.labels.fresh(n)
        self._free.update(ids.tolist())
        return Axis(ids, np.full(n, silent))

    def is_free(self, axis: Axis | None) -> bool:
        """Whether an axis is as `free` made it: the same value all along, and not tied to any channel yet."""
        return axis is not None and self._free.issuperset(axis.ids.tolist())

    def count(
        self,
        node: ir.Node,
        ids: Ids,
        *,
        attribute: str | None = None,
        input: int | None = None,
        position: int = 0,
    ) -> None:
        """Remember that a number of `node` counts `ids` (see CountRewrite)."""
        self.rewrites.append(CountRewrite(node=node, attribute=attribute, input=input, position=position, ids=ids))

    def renumber(self, node: ir.Node, input: int, ids: Ids) -> None:
        """Remember that input `input` of `node` holds positions on an axis with labels `ids` (see IndexRewrite)."""
        self.rewrites.append(IndexRewrite(node=node, input=input, ids=ids))

    def label_integers(self, value: ir.Value) -> Axes:
        """The axes of an initializer of integers that are quantised numbers, not positions or counts."""
        if value.is_initializer() and (value.name or "") not in self.initializer_axes:
            seen = value in self._axes
            self._axes[value] = self._label(value)
            if seen:  # somebody has taken its axes for fixed
                self.pin(value, "read as plain numbers elsewhere")
        return self.axes(value)

    def _initializer(self, value: ir.Value) -> Axes:
        if value.shape is None or value.dtype is None or not value.dtype.is_floating_point():
            return [None] * rank(value)
        return self._label(value)

    def _label(self, value: ir.Value) -> Axes:
        name, shape = value.name or "", value.shape
        if shape is None:
            return []
        axes: Axes = []
        for index, size in enumerate(shape.numpy()):
            wide = size > 1
            ids = self.labels.fresh(size) if wide else None
            axes.append(None if ids is None else Axis(ids, self._zero_slices(value, index), (name, index)))
        self.initializer_axes[name] = axes
        return axes

    def _zero_slices(self, value: ir.Value, axis: int) -> Flags:
        """Which slices of a constant are zero already; only vectors and the like are worth looking at."""
        constant = self.settled(value)
        if constant is None or constant.size > 1 << 16:
            return np.zeros(value.shape.numpy()[axis] if value.shape is not None else 0, np.bool_)
        rest = tuple(i for i in range(constant.ndim) if i != axis)
        return np.asarray(~np.any(constant, axis=rest), np.bool_)


def operand(node: ir.Node, index: int) -> ir.Value:
    """A required input. Raises UnsupportedGraphError where the graph lacks it."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise UnsupportedGraphError(f"{place(node)} lacks its input {index}", "check the model with onnx.checker")
    return value


def rank(value: ir.Value) -> int:
    """Number of axes, 0 where it is unknown."""
    return 0 if value.shape is None else len(value.shape)


def static_size(value: ir.Value, axis: int) -> int | None:
    """Length of an axis if it is a number."""
    if value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def place(node: ir.Node) -> str:
    """How a node is named to the user: operator and output."""
    name = node.outputs[0].name if node.outputs else node.name
    return f"{node.op_type} {name}"
