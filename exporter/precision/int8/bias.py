"""Give back the mean that rounding has taken: bias correction from what the layers really say.

    b[o] += E y_float[o] - E y_int8[o]        mean over images and positions

Layers go in order, each seeing what the corrected ones before it say, so an error is not made up for twice. A layer
that is added to a shortcut is judged by the sum: what counts is what is heard, and the shortcut has errors of its own.
The float means are taken inside the graph, in one run; the int8 net is walked through piece by piece.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ...foreign.feeds import open_session
from ...names import add_constant, free_prefix
from ...walk import Walk
from ...weights import with_weights
from ..calibration import Calibration
from ..observe import PLAIN_QDQ, count_elements, largest_feed, run
from .layers import Layer
from .placement import sole_reader

_LIVE = 6
"""Values of the size of the largest that a walk holds at a time: what is read, what is made, shortcuts."""
CHANNELS = 1
"""The axis of channels of what a layer says."""


def correct_bias(
    model: ir.Model, quantized: ir.Model, layers: Sequence[Layer], calibration: Calibration
) -> tuple[ir.Model, dict[str, float]]:
    """A copy of `quantized` with other biases, and by how much each moved at most.

    model: the float graph with the same names of values. Changes are by what a layer says, relative to the root mean
    square of its means, so that they compare between layers.
    """
    open_layers = [layer for layer in layers if layer.node.op_type != "MatMul"]
    wanted = _float_means(model, open_layers, calibration)
    quantized = quantized.clone()
    biases = {layer.result.name or "": _own_bias(quantized, layer) for layer in open_layers}
    walk = Walk(quantized, list(calibration.feeds), PLAIN_QDQ)
    shifts = {}
    for layer in open_layers:
        result = layer.result.name or ""
        bias = biases[result]
        if bias is None:
            continue
        walk.advance(result)
        (said,) = walk.peek([_heard(layer.result).name or ""])
        seen = _mean(said, CHANNELS)
        walk.weights[bias] = (walk.weights[bias] + (wanted[result] - seen)).astype(np.float32)
        spread = float(np.sqrt(np.mean(np.square(wanted[result])))) or 1.0
        shifts[result] = float(np.abs(wanted[result] - seen).max()) / spread
    changed = {name: walk.weights[name] for name in biases.values() if name is not None}
    return with_weights(quantized, changed), shifts


def images_within(model: ir.Model, layers: Sequence[Layer], calibration: Calibration, limit: int) -> int:
    """How many images a walk can hold in about `limit` bytes, at least one: some values of each live at a time."""
    names = [layer.result.name or "" for layer in layers]
    largest = max(count_elements(model, names, largest_feed(calibration)).values(), default=1)
    return max(1, limit // (4 * _LIVE * largest))


def _heard(value: ir.Value) -> ir.Value:
    """The sum that a layer's result goes into and nowhere else, if it is not spread over it; else the result itself."""
    node = sole_reader(value)
    if node is None or node.op_type != "Add" or any(v is None or v.is_initializer() for v in node.inputs):
        return value
    whole = node.outputs[0]
    if value.shape is None or whole.shape is None or len(value.shape) != len(whole.shape):
        return value
    spread = any(mine == 1 and all_of_it != 1 for mine, all_of_it in zip(value.shape, whole.shape))
    return value if spread else whole


def _mean(batches: Sequence[NDArray[np.generic]], axis: int) -> NDArray[np.float64]:
    """(C,) over everything but `axis`, every number counting the same."""
    sums = [b.sum(axis=tuple(i for i in range(b.ndim) if i != axis), dtype=np.float64) for b in batches]
    count = sum(b.size // b.shape[axis] for b in batches)
    return np.asarray(np.sum(sums, axis=0) / count, np.float64)


def _own_bias(model: ir.Model, layer: Layer) -> str | None:
    """The name of a bias that this layer alone has, made where there is none; None where it cannot be changed."""
    (node,) = (n for n in model.graph if n.outputs and n.outputs[0].name == layer.result.name)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if node.op_type == "Gemm" and "beta" in node.attributes and node.attributes["beta"].as_float() != 1.0:
        return None
    if bias is not None:
        one = bias.const_value is not None and len(bias.const_value.shape) == 1
        if not bias.is_initializer() or bias.is_graph_input() or not one or bias.dtype != ir.DataType.FLOAT:
            return None
    groups = node.attributes["group"].as_int() if node.op_type == "ConvTranspose" and "group" in node.attributes else 1
    assert layer.weight.const_value is not None
    width = int(layer.weight.const_value.shape.numpy()[layer.axis]) * groups
    present = np.zeros(1, np.float32) if bias is None or bias.const_value is None else bias.const_value.numpy()
    alone = bias is not None and len(bias.uses()) == 1 and not bias.is_graph_output()
    if bias is not None and alone and present.shape == (width,):
        return bias.name
    # A Gemm may have one number for all channels.
    new = add_constant(model.graph, f"{layer.name}/bias", np.broadcast_to(present, (width,)).astype(np.float32))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, new)
    return new.name


def _float_means(model: ir.Model, layers: Sequence[Layer], calibration: Calibration) -> dict[str, NDArray[np.float64]]:
    """(C,) of what each layer of the float graph says, over all images; a larger image counts for more."""
    if not layers:  # a session has to have an output
        return {}
    proto, prefix = ir.to_proto(model), free_prefix(model.graph, "mean")
    names = [layer.result.name or "" for layer in layers]
    heard = [_heard(layer.result).name or "" for layer in layers]
    del proto.graph.output[:]
    for number, layer in enumerate(layers):
        assert layer.weight.const_value is not None
        kept = len(layer.weight.const_value.shape)  # what a Gemm and a convolution make has as many axes
        rest = [i for i in range(kept) if i != CHANNELS]
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(rest, np.int64), f"{prefix}/axes/{number}")
        )
        proto.graph.node.extend(
            [
                _reduce_mean(model, heard[number], f"{prefix}/{number}", f"{prefix}/axes/{number}", rest),
                onnx.helper.make_node("Size", [heard[number]], [f"{prefix}/size/{number}"]),
            ]
        )
        proto.graph.output.extend(
            [
                onnx.helper.make_tensor_value_info(f"{prefix}/{number}", onnx.TensorProto.FLOAT, None),
                onnx.helper.make_tensor_value_info(f"{prefix}/size/{number}", onnx.TensorProto.INT64, []),
            ]
        )
    session = open_session(proto.SerializeToString(), "the graph with its means as outputs")
    sums = [np.zeros(1, np.float64) for _ in names]
    counts = [0] * len(names)
    for number, feed in enumerate(calibration.feeds):
        found = run(session, feed, number)
        for i, (mean, size) in enumerate(zip(found[::2], found[1::2])):
            sums[i] = sums[i] + mean.astype(np.float64) * int(size)
            counts[i] += int(size)
    return {name: total / count for name, total, count in zip(names, sums, counts)}


def _reduce_mean(model: ir.Model, name: str, mean: str, constant: str, axes: list[int]) -> onnx.NodeProto:
    """`name` -> `mean`. Axes became an input with opset 18: the `constant`."""
    if model.graph.opset_imports.get("", 18) >= 18:
        return onnx.helper.make_node("ReduceMean", [name, constant], [mean], keepdims=0)
    return onnx.helper.make_node("ReduceMean", [name], [mean], axes=axes, keepdims=0)
