"""Cross-layer equalisation: even out the ranges of channels between layers, exactly.

    f(s x) = s f(x) for s > 0   =>   W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1),   S = diag(s)

for ReLU, LeakyReLU, PReLU and nothing at all. With r1[i] the largest weight that makes channel i and r2[i] the largest
that reads it, s[i] = r1[i] / sqrt(r1[i] r2[i]) gives both sqrt(r1[i] r2[i]) (Nagel et al. 2019). Chains are gone
through again until nothing moves, so that a convolution, a depthwise one and a convolution come to rest together.

Weights with one scale a channel gain nothing on the side that makes the channels; what gains is the activation in
between, which has one scale for all, and the reader's weight.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...channels.context import place
from ...dead.constancy import groups
from .layers import Declined, Layer, find_layers
from .placement import sole_reader

HOMOGENEOUS = frozenset({"Identity", "LeakyRelu", "PRelu", "Relu"})
_ROUNDS = 40
_AT_REST = 1e-3
_LARGEST = 1e4
"""Of a single factor: a channel that is nearly dead would be blown up without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalization:
    """model: a copy with other weights and the same outputs. pairs: (maker, reader) of weights that were evened out."""

    model: ir.Model
    pairs: tuple[tuple[str, str], ...]
    declined: tuple[Declined, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    first: Layer
    second: Layer


def equalize(model: ir.Model, keep: Collection[str] = ()) -> Equalization:
    """Even out all pairs of layers that allow it; the others with the reason. keep: weights that are not touched."""
    model = model.clone()
    layers, _ = find_layers(model, keep)
    by_node = {layer.node: layer for layer in layers}
    pairs, declined = [], []
    for layer in layers:
        found = _partner(layer, by_node)
        if isinstance(found, str):
            declined.append(Declined(where=place(layer.node), reason=found))
        else:
            pairs.append(_Pair(first=layer, second=found))
    for _ in range(_ROUNDS):
        if max((_even_out(pair) for pair in pairs), default=0.0) < _AT_REST:
            break
    return Equalization(
        model=model,
        pairs=tuple((pair.first.name, pair.second.name) for pair in pairs),
        declined=tuple(declined),
    )


def _partner(layer: Layer, layers: dict[ir.Node, Layer]) -> Layer | str:
    """The layer that alone reads this one's channels, or why there is none."""
    if not _own(layer.weight):
        return "its weight is shared"
    bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
    if bias is not None and (not _own(bias) or bias.dtype != ir.DataType.FLOAT or bias.const_value is None):
        return "its bias is shared, or no weight"
    if groups(layer.node) > 1 and layer.node.op_type == "ConvTranspose":
        return "it is a ConvTranspose in groups"
    if layer.node.op_type == "Gemm" and bias is not None and _flag(layer.node, "alpha", "beta"):
        return "its result and its bias are scaled"
    if bias is not None and bias.const_value is not None and tuple(bias.const_value.shape) != (_width(layer),):
        return "its bias is not one number a channel"
    value = layer.result
    while True:
        user = sole_reader(value)
        if user is None:
            return "its channels are an output" if value.is_graph_output() else "several layers read its channels"
        if user in layers:
            second = layers[user]
            if second.source is not value or not _own(second.weight):
                return "the weight that reads it is shared"
            if not _meets(layer, second):
                return "the layer that reads it sums over another axis"
            return (
                second if _reads_width(second) == _width(layer) else "its channels are regrouped before they are read"
            )
        if user.op_type not in HOMOGENEOUS or user.inputs[0] is not value:
            return f"{place(user)} comes between, and a factor does not pass it"
        value = user.outputs[0]


def _meets(first: Layer, second: Layer) -> bool:
    """Whether `second` sums over the axis that the channels of `first` lie on: a product has them last.

    That the sizes agree says nothing: an image may be as wide as it has channels. Between a Gemm and a product the
    second axis is the last.
    """
    transposed = "transA" in second.node.attributes and second.node.attributes["transA"].as_int() != 0
    kinds = [layer.node.op_type.startswith("Conv") for layer in (first, second)]
    return not transposed and kinds[0] == kinds[1]


def _even_out(pair: _Pair) -> float:
    """One step. Returns the largest |log s|."""
    made, read = _array(pair.first.weight), _array(pair.second.weight)
    makers = np.abs(np.moveaxis(made, pair.first.axis, 0)).reshape(_width(pair.first), -1).max(axis=1)
    readers = _reading(pair.second, read)
    strengths = np.abs(readers).reshape(len(makers), -1).max(axis=1)
    alive = (makers > 0) & (strengths > 0)
    factors = np.ones(len(makers))
    factors[alive] = np.clip(np.sqrt(makers[alive] / strengths[alive]), 1 / _LARGEST, _LARGEST)
    wide = factors.reshape([-1 if i == pair.first.axis else 1 for i in range(made.ndim)])
    _store(pair.first.weight, made / wide)
    bias = pair.first.node.inputs[2] if len(pair.first.node.inputs) > 2 else None
    if bias is not None:
        _store(bias, _array(bias) / factors)
    scaled = readers * factors.reshape(-1, *[1] * (readers.ndim - 1))
    _store(pair.second.weight, _unread(pair.second, scaled, read.shape))
    return float(np.abs(np.log(factors)).max(initial=0.0))


def _reads_width(layer: Layer) -> int:
    """How many channels a layer reads."""
    shape = _array(layer.weight).shape
    return int(shape[1] * groups(layer.node) if layer.node.op_type == "Conv" else shape[_input_axis(layer)])


def _input_axis(layer: Layer) -> int:
    if layer.node.op_type in ("Conv", "ConvTranspose"):
        return 1 if layer.node.op_type == "Conv" else 0
    return _array(layer.weight).ndim - 2 if layer.node.op_type == "MatMul" else 1 - layer.axis


def _reading(layer: Layer, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """A weight with the channels that it reads in front: (I, ...)."""
    count = groups(layer.node)
    if layer.node.op_type != "Conv" or count == 1:
        return np.moveaxis(weight, _input_axis(layer), 0)
    split = weight.reshape(count, -1, *weight.shape[1:])  # (G, O / G, I / G, ...)
    return np.moveaxis(split, 2, 1).reshape(count * weight.shape[1], -1, *weight.shape[2:])


def _unread(layer: Layer, readers: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """`_reading` undone."""
    count = groups(layer.node)
    if layer.node.op_type != "Conv" or count == 1:
        return np.moveaxis(readers, 0, _input_axis(layer))
    split = readers.reshape(count, shape[1], -1, *shape[2:])
    return np.moveaxis(split, 1, 2).reshape(shape)


def _width(layer: Layer) -> int:
    return int(_array(layer.weight).shape[layer.axis])


def _own(value: ir.Value) -> bool:
    own = value.is_initializer() and len(value.uses()) == 1
    return own and not value.is_graph_output() and not value.is_graph_input()


def _flag(node: ir.Node, *names: str) -> bool:
    return any(name in node.attributes and node.attributes[name].as_float() != 1.0 for name in names)


def _array(value: ir.Value) -> NDArray[np.float64]:
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)


def _store(value: ir.Value, array: NDArray[np.float64]) -> None:
    value.const_value = ir.tensor(np.ascontiguousarray(array.astype(np.float32)), name=value.name)
