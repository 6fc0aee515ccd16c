"""A net's name in a device profile: what its latency depends on, which is its structure, and no weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import onnx

from edgeslim.runtime.backends import Array

_SMALL = 64
"""Constants of so few bytes are part of a net's structure, such as sizes and axes; larger ones are weights."""
_FLOATS = tuple(getattr(onnx.TensorProto, name) for name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"))
"""And so are all of these kinds, but those that sizes are computed from."""
_SHAPING = {
    "ConstantOfShape": 0, "Expand": 1, "Pad": 1, "Range": 0, "Reshape": 1, "Resize": 1, "Slice": 1, "Tile": 1,
    "Upsample": 1,
}  # fmt: skip
"""Operators whose inputs, from this one on, say how large their output is."""
_SIZES = ("Shape", "Size")


def net_digest(graph: bytes, feeds: Mapping[str, Array]) -> str:
    """SHA-256 of a graph's structure and of the sizes that it is fed: what latencies depend on."""
    model = onnx.load_model_from_string(graph)
    shaping = _shaping(model.graph)
    for tensor in model.graph.initializer:
        weight = tensor.data_type in _FLOATS and tensor.name not in shaping
        if weight or len(tensor.raw_data) > _SMALL:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    sizes = {name: [list(array.shape), str(array.dtype)] for name, array in sorted(feeds.items())}
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True) + json.dumps(sizes).encode()).hexdigest()


def _shaping(graph: onnx.GraphProto) -> set[str]:
    """The names of all values from which sizes are computed: a factor by which an image is resized, for one."""
    makers = {output: node for node in graph.node for output in node.output}
    waiting = [name for node in graph.node if node.op_type in _SHAPING for name in node.input[_SHAPING[node.op_type] :]]
    found = set[str]()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        maker = makers.get(name)
        if maker is not None and maker.op_type not in _SIZES:  # what has a size says nothing of it by its numbers
            waiting += maker.input
    return found
