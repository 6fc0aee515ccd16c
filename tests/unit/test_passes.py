"""Passes: pure, repeatable, and each as exact as it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeslim.errors import ExportError
from edgeslim.exporter.channels import analyze
from edgeslim.exporter.export import normalize, runner_from_graph
from edgeslim.exporter.passes import simplify as simplifier
from edgeslim.exporter.passes.embed_preprocess import FRAME, embed_preprocess
from edgeslim.exporter.passes.fold_constants import fold_constants
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.passes.simplify import simplify

TRACED = """
net (float[n, 3, h, w] x) => (float[n, 4, h, w] y)
{
  width = Shape <start = 0, end = 1> (weight)
  zero = Constant <value = float[1] {0.0}> ()
  like = CastLike (zero, x)
  bias = Expand (like, width)
  a = Conv <pads = [1, 1, 1, 1]> (x, weight, bias)
  b = Identity (a)
  c = BatchNormalization (b, scale, shift, mean, variance)
  one = Constant <value_int = 1> ()
  halves = SplitToSequence <axis = 1> (c, two)
  none = Constant <value_int = 0> ()
  left = SequenceAt (halves, none)
  right = SequenceAt (halves, one)
  sum = Add (right, left)
  joined = Concat <axis = 1> (left, sum)
  y = Relu (joined)
}
"""
PLAIN = """
net (float[n, 3, h, w] x) => (float[n, 4, h, w] y, float[n, 4, 1, 1] z)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, weight)
  b = BatchNormalization (a, scale, shift, mean, variance)
  y = Relu (b)
  z = GlobalAveragePool (y)
}
"""
BLOCKS = """
net (float[n, 3, h, w] x) => (float[n, 2, h, w] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, weight)
  b = Relu (a)
  left, right = Split <axis = 1> (b, sizes)
  c = Conv (right, middle)
  d = Concat <axis = 1> (left, c)
  e = Relu (d)
  y = Conv (e, head)
}
"""


def graph(text: str, **arrays: NDArray[np.generic]) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]>\n{text}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def parameters() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    vectors = {n: rng.uniform(0.5, 1.5, 4).astype(np.float32) for n in ("scale", "shift", "mean", "variance")}
    return {"weight": rng.standard_normal((4, 3, 3, 3), np.float32), **vectors}


def traced() -> ir.Model:
    return graph(TRACED, two=np.array([2, 2]), **parameters())


def plain() -> ir.Model:
    return graph(PLAIN, **parameters())


def text(model: ir.Model) -> str:
    return onnx.printer.to_text(ir.to_proto(model))


def data(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString()


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


IMAGES = np.random.default_rng(1).standard_normal((2, 3, 6, 8), np.float32)


def same(a: ir.Model, b: ir.Model, tolerance: float = 0.0) -> None:
    for seen, wanted in zip(runner_from_graph(a)(IMAGES), runner_from_graph(b)(IMAGES), strict=True):
        np.testing.assert_allclose(seen, wanted, rtol=tolerance, atol=tolerance)


# --- fold_constants --------------------------------------------------------------------------------------------


def test_folding_leaves_the_parameters_and_drops_the_chains() -> None:
    model = traced()
    before = data(model)
    folded = fold_constants(model)
    assert data(model) == before
    assert set(operators(folded)) == {"Conv", "BatchNormalization", "Split", "Add", "Concat", "Relu"}
    for name, array in parameters().items():
        value = folded.graph.initializers[name].const_value
        assert value is not None
        np.testing.assert_array_equal(value.numpy(), array)
    bias = folded.graph.node(0).inputs[2]
    assert bias is not None and bias.is_initializer() and bias.const_value is not None
    assert bias.const_value.numpy().tolist() == [0.0] * 4
    same(folded, model, 1e-4)


def test_what_reads_a_parameter_is_not_folded() -> None:
    """A folded parameter would lose the name that ties it to its module; its shape may be folded all the same."""
    net = """
    net (float[n, 3] x) => (float[n, 5] y)
    {
      turned = Transpose <perm = [1, 0]> (layer)
      two = Constant <value = float {2.0}> ()
      scaled = Mul (gain, two)
      a = MatMul (x, turned)
      width = Shape <start = 0, end = 1> (layer)
      one = Constant <value = float[1] {1.0}> ()
      shift = Expand (one, width)
      b = Add (a, shift)
      y = Mul (b, scaled)
    }
    """
    rng = np.random.default_rng(0)
    own = {"layer": rng.standard_normal((5, 3), np.float32), "gain": rng.standard_normal(5, np.float32)}
    folded = fold_constants(graph(net, **own))
    assert sorted(operators(folded)) == ["Add", "MatMul", "Mul", "Mul", "Transpose"]
    for name, array in own.items():
        value = folded.graph.initializers[name].const_value
        assert value is not None
        np.testing.assert_array_equal(value.numpy(), array)


@pytest.mark.parametrize("build", [traced, plain])
def test_folding_twice_is_folding_once(build: Callable[[], ir.Model]) -> None:
    once = fold_constants(build())
    assert text(fold_constants(once)) == text(once)


# --- embed_preprocess ------------------------------------------------------------------------------------------

STATISTICS = st.tuples(*[st.floats(0.05, 0.95)] * 3)


@settings(max_examples=10)
@given(STATISTICS, STATISTICS)
def test_the_embedded_normalisation_equals_numpys(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    identity = graph("net (float[n, 3, h, w] x) => (float[n, 3, h, w] y) { y = Identity (x) }")
    frames = np.arange(2 * 16 * 8 * 3, dtype=np.uint8).reshape(2, 16, 8, 3)
    (seen,) = runner_from_graph(embed_preprocess(identity, mean, std))(frames)
    np.testing.assert_allclose(seen, normalize(frames, mean, std), rtol=1e-5, atol=1e-5)


def test_the_net_reads_frames_and_nothing_else_changes() -> None:
    model = plain()
    before = data(model)
    mean, std = (0.5, 0.25, 0.125), (0.25, 0.5, 1.0)
    shipped = embed_preprocess(model, mean, std)
    assert data(model) == before
    (frame,) = shipped.graph.inputs
    assert (frame.name, frame.dtype) == (FRAME, ir.DataType.UINT8)
    assert [d if isinstance(d, int) else d.value for d in frame.shape or ()] == ["n", "h", "w", 3]
    assert [v.name for v in shipped.graph.outputs] == ["y", "z"]
    assert operators(shipped) == ["Cast", "Mul", "Add", "Transpose", *operators(model)]
    onnx.checker.check_model(ir.to_proto(shipped), full_check=True)
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), np.uint8)
    seen, wanted = runner_from_graph(shipped)(frames), runner_from_graph(model)(normalize(frames, mean, std))
    for a, b in zip(seen, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_border_sees_zero_and_not_the_shift() -> None:
    """With zero padding, a mean folded into the first convolution would be wrong along the border."""
    weight = np.ones((1, 3, 3, 3), np.float32)
    model = graph(
        "net (float[n, 3, h, w] x) => (float[n, 1, h, w] y) { y = Conv <pads = [1, 1, 1, 1]> (x, weight) }",
        weight=weight,
    )
    shipped = embed_preprocess(model, (0.5,) * 3, (0.5,) * 3)
    (seen,) = runner_from_graph(shipped)(np.zeros((1, 4, 4, 3), np.uint8))  # black is -1 in every colour
    assert seen[0, 0].tolist() == [
        [-12, -18, -18, -12],
        [-18, -27, -27, -18],
        [-18, -27, -27, -18],
        [-12, -18, -18, -12],
    ]


@pytest.mark.parametrize(
    ("net", "said"),
    [
        ("net (float[n, 1, h, w] x) => (float[n, 1, h, w] y) { y = Relu (x) }", "images of 1 channels, the prep"),
        ("net (float[n, 3] x) => (float[n, 3] y) { y = Relu (x) }", r"inputs \['x'\] are not one image batch"),
        (
            "net (float[n, 3, h, w] x, float[n, 3, h, w] k) => (float[n, 3, h, w] y) { y = Add (x, k) }",
            r"inputs \['x', 'k'\] are not one image batch",
        ),
    ],
)
def test_what_takes_no_frames(net: str, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        embed_preprocess(graph(net), (0.0,) * 3, (1.0,) * 3)


def test_a_net_that_returns_its_image_works() -> None:
    empty = graph(
        "net (float[n, 3, h, w] x) => (float[n, 3, h, w] y, float[n, 3, h, w] z) { y = Relu (x) z = Neg (x) }"
    )
    frames = np.full((1, 2, 2, 3), 255, np.uint8)
    seen = runner_from_graph(embed_preprocess(empty, (0.0,) * 3, (1.0,) * 3))(frames)
    np.testing.assert_allclose(seen[0], np.ones((1, 3, 2, 2)), rtol=1e-6)
    np.testing.assert_allclose(seen[1], -np.ones((1, 3, 2, 2)), rtol=1e-6)


# --- simplify --------------------------------------------------------------------------------------------------


def refuse(proto: onnx.ModelProto) -> onnx.ModelProto:
    raise RuntimeError("planted: gives up\nwith details nobody needs")


def break_model(proto: onnx.ModelProto) -> onnx.ModelProto:
    broken = onnx.ModelProto()
    broken.CopyFrom(proto)
    broken.graph.node[0].op_type = "NoSuchOperator"
    return broken


def test_batch_norms_are_fused_and_the_outputs_stay() -> None:
    model = plain()
    before = data(model)
    result = simplify(model)
    assert (result.tool, result.problems) == ("onnxsim", ())
    assert data(model) == before
    assert "BatchNormalization" not in operators(result.model)
    assert [v.name for v in result.model.graph.outputs] == ["y", "z"]
    same(result.model, model, 1e-4)


@pytest.mark.parametrize("fault", [refuse, break_model])
def test_onnxslim_takes_over(fault: Callable[..., onnx.ModelProto], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplifier, "_onnxsim", fault)
    result = simplify(plain())
    assert result.tool == "onnxslim"
    assert len(result.problems) == 1 and result.problems[0].startswith("onnxsim: ")
    assert "\n" not in result.problems[0]
    assert [v.name for v in result.model.graph.outputs] == ["y", "z"]
    same(result.model, plain(), 1e-4)


def test_where_both_give_up_the_graph_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplifier, "_onnxsim", refuse)
    monkeypatch.setattr(simplifier, "_onnxslim", refuse)
    model = plain()
    result = simplify(model)
    assert result.tool == "none"
    assert result.problems == ("onnxsim: planted: gives up", "onnxslim: planted: gives up")
    assert result.model is not model
    assert text(result.model) == text(model)


# --- remove_channels -------------------------------------------------------------------------------------------


def blocks() -> ir.Model:
    rng = np.random.default_rng(0)
    return graph(
        BLOCKS,
        weight=rng.standard_normal((8, 3, 3, 3), np.float32),
        sizes=np.array([3, 5]),
        middle=rng.standard_normal((4, 5, 1, 1), np.float32),
        head=rng.standard_normal((2, 7, 1, 1), np.float32),
    )


def test_an_empty_cut_changes_nothing() -> None:
    model = blocks()
    before = data(model)
    channels = analyze(model)
    assert len(channels.families) == 3
    untouched = remove_channels(model, channels, ())
    assert data(model) == before
    assert [str(onnx.printer.to_text(n)) for n in ir.to_proto(untouched).graph.node] == [
        str(onnx.printer.to_text(n)) for n in ir.to_proto(model).graph.node
    ]
    assert {n: v.const_value.numpy().tobytes() for n, v in untouched.graph.initializers.items()} == {  # type: ignore[union-attr]
        n: v.const_value.numpy().tobytes()  # type: ignore[union-attr]
        for n, v in model.graph.initializers.items()
    }
    same(untouched, model)


def test_removal_leaves_its_graph_alone_and_repeats() -> None:
    model = blocks()
    channels = analyze(model)
    before = data(model)
    cut = {family.units[1].label for family in channels.families}
    compact = remove_channels(model, channels, cut)
    assert data(model) == before
    assert data(remove_channels(model, channels, cut)) == data(compact)
    shapes = {n: tuple(v.shape.numpy()) for n, v in compact.graph.initializers.items() if v.shape is not None}
    sizes = next(n for n in compact.graph if n.op_type == "Split").inputs[1]
    assert sizes is not None and sizes.const_value is not None
    assert sizes.const_value.numpy().tolist() == [2, 4]
    assert {n: shapes[n] for n in ("weight", "middle", "head")} == {
        "weight": (6, 3, 3, 3),
        "middle": (3, 4, 1, 1),
        "head": (2, 5, 1, 1),
    }
    onnx.checker.check_model(ir.to_proto(compact), full_check=True)


def test_a_constant_with_two_readers_is_recounted_for_each() -> None:
    """One `sizes` splits two tensors whose pieces lose different channels: each reader needs its own."""
    rng = np.random.default_rng(0)
    net = """
    net (float[n, 3, h, w] x) => (float[n, 2, h, w] y)
    {
      a = Conv (x, first)
      b = Conv (x, second)
      a0, a1 = Split <axis = 1> (a, sizes)
      b0, b1 = Split <axis = 1> (b, sizes)
      c = Concat <axis = 1> (a1, b0, a0, b1)
      y = Conv (c, head)
    }
    """
    model = graph(
        net,
        first=rng.standard_normal((6, 3, 1, 1), np.float32),
        second=rng.standard_normal((6, 3, 1, 1), np.float32),
        sizes=np.array([2, 4]),
        head=rng.standard_normal((2, 12, 1, 1), np.float32),
    )
    channels = analyze(model)
    members = {
        (m.initializer, i): u.label for f in channels.families for u in f.units for m in u.members for i in m.indices
    }
    cut = {members["first", 0], members["second", 3], members["second", 4]}
    arrays = {n: v.const_value.numpy().copy() for n, v in model.graph.initializers.items()}  # type: ignore[union-attr]
    arrays["first"][0] = arrays["second"][3] = arrays["second"][4] = 0
    compact = remove_channels(model, channels, cut)
    splits = [n.inputs[1] for n in compact.graph if n.op_type == "Split"]
    assert [v.const_value.numpy().tolist() for v in splits] == [[1, 4], [2, 2]]  # type: ignore[union-attr]
    same(compact, graph(net, **arrays), 1e-5)
