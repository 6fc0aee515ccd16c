"""What a planner is told of plans it has not made: peak, file and parameters, beside graphs that were really pruned."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.cost import count_parameters
from edgeslim.exporter.memory import (
    ModelFile,
    Moments,
    SizedGraph,
    SizeTerms,
    as_written,
    liveness,
    model_file,
    moments,
    parameter_terms,
    shipped_graph,
)
from edgeslim.exporter.memory.moments import _undominated
from edgeslim.exporter.passes.remove_channels import remove_channels

FRAME = (1, 16, 16, 3)
SHAPES = {
    "k1": (12, 3, 3, 3),
    "k2": (20, 12, 3, 3),
    "b2": (20,),
    "k3": (12, 20, 1, 1),
    "dw": (12, 1, 3, 3),
    "k4": (10, 32, 1, 1),
    "w5": (640, 5),
    **dict.fromkeys(("scale", "shift", "mean"), (12,)),
}
"""A skip, a sum, a depthwise layer, a concatenation, and a linear layer that reads 64 pixels of every channel."""
TEXT = """<ir_version: 10, opset_import: ["" : 18]>
net (float[n, 3, h, w] x) => (float[n, 5] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, k1)
  norm = BatchNormalization (a, scale, shift, mean, variance)
  b = Relu (norm)
  c = Conv <pads = [1, 1, 1, 1]> (b, k2, b2)
  d = Relu (c)
  e = Conv (d, k3)
  f = Conv <group = 12, pads = [1, 1, 1, 1]> (e, dw)
  g = Add (f, b)
  i = Relu (g)
  j = Concat <axis = 1> (d, i)
  k = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (j)
  l = Conv (k, k4)
  m = Flatten (l)
  y = MatMul (m, w5)
}"""
NAMES = (*SHAPES, "variance")


@cache
def net() -> ChannelMap:
    proto = onnx.parser.parse_model(TEXT)
    generator = np.random.default_rng(0)
    arrays = {name: generator.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    arrays["variance"] = generator.uniform(1, 2, 12).astype(np.float32)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    for value, shape in ((proto.graph.input[0], (1, 3, 16, 16)), (proto.graph.output[0], (1, 5))):
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape))
    return analyze(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), set(NAMES))


@cache
def dense() -> SizedGraph:
    return as_written(shipped_graph(net()), FRAME)


@cache
def planner() -> tuple[Moments, ModelFile, SizeTerms]:
    return moments(net(), dense()), model_file(net(), shipped_graph(net())), parameter_terms(net())


@st.composite
def plans(draw: st.DrawFn) -> tuple[np.ndarray, frozenset[int]]:
    """Widths, and which units go."""
    widths, cut = [], set[int]()
    for family in net().families:
        width = draw(st.integers(1, family.width))
        order = np.random.default_rng(draw(st.integers(0, 99))).permutation(family.width)
        widths.append(width)
        cut |= set(family.labels[order[width:]].tolist())
    return np.array(widths, np.int64), frozenset(cut)


def test_the_net_has_something_to_plan() -> None:
    assert sorted(family.width for family in net().families) == [10, 12, 20]


@settings(max_examples=20)
@given(plans())
def test_every_plan_is_as_the_planner_was_told(plan: tuple[np.ndarray, frozenset[int]]) -> None:
    widths, cut = plan
    peak, file, parameters = planner()
    compact = shipped_graph(net(), cut)
    assert peak.peak_bytes(widths) == liveness(as_written(compact, FRAME)).peak_bytes
    real = len(ir.to_proto(compact).SerializeToString())
    assert abs(file.bytes_at(widths) - real) <= 64  # numbers in the graph take fewer digits
    counted = count_parameters(remove_channels(net().model, net(), cut), net().parameters)
    assert round(parameters.total(widths)) == counted


@given(plans(), plans())
def test_a_wider_plan_takes_no_less(
    one: tuple[np.ndarray, frozenset[int]], other: tuple[np.ndarray, frozenset[int]]
) -> None:
    narrow, wide = np.minimum(one[0], other[0]), np.maximum(one[0], other[0])
    peak, file, parameters = planner()
    assert peak.peak_bytes(narrow) <= peak.peak_bytes(wide)
    assert file.bytes_at(narrow) <= file.bytes_at(wide)
    assert parameters.total(narrow) <= parameters.total(wide)


def test_a_forgotten_skip_connection_is_seen() -> None:
    """Planted: the sum that needs `b` so late is read as if it did not."""
    model = shipped_graph(net())
    add = next(n for n in model.graph if n.op_type == "Add" and n.outputs[0].name == "g")
    skip = next(i for i, v in enumerate(add.inputs) if v is not None and v.producer() is not None and v.name != "f")
    add.replace_input_with(skip, next(v for v in add.inputs if v is not None and v.name == "f"))
    forgetful = moments(net(), dataclasses.replace(dense(), model=model))
    wide = np.array([family.width if family.width == 12 else 1 for family in net().families])
    assert forgetful.peak_bytes(wide) < planner()[0].peak_bytes(wide)


def test_only_moments_that_can_be_the_peak_are_kept() -> None:
    peak, _, _ = planner()
    assert 1 <= len(peak.nodes) < len(list(dense().model.graph)) / 2
    assert peak.bytes_at(np.array([f.width for f in net().families])).shape == (len(peak.nodes),)


@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=1, max_size=12))
def test_nothing_that_is_dropped_could_have_been_the_peak(rows: list[list[int]]) -> None:
    array = np.array(rows, np.float64)
    kept = array[_undominated(array)]
    generator = np.random.default_rng(0)
    for _ in range(5):
        point = np.array([1.0, *generator.integers(0, 50, 2)])
        assert (array @ point).max() == (kept @ point).max()
    for i, row in enumerate(kept):
        assert not any((other >= row).all() for j, other in enumerate(kept) if j != i)


def test_widths_of_another_net() -> None:
    peak, _, parameters = planner()
    for ask in (peak.peak_bytes, parameters.total):
        with pytest.raises(ValueError, match=r"widths has the shape \(2,\), there are 3 families"):
            ask(np.array([1, 2]))


def test_weights_say_which_families_sit_on_which_axis() -> None:
    _, file, _ = planner()
    terms = file.weights
    linear = terms.per_unit[terms.names.index("w5")]
    third = next(i for i, family in enumerate(net().families) if family.width == 10)
    assert linear[0, third] == 64  # 64 rows for every channel
    assert np.count_nonzero(linear) == 1
    assert terms.scale[terms.names.index("w5")] == 4
