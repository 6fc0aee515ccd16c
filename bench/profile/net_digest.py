"""A net's name in a device profile: what its latency depends on, which is its structure, and no weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import onnx

from edgeslim.runtime.backends import Array

_SMALL = 64
"""Constants of so few bytes are part of a net's structure, such as sizes and axes; larger ones are weights."""


def net_digest(graph: bytes, feeds: Mapping[str, Array]) -> str:
    """SHA-256 of a graph's structure and of the sizes that it is fed: what latencies depend on."""
    model = onnx.load_model_from_string(graph)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > _SMALL or tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    sizes = {name: [list(array.shape), str(array.dtype)] for name, array in sorted(feeds.items())}
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True) + json.dumps(sizes).encode()).hexdigest()
