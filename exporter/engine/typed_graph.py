"""What a typed graph says of itself: which low precisions it has, and whether its weights are 2:4 sparse."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeslim.errors import EngineError

_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators whose second input is their kernel, and which sparse tensor cores can compute."""
_CARRIERS = frozenset({"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"})
"""What may stand between a weight and its reader in a typed graph."""


def low_precisions(model: bytes) -> frozenset[str]:
    """ "fp16" where a weight or a cast is float16, "int8" where something is quantised. Raises EngineError as below."""
    graph = _graph(model)
    half = onnx.TensorProto.FLOAT16
    casts = (a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to")
    found = {"fp16"} if half in casts or any(t.data_type == half for t in graph.initializer) else set()
    return frozenset(found | ({"int8"} if any(n.op_type == "DequantizeLinear" for n in graph.node) else set()))


def has_sparse_weights(model: bytes) -> bool:
    """True where kernels of convolutions or products are 2:4, and those are the greater part of all weights.

    Of every four neighbouring input channels at most two are then not zero. Raises EngineError for bytes that are no
    ONNX.
    """
    graph = _graph(model)
    weights = {t.name: t for t in graph.initializer}
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type in _CARRIERS}
    sparse = total = 0
    for node in graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        name = node.input[1]
        while name in source:
            name = source[name]
        if name in weights:
            array = numpy_helper.to_array(weights[name])
            total += array.size
            if array.ndim > 1:  # a product with a vector has no rows
                rows = array if node.op_type == "Conv" or _transposed(node) else np.swapaxes(array, 0, 1)
                sparse += array.size if is_two_of_four(rows) else 0
    return sparse * 2 > total


def _graph(model: bytes) -> onnx.GraphProto:
    try:
        return onnx.load_model_from_string(model).graph
    except Exception as error:  # protobuf's own exception, which has moved between its versions
        raise EngineError(f"the graph is no ONNX: {error}", "copy the bundle again") from error


def _transposed(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)


def is_two_of_four(kernel: NDArray[np.generic]) -> bool:
    """Whether of every four neighbours along I at most two are not zero, and some are. kernel: (O, I, ...)."""
    if kernel.ndim < 2 or kernel.shape[1] % 4 or not kernel.size:
        return False
    fours = np.moveaxis(kernel, 1, -1).reshape(-1, 4) != 0
    return bool((fours.sum(axis=1) <= 2).all()) and bool(fours.any())
