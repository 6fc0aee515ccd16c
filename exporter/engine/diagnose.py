"""Where an engine that is wrong goes wrong: a second engine of the same graph gives its inner values, ONNX Runtime too.

    typed graph -> its float values as outputs -> engine, ONNX Runtime -> the first and the worst layer that differ

An inner value that is given out is a value that TensorRT must compute: it cannot fuse across it. So the second engine
is not the first one, and its fault may be gone; that is then said, and is a finding too: the fault is in a fusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import first_line
from edgeslim.runtime import MODEL, Bundle
from edgeslim.runtime.backends import Backend

if TYPE_CHECKING:
    import onnx_ir as ir

FULL_LIMIT = 1e-3
"""Relative rms from which a layer of a float32 graph is told; TensorRT's sums lie within 1e-5 without TF32."""
LOW_LIMIT = 0.05
"""The same of a graph with float16 or int8: both engines compute the same graph, and round in other places."""
_NOT_LAYERS = frozenset({"Constant", "DequantizeLinear", "QuantizeLinear"})
"""What they make is a constant, or belongs to the kernel behind it."""

OpenGraph = Callable[[bytes], Backend]
"""Builds an engine of an ONNX graph as the one that was wrong was built, and opens it."""


def diagnose(bundle: Bundle, precision: str, open_graph: OpenGraph, frames: NDArray[np.uint8]) -> str:
    """In words, for the end of a message: the first layer that differs, and the worst. Never raises.

    frames: (N, H, W, C), a batch that the engine takes.
    """
    try:
        return "\n" + _compare(bundle, precision, open_graph, frames)
    except ImportError as error:
        what = error.name or first_line(error)
        return f"\nits layers were not compared: {what} is not installed here (pip install 'edgeslim[export]')"
    except Exception as error:  # whatever goes wrong here, the verdict on the engine must not be lost
        return f"\nits layers could not be compared: {first_line(error)}"


def _compare(bundle: Bundle, precision: str, open_graph: OpenGraph, frames: NDArray[np.uint8]) -> str:
    from ..precision.calibration import Calibration
    from ..precision.layers import compare_layers

    graph, names, model = graph_with_layers(bundle.graph(precision))
    if not names:
        return "it has no layers in floating point whose values could be compared"
    entry = bundle.manifest.inputs[0].name
    with open_graph(model) as backend:
        told = [spec.name for spec in backend.outputs]

        def run(feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
            answers = dict(zip(told, backend.run(dict(feeds))))
            return [answers[name] for name in names]

        comparison = compare_layers(
            graph,
            graph,
            Calibration(feeds=({entry: frames},), images=len(frames)),
            FULL_LIMIT if precision == MODEL else LOW_LIMIT,
            run,
            names,
        )
    if comparison.first is not None:
        return f"layer by layer, against ONNX Runtime on the first golden frames: {comparison.describe()}"
    return (
        "a second engine, which gives out every layer and so fuses none, does not have the fault: it is in what "
        f"TensorRT fuses. There {comparison.describe()}"
    )


def graph_with_layers(model: bytes) -> tuple[ir.Model, list[str], bytes]:
    """The typed graph, the names of the float values that its layers make of the frames, and it with these as outputs.

    Raises UnsupportedGraphError where the type of a value cannot be told, ImportError where a board has no onnx_ir.
    """
    import onnx
    import onnx_ir as ir

    from ..precision.layers import compared_values
    from ..precision.typed import with_types
    from ..taps import tapped

    graph = with_types(ir.from_proto(onnx.load_model_from_string(model)))  # outputs must tell their types
    floats = set(compared_values(graph, graph))
    moving, names = {value.name for value in graph.graph.inputs}, list[str]()
    for node in graph.graph:
        if any(value is not None and value.name in moving for value in node.inputs):
            moving |= {value.name for value in node.outputs}
            names += [v.name for v in node.outputs if v.name and v.name in floats and node.op_type not in _NOT_LAYERS]
    return graph, names, tapped(graph, names)
