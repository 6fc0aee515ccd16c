"""What values and sums a net reaches on calibration data, for the question whether float16 holds them.

    largest   max |x|
    least     min |x| of what is not 0
    lost      ||x - float16(x)|| / ||x||                  what rounding takes where numbers become subnormal or 0
    sums      max_o sum_i |w[o, i]| |x[i]| + |b[o]|       the largest partial sum of a layer, in any order of summation

The last is the layer itself, run on absolute values with absolute weights. A kernel that accumulates in float16
overflows if a partial sum does, even where the result is small.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..channels.rules.contraction import WEIGHTED
from ..foreign.feeds import open_session
from ..names import free_prefix
from .calibration import Calibration
from .observe import PLAIN_QDQ, observe, run

_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRange:
    """largest, least: absolute, the least of all that are not 0.

    lost: the share of the value's norm that float16 loses; about 3e-4 for healthy numbers.
    """

    largest: float
    least: float
    lost: float


def measure_ranges(model: ir.Model, calibration: Calibration) -> dict[str, ValueRange]:
    """Of every float32 input, and every float32 value that a node makes. Raises DataError as `observe` does."""
    inputs = [value.name for value in model.graph.inputs if value.name and value.dtype == ir.DataType.FLOAT]
    names = [
        value.name
        for node in model.graph
        for value in node.outputs
        if value.name and value.dtype == ir.DataType.FLOAT and isinstance(value.type, ir.TensorType)
    ]
    fed = ((name, feed[name]) for feed in calibration.feeds for name in inputs)
    seen = itertools.chain(fed, observe(model, names, calibration))
    names = [*inputs, *names]
    largest = dict.fromkeys(names, 0.0)
    least = dict.fromkeys(names, np.inf)
    energy, gone = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for name, array in seen:
        largest[name] = max(largest[name], float(np.abs(array).max(initial=0.0)))
        least[name] = min(least[name], float(np.abs(array[array != 0]).min(initial=np.inf)))
        kept, lost = norms(array)
        energy[name] += kept
        gone[name] += lost
    return {
        n: ValueRange(
            largest=largest[n], least=least[n], lost=float(np.sqrt(gone[n] / energy[n])) if energy[n] else 0.0
        )
        for n in names
    }


def norms(array: NDArray[np.generic]) -> tuple[float, float]:
    """(sum x^2, sum (x - float16(x))^2), of what float16 holds at all; overflow is another matter."""
    wide = array.astype(np.float64)
    half = np.clip(wide, -65504.0, 65504.0)
    return float(np.square(half).sum()), float(np.square(half - half.astype(np.float16).astype(np.float64)).sum())


def measure_sums(model: ir.Model, calibration: Calibration) -> dict[str, float]:
    """First output of every layer and every mean of floats -> its largest partial sum.

    Sub-graphs are not looked into. Raises DataError where the net does not run.
    """
    summing = [
        node
        for node in model.graph
        if (node.op_type in WEIGHTED or node.op_type in _MEANS) and node.outputs[0].dtype == ir.DataType.FLOAT
    ]
    if not summing:
        return {}
    proto, prefix = ir.to_proto(model), free_prefix(model.graph, "sums")
    del proto.graph.output[:]
    for number, node in enumerate(summing):
        proto.graph.node.extend(_absolute(ir.to_proto(node), f"{prefix}/{number}"))
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(f"{prefix}/{number}", onnx.TensorProto.FLOAT, None)
        )
    session = open_session(proto.SerializeToString(), "the graph with its sums as outputs", PLAIN_QDQ)
    found = [0.0] * len(summing)
    for number, feed in enumerate(calibration.feeds):
        for i, seen in enumerate(run(session, feed, number)):
            found[i] = max(found[i], float(np.abs(seen).max(initial=0.0)) * _window(summing[i]))
    return {node.outputs[0].name or "": largest for node, largest in zip(summing, found)}


def _absolute(node: onnx.NodeProto, name: str) -> list[onnx.NodeProto]:
    """The node on absolute values, and the largest number that it makes as `name`."""
    made, inputs = [], []
    for index, operand in enumerate(node.input):
        if index > 2 or not operand or (node.op_type in _MEANS and index > 0):
            inputs.append(operand)
            continue
        inputs.append(f"{name}/absolute/{index}")
        made.append(onnx.helper.make_node("Abs", [operand], [inputs[-1]]))
    if node.op_type == "GlobalAveragePool":
        # The sum over all positions: a mean, times how many there are.
        made.append(onnx.helper.make_node("GlobalLpPool", inputs, [f"{name}/absolute"], p=1))
    else:
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        twin.name = f"{name}/absolute"
        del twin.input[:], twin.output[:]
        twin.output.append(f"{name}/absolute")
        twin.input.extend(inputs)
        if node.op_type == "ReduceMean":  # takes its axes as ReduceL1 does, in every opset; ReduceSum does not
            twin.op_type = "ReduceL1"
        for attribute in twin.attribute:
            if attribute.name in ("alpha", "beta"):
                attribute.f = abs(attribute.f)
        if node.op_type == "AveragePool":  # times the window, padding included: `_window`
            del twin.attribute[:]
            twin.attribute.extend(a for a in node.attribute if a.name != "count_include_pad")
            twin.attribute.append(onnx.helper.make_attribute("count_include_pad", 1))
        made.append(twin)
    made.append(onnx.helper.make_node("ReduceMax", [f"{name}/absolute"], [name], keepdims=0))
    return made


def _window(node: ir.Node) -> int:
    """How many numbers an AveragePool divides its sum by; 1 of others, whose sums are what the twin makes."""
    return math.prod(node.attributes["kernel_shape"].as_ints()) if node.op_type == "AveragePool" else 1
