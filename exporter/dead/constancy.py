"""Which channels cannot depend on the input, by structure.

A channel is constant where it is made if its kernel is zero (what is left is the bias) or a zero factor multiplies it
(gamma of a batch norm). From there on it stays constant through every operator that treats channels one by one, as
long as all that it is combined with is constant too: an addition of two constants is one, a product with an attention
map is not. Running the net on examples could not tell this: a map that happens to be zero on all of them may be
anything on the next image.

A constant channel need not be the same number at every pixel: zero padding leaves a border. That is measured
(arrivals).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ..channels import ChannelMap
from ..channels.rules.contraction import WEIGHTED

Roots = frozenset[int]

_MOVES = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Resize", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Upsample",
    }
)  # fmt: skip
"""Elements move and are not combined: what lies beside a channel in the inputs does not touch it."""
_ONE_BY_ONE = frozenset(
    {
        "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Div",
        "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization",
        "HardSigmoid", "HardSwish", "InstanceNormalization", "LeakyRelu", "Log", "LpPool", "Max", "MaxPool", "Mean",
        "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "QuantizeLinear", "DequantizeLinear", "Reciprocal", "ReduceMax",
        "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus",
        "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip
"""A channel of the output depends on that channel of the inputs alone."""
_NONE: Roots = frozenset()


def constant_channels(channels: ChannelMap) -> Mapping[str, Roots]:
    """Value name -> root labels whose elements in it do not depend on the graph's input."""
    zeros = _ZeroSlices(channels)
    found: dict[str, Roots] = {}
    for node in channels.model.graph:
        for output in node.outputs:
            carried = _carried(channels, output)
            if carried:
                found[output.name or ""] = _constant(node, carried, channels, found, zeros)
    return found


def _constant(
    node: ir.Node, carried: Roots, channels: ChannelMap, found: Mapping[str, Roots], zeros: _ZeroSlices
) -> Roots:
    if node.domain not in ("", "ai.onnx"):
        return _NONE
    if node.op_type in WEIGHTED:
        return carried & _from_kernel(node, channels, found, zeros)
    constant = carried & _passed(node, channels, found)
    if node.op_type == "BatchNormalization":
        constant |= carried & zeros.of(node.inputs[1])
    elif node.op_type == "Mul":
        constant |= carried & (zeros.of(node.inputs[0]) | zeros.of(node.inputs[1]))
    return constant


def _from_kernel(node: ir.Node, channels: ChannelMap, found: Mapping[str, Roots], zeros: _ZeroSlices) -> Roots:
    """Output channels of a weighted layer with a zero kernel; of a depthwise one also those with a constant input."""
    data, weight = node.inputs[0], node.inputs[1]
    if data is None or weight is None or (len(node.inputs) > 2 and not _is_constant(node.inputs[2])):
        return _NONE
    if node.op_type == "MatMul":
        if _is_constant(data):
            return zeros.of(data, -2) - _carried(channels, weight)
        return zeros.of(weight, -1) - _carried(channels, data, but=-1)
    if node.op_type == "Gemm":
        flag = node.attributes.get("transB")
        return zeros.of(weight, 0 if flag is not None and flag.as_int() else 1) - _carried(channels, data, but=1)
    one_by_one = groups(node) > 1 and weight.shape is not None and _is_constant(weight)
    if node.op_type == "Conv":
        depthwise = one_by_one and weight.shape is not None and weight.shape[1] == 1
        return zeros.of(weight, 0) | (found.get(data.name or "", _NONE) if depthwise else _NONE)
    depthwise = one_by_one and weight.shape is not None and weight.shape[0] == groups(node)
    return zeros.of(weight, 0) | found.get(data.name or "", _NONE) if depthwise else zeros.of(weight, 1)


def _passed(node: ir.Node, channels: ChannelMap, found: Mapping[str, Roots]) -> Roots:
    """What goes through an operator untouched by anything that is not constant."""
    computed = [v for v in node.inputs if v is not None and not _is_constant(v)]
    if node.op_type in _MOVES:
        sources = computed if node.op_type == "Concat" else [v for v in computed if v is node.inputs[0]]
        constant = frozenset[int]().union(*(found.get(v.name or "", _NONE) for v in sources))
        return constant - frozenset[int]().union(*(_varying(channels, v, found) for v in sources))
    if node.op_type not in _ONE_BY_ONE or not computed:
        return _NONE
    return frozenset.intersection(*(found.get(v.name or "", _NONE) for v in computed))


def _varying(channels: ChannelMap, value: ir.Value, found: Mapping[str, Roots]) -> Roots:
    return _carried(channels, value) - found.get(value.name or "", _NONE)


def groups(node: ir.Node) -> int:
    """`group` of a convolution."""
    return node.attributes["group"].as_int() if "group" in node.attributes else 1


def _is_constant(value: ir.Value | None) -> bool:
    return value is None or (value.is_initializer() and not value.is_graph_input())


def _carried(channels: ChannelMap, value: ir.Value, but: int | None = None) -> Roots:
    """Labels on the axes of a computed value, without those of axis `but`."""
    axes = channels.value_ids.get(value.name or "", ())
    skip = None if but is None else but % max(len(axes), 1)
    arrays = [ids for i, ids in enumerate(axes) if ids is not None and i != skip]
    return frozenset(np.unique(np.concatenate(arrays)).tolist()) if arrays else _NONE


class _ZeroSlices:
    """Per initializer and axis the labels all of whose slices are zero, found once."""

    def __init__(self, channels: ChannelMap) -> None:
        self._channels = channels
        self._found: dict[tuple[str, int | None], Roots] = {}

    def of(self, value: ir.Value | None, axis: int | None = None) -> Roots:
        """Labels whose slices of this initializer are zero, along one axis or any."""
        if value is None or not _is_constant(value) or value.const_value is None:
            return _NONE
        key = (value.name or "", axis)
        if key not in self._found:
            self._found[key] = self._look(value, axis)
        return self._found[key]

    def _look(self, value: ir.Value, axis: int | None) -> Roots:
        axes = self._channels.initializer_axes.get(value.name or "", [])
        array = value.const_value.numpy() if value.const_value is not None else np.empty(0)
        wanted = range(len(axes)) if axis is None else [axis % max(len(axes), 1)] if axes else []
        zero: Roots = _NONE
        for index in wanted:
            carried = axes[index]
            if carried is None:
                continue
            roots = self._channels.labels.find(carried.ids)
            silent = ~np.any(array, axis=tuple(i for i in range(array.ndim) if i != index))
            zero |= frozenset(roots[silent].tolist()) - frozenset(roots[~silent].tolist())
        return zero
