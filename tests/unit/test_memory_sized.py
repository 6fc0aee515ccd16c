"""Sizes of values, as written and as fused, and the estimate of the arena beside the real one."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.bench.arena import arena_from_profile
from edgeslim.errors import ExportError
from edgeslim.exporter.memory import as_fused, as_written, estimate_memory, liveness
from edgeslim.runtime.backends.onnxruntime import OnnxRuntimeBackend

HEAD = '<ir_version: 10, opset_import: ["" : 18]>\n'
BLOCKS = """net (float[n, 16, h, w] x) => (float[n, 16, h, w] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, k1)
  b = Relu (a)
  c = Conv <pads = [1, 1, 1, 1]> (b, k2)
  d = Add (b, c)
  e = Relu (d)
  f = Concat <axis = 1> (e, x)
  y = Conv (f, k3)
}"""
KERNELS = {"k1": (16, 16, 3, 3), "k2": (16, 16, 3, 3), "k3": (16, 32, 1, 1)}


def graph(text: str, **shapes: tuple[int, ...]) -> ir.Model:
    proto = onnx.parser.parse_model(HEAD + text)
    generator = np.random.default_rng(0)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def real_bytes(model: ir.Model, shape: tuple[int, ...], folder: Path) -> int:
    """Activations in ONNX Runtime's arena, by its profile."""
    dtype = model.graph.inputs[0].dtype
    feed = np.zeros(shape, np.float32 if dtype is None else dtype.numpy())
    with OnnxRuntimeBackend(ir.to_proto(model).SerializeToString(), profile=folder / "profile") as backend:
        for _ in range(3):
            backend.run({backend.inputs[0].name: feed})
        found = arena_from_profile(json.loads(backend.end_profile().read_bytes()))
    assert found is not None
    return found.activation_bytes


@pytest.mark.parametrize("size", [(1, 16, 24, 40), (2, 16, 8, 8)])
def test_open_sizes_are_those_of_the_run(size: tuple[int, ...]) -> None:
    sized = as_written(graph(BLOCKS, **KERNELS), size)
    one = int(np.prod(size)) * 4
    assert sized.value_bytes == {"a": one, "b": one, "c": one, "d": one, "e": one, "f": 2 * one, "y": one}


def test_shapes_that_a_forward_computes() -> None:
    text = """net (float[n, 4, h, w] x) => (float[n, 4, i, j] y)
    {
      s = Shape <start = 2> (x)
      two = Constant <value = int64[1] {2}> ()
      half = Div (s, two)
      head = Shape <start = 0, end = 2> (x)
      size = Concat <axis = 0> (head, half)
      none = Constant <value = float[0] {}> ()
      small = Resize (x, none, none, size)
      y = Sin (small)
    }"""
    sized = as_written(graph(text), (1, 4, 8, 12))
    assert sized.value_bytes["small"] == 4 * 4 * 6 * 4
    assert (sized.value_bytes["s"], sized.value_bytes["size"]) == (16, 32)


def test_items_of_other_types() -> None:
    text = """net (uint8[n, 8, 8, 3] x) => (float[n, 8, 8, 3] y)
    { a = Cast <to = 10> (x) b = Greater (a, a) c = Cast <to = 11> (b) y = Cast <to = 1> (c) }"""
    sized = as_written(graph(text), (1, 8, 8, 3))
    assert sized.value_bytes == {"a": 192 * 2, "b": 192, "c": 192 * 8, "y": 192 * 4}


def test_a_sequence_holds_its_pieces() -> None:
    text = """net (float[1, 4, 8, 8] x) => (float[1, 2, 8, 8] y)
    {
      a = Sin (x)
      parts = SplitToSequence <axis = 1> (a, two)
      p = SequenceAt (parts, zero)
      y = Sin (p)
    }"""
    model = graph(text)
    for name, array in (("two", np.array(2)), ("zero", np.array(0))):
        model.graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(array, name=name)))
    proto = ir.to_proto(model)
    for node in proto.graph.node:
        assert node.op_type  # the graph is whole
    sized = as_written(ir.from_proto(proto), (1, 4, 8, 8))
    assert sized.value_bytes["parts"] == sized.value_bytes["a"] == 1024
    assert sized.value_bytes["p"] == 512


def test_fusion_keeps_track_of_what_values_hold() -> None:
    model = graph(BLOCKS, **KERNELS)
    fused = as_fused(model, (1, 16, 8, 8))
    written = as_written(model, (1, 16, 8, 8))
    made = [o.name or "" for n in fused.model.graph for o in n.outputs]
    assert len(made) < 10  # the activations are gone
    assert {fused.origin(name) for name in made} <= set(written.value_bytes) | {"x"}
    assert all(v.name in {"x", "y"} for v in (*fused.model.graph.inputs, *fused.model.graph.outputs))


@pytest.mark.parametrize("size", [(1, 16, 24, 40), (1, 16, 64, 64), (3, 16, 16, 16)])
def test_the_arena_is_the_real_one(size: tuple[int, ...], tmp_path: Path) -> None:
    model = graph(BLOCKS, **KERNELS)
    assert estimate_memory(model, size).arena_bytes == real_bytes(model, size, tmp_path)


@st.composite
def tangles(draw: st.DrawFn) -> ir.Model:
    """Vectors that are cut, stretched and joined at random; every one of them is read by somebody."""
    sizes = {"x": 256}
    nodes, names, read = [], list[str](), set[str]()
    for i in range(draw(st.integers(3, 14))):
        name = f"v{i}"
        if i > 1 and draw(st.booleans()):
            a, b = draw(st.lists(st.sampled_from(names), min_size=2, max_size=2, unique=True))
            nodes.append(f"{name} = Concat <axis = 0> ({a}, {b})")
            sizes[name] = sizes[a] + sizes[b]
            read |= {a, b}
        else:
            source = draw(st.sampled_from(["x", *names]))
            sizes[name] = draw(st.integers(1, 40)) * 64
            pad = sizes[name] - sizes[source]
            read.add(source)
            nodes += [f"p{i} = Constant <value = int64[2] {{0, {pad}}}> ()", f"{name} = Pad ({source}, p{i})"]
        names.append(name)
    ends = ", ".join(name for name in names if name not in read)
    nodes.append(f"y = Concat <axis = 0> ({ends})")
    return graph(f"net (float[256] x) => (float[m] y) {{ {' '.join(nodes)} }}")


@settings(max_examples=25)
@given(tangles())
def test_the_arena_of_any_graph_is_the_real_one(model: ir.Model) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert estimate_memory(model, (256,)).arena_bytes == real_bytes(model, (256,), Path(folder))


@pytest.mark.parametrize(
    "outputs",
    ["(float[n, 8, h, w] a, float[n, 8, h, w] y)", "(float[n, 8, h, w] y, float[n, 8, h, w] b, float[n, 8, h, w] a)"],
)
def test_outputs_that_are_read_inside_too(outputs: str, tmp_path: Path) -> None:
    text = f"net (float[n, 8, h, w] x) => {outputs} {{ a = Sin (x) b = Cos (a) c = Sin (b) d = Cos (c) y = Sin (d) }}"
    model, size = graph(text), (1, 8, 32, 32)
    found = estimate_memory(model, size)
    assert found.arena_bytes == real_bytes(model, size, tmp_path)
    assert found.live_bytes == found.arena_bytes


def test_the_input_lives_with_the_caller_to_the_end(tmp_path: Path) -> None:
    text = "net (float[n, 8, h, w] x) => (float[n, 8, h, w] y) { a = Sin (x) b = Cos (a) y = Mul (b, x) }"
    model, size = graph(text), (1, 8, 32, 32)
    assert estimate_memory(model, size).arena_bytes == real_bytes(model, size, tmp_path) == 3 * 8 * 32 * 32 * 4


def test_the_moment_of_the_peak() -> None:
    found = estimate_memory(graph(BLOCKS, **KERNELS), (1, 16, 64, 64))
    assert found.peak is not None
    assert found.peak.bytes == found.live_bytes == sum(life.bytes for life in found.peak.alive)
    assert found.live_bytes <= found.arena_bytes
    assert found.shape == (1, 16, 64, 64)


def test_counting_leaves_the_graph_alone() -> None:
    model = graph(BLOCKS, **KERNELS)
    before = ir.to_proto(model).SerializeToString()
    estimate_memory(model, (1, 16, 8, 8))
    liveness(as_written(model, (1, 16, 8, 8)))
    assert ir.to_proto(model).SerializeToString() == before


def test_a_size_the_graph_does_not_take() -> None:
    for shape in ((1, 3, 8, 8), (1, 16, 8)):
        with pytest.raises(ExportError, match=r"does not run on an input of shape \(1, "):
            as_written(graph(BLOCKS, **KERNELS), shape)
        with pytest.raises(ExportError, match=r"does not run on an input of shape \(1, "):
            estimate_memory(graph(BLOCKS, **KERNELS), shape)


def test_a_graph_that_is_none() -> None:
    model = graph("net (float[n] x) => (float[n] y) { y = Nonsense (x) }")
    with pytest.raises(ExportError, match="does not run"):
        estimate_memory(model, (4,))
