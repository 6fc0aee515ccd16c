"""Costs: multiply-accumulates, parameters and bytes, against the textbook's formulas."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeslim.errors import ExportError
from edgeslim.exporter.cost import LayerCost, count_macs, count_parameters, count_weight_bytes, layer_costs


def graph(text: str, **shapes: tuple[int, ...]) -> ir.Model:
    """A graph with float initializers of these shapes."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]>\n{text}')
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


CONV = "net (float[n, 4, h, w] x) => (float[n, 6, i, j] y) { y = Conv <%s> (x, weight) }"


@pytest.mark.parametrize(
    ("attributes", "weight", "image", "macs"),
    [
        ("pads = [1, 1, 1, 1]", (6, 4, 3, 3), (1, 4, 8, 10), 8 * 10 * 6 * 4 * 9),
        ("pads = [1, 1, 1, 1]", (6, 4, 3, 3), (3, 4, 8, 10), 3 * 8 * 10 * 6 * 4 * 9),
        ("strides = [2, 2]", (6, 4, 3, 3), (1, 4, 9, 9), 4 * 4 * 6 * 4 * 9),
        ("group = 2", (6, 2, 1, 1), (1, 4, 8, 8), 64 * 6 * 2),
        ("group = 4", (8, 1, 3, 3), (1, 4, 6, 6), 16 * 8 * 9),
        ("dilations = [2, 2]", (6, 4, 3, 3), (1, 4, 8, 8), 4 * 4 * 6 * 4 * 9),
    ],
)
def test_a_convolution(attributes: str, weight: tuple[int, ...], image: tuple[int, ...], macs: int) -> None:
    model = graph((CONV % attributes).replace("n, 6", f"n, {weight[0]}"), weight=weight)
    assert count_macs(model, image) == macs
    (cost,) = layer_costs(model, image)
    assert cost == LayerCost(layer="y", weight="weight", positions=macs // int(np.prod(weight)))


def test_a_transposed_convolution_works_on_its_input_pixels() -> None:
    text = "net (float[n, 4, h, w] x) => (float[n, 6, i, j] y) { y = ConvTranspose <strides = [2, 2]> (x, weight) }"
    assert count_macs(graph(text, weight=(4, 6, 2, 2)), (2, 4, 5, 7)) == 2 * 5 * 7 * 4 * 6 * 4


@pytest.mark.parametrize(
    ("text", "weight", "macs"),
    [
        ("{ y = Gemm (x, weight) }", (7, 5), 3 * 7 * 5),
        ("{ y = Gemm <transB = 1> (x, weight) }", (5, 7), 3 * 7 * 5),
        ("{ y = MatMul (x, weight) }", (7, 5), 3 * 7 * 5),
        ("{ w = Transpose <perm = [1, 0]> (weight) y = MatMul (x, w) }", (5, 7), 3 * 7 * 5),
    ],
)
def test_a_linear_layer(text: str, weight: tuple[int, ...], macs: int) -> None:
    model = graph(f"net (float[n, 7] x) => (float[n, 5] y) {text}", weight=weight)
    assert count_macs(model, (3, 7)) == macs
    assert layer_costs(model, (3, 7))[0].weight == "weight"


def test_a_product_of_two_activations_is_no_layer() -> None:
    model = graph("net (float[n, 4, 4] x) => (float[n, 4, 4] y) { y = MatMul (x, x) }")
    assert layer_costs(model, (1, 4, 4)) == ()
    assert count_macs(model, (1, 4, 4)) == 0


def test_the_shipped_form_reads_frames() -> None:
    text = """net (uint8[n, h, w, 3] x) => (float[n, 2, h, w] y)
    { a = Cast <to = 1> (x) b = Transpose <perm = [0, 3, 1, 2]> (a) y = Conv (b, weight) }"""
    assert count_macs(graph(text, weight=(2, 3, 1, 1)), (1, 6, 8, 3)) == 6 * 8 * 6


def test_a_shape_that_the_forward_computes_is_known_all_the_same() -> None:
    text = """net (float[n, 4, h, w] x) => (float[n, 2, i, j] y)
    {
      s = Shape <start = 2> (x)
      two = Constant <value = int64[1] {2}> ()
      half = Div (s, two)
      head = Shape <start = 0, end = 2> (x)
      size = Concat <axis = 0> (head, half)
      none = Constant <value = float[0] {}> ()
      small = Resize (x, none, none, size)
      y = Conv (small, weight)
    }"""
    assert count_macs(graph(text, weight=(2, 4, 1, 1)), (1, 4, 8, 12)) == 4 * 6 * 8


def test_counting_leaves_the_graph_alone() -> None:
    model = graph(CONV % "pads = [1, 1, 1, 1]", weight=(6, 4, 3, 3))
    before = ir.to_proto(model).SerializeToString()
    count_macs(model, (1, 4, 8, 8))
    assert ir.to_proto(model).SerializeToString() == before


def test_a_size_the_graph_does_not_take() -> None:
    model = graph(CONV % "group = 1", weight=(6, 4, 3, 3))
    for shape in ((1, 3, 8, 8), (1, 4, 2, 2), (1, 4, 8)):
        with pytest.raises(ExportError, match=r"does not run on an input of shape \(1, "):
            count_macs(model, shape)


def test_parameters_leave_out_statistics_and_constants() -> None:
    text = """net (float[n, 3, h, w] x) => (float[n, 4, h, w] y)
    { a = Conv (x, weight, bias) b = BatchNormalization (a, scale, shift, mean, variance) y = Mul (b, constant) }"""
    names = ("bias", "scale", "shift", "mean", "variance")
    model = graph(text, weight=(4, 3, 1, 1), constant=(4, 1, 1), **dict.fromkeys(names, (4,)))
    assert count_parameters(model, {"weight", *names}) == 12 + 3 * 4
    assert count_parameters(model, {"weight", "elsewhere"}) == 12
    assert count_weight_bytes(model) == 4 * (12 + 4 + 5 * 4)
