"""What values and sums a net reaches on calibration data, for the question whether float16 holds them.

    largest   max |x|
    least     min |x| of what is not 0
    lost      ||x - float16(x)|| / ||x||                  what rounding takes where numbers become subnormal or 0
    sums      max_o sum_i |w[o, i]| |x[i]| + |b[o]|       the largest partial sum of a layer, in any order of summation

The last is the layer itself, run on absolute values with absolute weights. A kernel that accumulates in float16
overflows if a partial sum does, even where the result is small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..channels.rules.contraction import WEIGHTED
from ..foreign.feeds import open_session
from .calibration import Calibration
from .observe import PLAIN_QDQ, observe, run

_MEANS = {"GlobalAveragePool", "ReduceMean", "ReduceSum"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRange:
    """largest, least: absolute, the least of all that are not 0.

    lost: the share of the value's norm that float16 loses; about 3e-4 for healthy numbers.
    """

    largest: float
    least: float
    lost: float


def measure_ranges(model: ir.Model, calibration: Calibration) -> dict[str, ValueRange]:
    """Of every float32 value that a node makes. Raises DataError as `observe` does."""
    names = [
        value.name
        for node in model.graph
        for value in node.outputs
        if value.name and value.dtype == ir.DataType.FLOAT and isinstance(value.type, ir.TensorType)
    ]
    largest = dict.fromkeys(names, 0.0)
    least = dict.fromkeys(names, np.inf)
    energy, gone = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for name, array in observe(model, names, calibration):
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
    """First output of every layer and every mean -> its largest partial sum. Sub-graphs are not looked into."""
    proto = ir.to_proto(model)
    opset = model.graph.opset_imports.get("", 18)
    weights = {t.name: t for t in proto.graph.initializer}
    names = []
    nodes: list[onnx.NodeProto] = []
    for node in model.graph:
        if node.op_type in WEIGHTED or node.op_type in _MEANS:
            name = node.outputs[0].name or ""
            nodes += _absolute(ir.to_proto(node), name, weights, opset)
            names.append(name)
    if not names:
        return {}
    del proto.graph.output[:]
    proto.graph.node.extend(nodes)
    for name in names:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}/sum", onnx.TensorProto.FLOAT, None))
    session = open_session(proto.SerializeToString(), "the graph with its sums as outputs", PLAIN_QDQ)
    found = dict.fromkeys(names, 0.0)
    for number, feed in enumerate(calibration.feeds):
        for name, seen in zip(names, run(session, feed, number)):
            found[name] = max(found[name], float(np.abs(seen).max(initial=0.0)))
    return found


def _absolute(
    node: onnx.NodeProto, name: str, weights: dict[str, onnx.TensorProto], opset: int
) -> list[onnx.NodeProto]:
    """The node on absolute values, and the largest number that it makes as `name`/sum."""
    made, inputs = [], []
    for index, operand in enumerate(node.input):
        if index > 2 or not operand or (node.op_type in _MEANS and index > 0):
            inputs.append(operand)
            continue
        inputs.append(f"{name}/absolute/{index}")
        made.append(onnx.helper.make_node("Abs", [operand], [inputs[-1]]))
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.name = f"{name}/absolute"
    del twin.input[:], twin.output[:]
    twin.output.append(f"{name}/absolute")
    if node.op_type == "GlobalAveragePool":
        # The sum over all positions: a mean, times how many there are.
        made.append(onnx.helper.make_node("GlobalLpPool", inputs, [f"{name}/absolute"], p=1))
    else:
        twin.op_type = "ReduceL1" if node.op_type in _MEANS else node.op_type
        twin.input.extend(inputs)
        made.append(twin)
    made.append(onnx.helper.make_node("ReduceMax", [f"{name}/absolute"], [f"{name}/sum"], keepdims=0))
    return made
