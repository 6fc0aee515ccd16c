"""Which operators work in place: what the tables say, and what ONNX Runtime does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeslim.bench.arena import arena_from_profile
from edgeslim.exporter.memory.reuse import ALIASES, IN_PLACE

SIZE = 1 * 8 * 16 * 16 * 4
SHAPES = {"Flatten": "c = Flatten (a)\n b = Reshape (c, sizes)", "Reshape": "b = Reshape (a, sizes)"}
TWICE = {
    "Squeeze": "c = Unsqueeze (a, axes)\n b = Squeeze (c, axes)",
    "Unsqueeze": "c = Unsqueeze (a, axes)\n b = Squeeze (c, axes)",
    "Cast": "c = Cast <to = 6> (a)\n b = Cast <to = 1> (c)",
}
OF_THEIR_OWN = {
    "Abs": "b = Abs (a)",
    "Add": "b = Add (a, numbers)",
    "Add, second": "b = Add (numbers, a)",
    "AveragePool": "b = AveragePool <kernel_shape = [1, 1]> (a)",
    "BatchNormalization": "b = BatchNormalization (a, channel, channel, channel, channel)",
    "Conv": "b = Conv (a, kernel)",
    "Div": "b = Div (a, numbers)",
    "Erf": "b = Erf (a)",
    "Exp": "b = Exp (a)",
    "Gelu": "b = Gelu (a)",
    "Max": "b = Max (a, numbers)",
    "MaxPool": "b = MaxPool <kernel_shape = [1, 1]> (a)",
    "Mul": "b = Mul (a, numbers)",
    "PRelu": "b = PRelu (a, numbers)",
    "Pow": "b = Pow (a, numbers)",
    "Sqrt": "b = Sqrt (a)",
    "Sub": "b = Sub (a, numbers)",
    "Transpose": "b = Transpose <perm = [0, 1, 3, 2]> (a)",
}
NUMBERS = {
    "axes": np.array([0]),
    "channel": np.ones(8, np.float32),
    "kernel": np.ones((8, 8, 1, 1), np.float32),
    "numbers": np.ones((8, 1, 1), np.float32),
    "sizes": np.array([1, 8, 16, 16]),
}


def block(nodes: str, folder: Path) -> int:
    """Values that ONNX Runtime's block holds when `nodes` compute b from a, without any optimisation."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        net (float[1, 16, 16, 8] x) => (float[1, 16, 16, 8] y)
        {{ a = Transpose <perm = [0, 3, 1, 2]> (x)
           {nodes}
           y = Transpose <perm = [0, 2, 3, 1]> (b) }}"""
    )
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in NUMBERS.items())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for _ in range(2):
        session.run(None, {"x": np.zeros((1, 16, 16, 8), np.float32)})
    arena = arena_from_profile(json.loads(Path(session.end_profiling()).read_bytes()))
    assert arena is not None
    values, rest = divmod(arena.activation_bytes, SIZE)
    assert rest == 0
    return values - 1  # the output is not in the block


@pytest.mark.parametrize("operator", sorted(IN_PLACE | ALIASES))
def test_what_the_tables_name_takes_no_buffer(operator: str, tmp_path: Path) -> None:
    assert block((SHAPES | TWICE).get(operator, f"b = {operator} (a)"), tmp_path) == 1


@pytest.mark.parametrize("operator", OF_THEIR_OWN)
def test_what_they_do_not_name_takes_one(operator: str, tmp_path: Path) -> None:
    assert operator.split(",")[0] not in IN_PLACE | ALIASES
    assert block(OF_THEIR_OWN[operator], tmp_path) == 2
