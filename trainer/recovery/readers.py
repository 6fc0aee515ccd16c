"""Layers that sum over channels, and where what they say can be heard.

A convolution is followed by a batch norm, whose output is added to a shortcut: what counts is the sum. So a layer is
judged, and corrected, at the last value to which a change of its outputs travels unmixed,

    q[o] = scale[o] * y[o] + everything else,

and everything else, an error in the shortcut for one, is made up for as well.

In groups a layer is several layers side by side, each with channels of its own; a depthwise one has a group a channel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.channels.labels import Ids
from edgeslim.exporter.channels.rules.contraction import WEIGHTED
from edgeslim.exporter.dead.constancy import groups
from edgeslim.exporter.dead.sites import Site, read_site, weight_array

from .patches import Rows, Window, patches, rows, window_of

_FALLBACK_EPSILON = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Where a layer is heard. value: q. scale: (O,) float64. shift: an initializer that adds to q, (O,), or None."""

    value: str
    scale: NDArray[np.float64]
    shift: str | None
    shift_scale: NDArray[np.float64]
    """What one unit of `shift` adds to q: (O,) float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A layer that sums over channels with a weight of its own, in `groups` G of I / G inputs and O / G outputs.

    ids: (I,) root labels of the channels it reads. out_ids: (O,) of what it says, None where nothing of it can leave.
    unfit: why it is no plain matrix product over channels, or "".
    """

    node: ir.Node
    site: Site
    ids: Ids
    out_ids: Ids | None
    window: Window | None
    groups: int
    unfit: str

    @property
    def layer(self) -> str:
        """The name of its weight."""
        return _name(self.node.inputs[1 - self.site.operand] if self.node.op_type == "MatMul" else self.node.inputs[1])

    @property
    def source(self) -> str:
        """The value it reads."""
        return _name(self.node.inputs[self.site.operand])

    @property
    def axis(self) -> int:
        """The axis of channels of what it reads, and of what it says."""
        return 1 if self.node.op_type.startswith("Conv") else -1

    @property
    def taps(self) -> int:
        """Weights between one input and one output channel."""
        return int(np.prod(weight_array(self.site).shape[2:], dtype=np.int64))

    @property
    def width(self) -> int:
        """O, all outputs."""
        outputs: int = weight_array(self.site).shape[1 - self.site.weight_axis]
        return outputs * (self.groups if self.site.weight_axis == 0 else 1)

    @property
    def depthwise(self) -> bool:
        """Whether no sum is over more than one channel."""
        return self.groups == len(self.ids)

    def matrix(self, weight: NDArray[np.generic]) -> NDArray[np.float64]:
        """Its weight as (G, I / G * taps, O / G) float64, in the order in which `look` gives what it reads."""
        per_group = len(self.ids) // self.groups
        wide = weight.astype(np.float64).reshape(*weight.shape[:2], -1)
        if self.site.weight_axis == 0:  # (I, O / G, taps)
            wide = np.moveaxis(wide.reshape(self.groups, per_group, *wide.shape[1:]), 2, 3)
        else:  # (O, I / G, taps)
            wide = np.moveaxis(wide.reshape(self.groups, -1, *wide.shape[1:]), 1, 3)
        return wide.reshape(self.groups, per_group * self.taps, -1)

    def weight(self, matrix: NDArray[np.float64], like: NDArray[np.generic]) -> NDArray[np.generic]:
        """`matrix` undone, in the shape and type of `like`."""
        wide = matrix.reshape(self.groups, len(self.ids) // self.groups, self.taps, -1)
        wide = np.moveaxis(wide, 3, 2 if self.site.weight_axis == 0 else 1)
        return np.ascontiguousarray(wide.reshape(like.shape).astype(like.dtype))

    def look(
        self, x: NDArray[np.generic], said: NDArray[np.generic], count: int, generator: np.random.Generator
    ) -> tuple[Rows, Rows]:
        """At most `count` positions: what the layer reads there (P, I * taps), and what is said (P, O), float32."""
        if self.window is not None:
            return patches(x, said, self.window, count, generator)
        return rows(x, said, count, generator)


def find_readers(channels: ChannelMap) -> list[Reader]:
    """All layers that read channels which may leave and have a weight of their own, first to last."""
    found = []
    for node in channels.model.graph:
        if node.op_type not in WEIGHTED:
            continue
        reader = _reader(node, channels)
        if reader is not None:
            found.append(reader)
    return found


def _reader(node: ir.Node, channels: ChannelMap) -> Reader | None:
    operand = (
        1 if node.op_type == "MatMul" and node.inputs[1] is not None and not node.inputs[1].is_initializer() else 0
    )
    site = read_site(node, operand, 1 if node.op_type.startswith("Conv") else -1)
    axes = channels.value_ids.get(_name(node.inputs[operand]), ())
    ids = axes[site.axis] if len(axes) else None
    if site.weight is None or ids is None:
        return None
    window = window_of(node) if node.op_type.startswith("Conv") else None
    unfit = (
        "its padding is given by name or size" if node.op_type.startswith("Conv") and window is None
        else "its input is stored transposed" if site.axis not in (1, -1)
        else "its weight is shared" if len(site.weight.uses()) > 1
        else "its weight is no parameter of the net" if _name(site.weight) not in channels.parameters
        else ""
    )  # fmt: skip
    out = channels.value_ids.get(_name(node.outputs[0]), ())
    out_ids = out[1 if node.op_type.startswith("Conv") else -1] if len(out) else None
    return Reader(node=node, site=site, ids=ids, out_ids=out_ids, window=window, groups=groups(node), unfit=unfit)


def find_heard(reader: Reader, parameters: Collection[str], weights: Mapping[str, NDArray[np.generic]]) -> Heard:
    """Follow a layer's output through batch norms and additions for as long as nobody else reads it.

    parameters: initializers that may change, not constants of a trace. weights: initializer -> its present array.
    """
    node = reader.node
    value, axis, width = node.outputs[0], reader.axis, reader.width
    scale = np.full(width, node.attributes["alpha"].as_float() if "alpha" in node.attributes else 1.0)

    def own(candidate: ir.Value | None) -> str | None:
        return _name(candidate) if _is_own(candidate, width) and _name(candidate) in parameters else None

    shift, shift_scale = own(node.inputs[2] if len(node.inputs) > 2 else None), np.ones(width)
    if shift is not None and "beta" in node.attributes:
        shift_scale = shift_scale * node.attributes["beta"].as_float()
    while len(value.uses()) == 1 and not value.is_graph_output():
        user, index = next(iter(value.uses()))
        if user.op_type == "BatchNormalization" and index == 0 and axis == 1:
            gain = _norm_gain(user, weights)
            if gain is None:
                break
            scale, shift_scale = scale * gain, shift_scale * gain
            if shift is None:
                shift, shift_scale = own(user.inputs[2]), np.ones(width)
        elif user.op_type == "Add":
            other = user.inputs[1 - index]
            if other is None or _is_spread(value, user.outputs[0]):
                break
            if shift is None and axis == -1:
                shift, shift_scale = own(other), np.ones(width)
        elif user.op_type != "Identity":
            break
        value = user.outputs[0]
    return Heard(value=_name(value), scale=scale, shift=shift, shift_scale=shift_scale)


def _is_spread(value: ir.Value, over: ir.Value) -> bool:
    """Whether an addition broadcasts this operand: one number would be heard in many places."""
    if value.shape is None or over.shape is None or len(value.shape) != len(over.shape):
        return True
    return any(mine == 1 and whole != 1 for mine, whole in zip(value.shape, over.shape))


def _is_own(value: ir.Value | None, width: int) -> bool:
    """An initializer of one number a channel that nobody else reads."""
    return (
        value is not None
        and value.is_initializer()
        and value.shape is not None
        and tuple(value.shape) == (width,)
        and len(value.uses()) == 1
    )


def _norm_gain(node: ir.Node, weights: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float64] | None:
    gamma, variance = weights.get(_name(node.inputs[1])), weights.get(_name(node.inputs[4]))
    if gamma is None or variance is None:
        return None
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else _FALLBACK_EPSILON
    return np.asarray(gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon), np.float64)


def _name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""
