"""Parameters and the size of the model file as functions of the families' widths.

The file is float32 weights and a remainder that hardly depends on the widths: nodes, names, shapes. So

    model_bytes(w) = overhead + sum over initializers of the shipped graph (item size * prod_axes length(w))

The shipped graph has batch norms folded into the convolutions before them, under new names; such a weight has the axes
of the convolution that the trace had in its place. An initializer whose axes nobody knows counts as it is in the dense
net.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..channels import ChannelMap
from ..channels.labels import Ids
from ..cost import LayerCost, learnt_parameters
from .widths import AxisTerms, FamilyIndex, SizeTerms, Widths, size_terms


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelFile:
    """The model file of a plan. weights: bytes of every initializer.  overhead_bytes: all else, as in the dense net."""

    overhead_bytes: int
    weights: SizeTerms

    def bytes_at(self, widths: Widths) -> int:
        """The file's size when the families have these widths."""
        return self.overhead_bytes + round(self.weights.total(widths))


def model_file(channels: ChannelMap, shipped: ir.Model) -> ModelFile:
    """The file of plans for this net. shipped: the dense `shipped_graph` of these channels.

    Weights whose zeros are left out of the bundle (its sparse form) take less.
    """
    index, axes = FamilyIndex(channels), _Axes(channels, shipped)
    names, scale, terms = [], [], []
    for name, value in shipped.graph.initializers.items():
        if value.const_value is None:
            continue
        shape = tuple(value.const_value.shape.numpy())
        names.append(name)
        scale.append(value.const_value.nbytes / max(math.prod(shape), 1))
        terms.append(_terms(index, shape, axes.of(value, shape)))
    weights = size_terms(index, names, scale, terms)
    size = len(ir.to_proto(shipped).SerializeToString())
    return ModelFile(overhead_bytes=size - round(weights.total(index.widths)), weights=weights)


def parameter_terms(channels: ChannelMap) -> SizeTerms:
    """Learnt parameters of the traced net, as `cost.count_parameters` counts them."""
    index, names, terms = FamilyIndex(channels), [], []
    for name, value in learnt_parameters(channels.model, channels.parameters):
        shape = () if value.shape is None else tuple(value.shape.numpy())
        names.append(name)
        terms.append(_terms(index, shape, _known(channels, name)))
    return size_terms(index, names, [1.0] * len(names), terms)


def mac_terms(channels: ChannelMap, costs: Sequence[LayerCost]) -> SizeTerms:
    """Multiply-accumulates of the traced net, one row a layer. costs: positions of every layer, see exporter.cost."""
    index, names, scale, terms = FamilyIndex(channels), [], [], []
    for cost in costs:
        value = channels.model.graph.initializers[cost.weight]
        shape = () if value.shape is None else tuple(value.shape.numpy())
        names.append(cost.layer)
        scale.append(float(cost.positions))
        terms.append(_terms(index, shape, _known(channels, cost.weight)))
    return size_terms(index, names, scale, terms)


def _terms(index: FamilyIndex, shape: Sequence[int], ids: Sequence[Ids | None]) -> list[AxisTerms]:
    """ids: of the leading axes; those that are unknown or of another length stay."""
    padded = [*ids, *[None] * len(shape)]
    return [index.constant(n) if own is None or len(own) != n else index.axis(own) for n, own in zip(shape, padded)]


def _known(channels: ChannelMap, name: str) -> list[Ids | None]:
    return [None if axis is None else axis.ids for axis in channels.initializer_axes.get(name, ())]


class _Axes:
    """The labels on the axes of the shipped graph's initializers."""

    def __init__(self, channels: ChannelMap, shipped: ir.Model) -> None:
        self._channels = channels
        self._traced = {(n.op_type, n.outputs[0].name): n for n in channels.model.graph}

    def of(self, value: ir.Value, shape: Sequence[int]) -> list[Ids | None]:
        """Labels of every axis, None where it cannot shrink or nobody knows."""
        if value.name in self._channels.initializer_axes:
            return _known(self._channels, value.name or "")
        return next((ids for ids in self._by_use(value) if len(ids) == len(shape)), [])

    def _by_use(self, value: ir.Value) -> Iterator[list[Ids | None]]:
        """What the layers that read it say: the same layer of the trace, or the channels that it makes."""
        for use in value.uses():
            twin = self._traced.get((use.node.op_type, use.node.outputs[0].name))
            place = use.idx
            if twin is not None and place < len(twin.inputs) and (own := twin.inputs[place]) is not None:
                yield _known(self._channels, own.name or "")
            if use.node.op_type in ("Conv", "ConvTranspose") and place == 2:  # a bias that a batch norm left behind
                made = self._channels.value_ids.get(use.node.outputs[0].name or "", ())
                yield [made[1]] if len(made) > 1 else []
