"""Graphs as nobody would write them: what they hold, hide or are called must not change what they say."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from edgeslim.errors import ConfigError, UnsupportedGraphError
from edgeslim.exporter.precision import (
    Calibration,
    Fp16Options,
    Int8Options,
    Sample,
    compare_layers,
    measure_deviation,
    open_calibration,
    quantize,
    to_float16,
)
from edgeslim.exporter.precision.deviation import Difference
from edgeslim.exporter.precision.int8.bias import correct_bias
from edgeslim.exporter.precision.int8.equalize import equalize
from edgeslim.exporter.precision.int8.layers import find_layers
from edgeslim.exporter.precision.movers import sources
from edgeslim.exporter.precision.ranges import measure_sums

from .precise import graph, operators

RNG = np.random.default_rng(0)
MINMAX = Int8Options(method="minmax", correct_bias=False)
IMAGES = RNG.standard_normal((6, 4, 8, 8)).astype(np.float32)
ROWS = RNG.standard_normal((6, 6)).astype(np.float32)


def head(opset: int = 20) -> str:
    return f'<ir_version: 10, opset_import: ["" : {opset}]>'


def numbers(*shape: int, size: float = 1.0) -> NDArray[np.float32]:
    return (RNG.standard_normal(shape) * size).astype(np.float32)


def net(
    body: str, output: str = "float[n, c, h, w] y", opset: int = 20, inputs: str = "", **arrays: NDArray[np.generic]
) -> ir.Model:
    return graph(f"{head(opset)} g (float[n, 4, 8, 8] x{inputs}) => ({output}) {{ {body} }}", arrays)


def of_rows(body: str, **arrays: NDArray[np.generic]) -> ir.Model:
    return graph(f"{head()} g (float[n, 6] x) => (float[n, k] y) {{ {body} }}", arrays)


def furthest(model: ir.Model, variant: ir.Model, opened: Calibration) -> float:
    onnx.checker.check_model(ir.to_proto(variant), full_check=True)
    return max(off.relative_rms for off in measure_deviation(model, variant, opened))


def halved(model: ir.Model, samples: list[Sample]) -> float:
    opened = open_calibration(model, samples)
    return furthest(model, to_float16(model, opened).model, opened)


POINT = {"w": numbers(4, 4, 1, 1), "w2": numbers(4, 4, 1, 1)}

# --- float16: nothing may overflow unseen ---


@pytest.mark.parametrize("size, weight", [(1e5, 1e-5), (1e-7, 1e4)])
def test_inputs_that_float16_does_not_hold_make_islands(size: float, weight: float) -> None:
    model = net("a = Conv (x, w) y = Conv (a, w2)", w=numbers(4, 4, 1, 1, size=weight), w2=POINT["w2"])
    opened = open_calibration(model, [IMAGES * np.float32(size)])
    made = to_float16(model, opened)
    assert made.islands[0].value == "a" and made.islands[0].reason.startswith(("x reaches", "x is too small"))
    assert furthest(model, made.model, opened) < 5e-3


def test_a_cast_to_a_number_beyond_float16_is_an_island() -> None:
    model = net(
        "s = Cast <to = 1> (k) t = Mul (s, small) u = Reshape (t, sh) y = Add (x, u)",
        inputs=", int64[n] k", small=np.float32([1e-5]), sh=np.array([-1, 1, 1, 1]),
    )  # fmt: skip
    assert halved(model, [{"x": IMAGES, "k": np.full(6, 100_000)}]) < 5e-3


def test_what_a_dq_says_may_be_beyond_float16() -> None:
    model = net("b = Mul (x, big) a = Conv (b, w) y = Conv (a, w2)", big=np.float32([1e5]),
                w=numbers(4, 4, 1, 1, size=1e-3), w2=POINT["w2"])  # fmt: skip
    opened = open_calibration(model, [IMAGES])
    int8 = quantize(model, opened, Int8Options(method="minmax", int8_weights=True)).model
    both = to_float16(int8, opened)
    assert "DequantizeLinear" in [island.operator for island in both.islands]
    assert furthest(model, both.model, opened) < 0.1


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 20])
def test_sums_are_measured_in_every_opset(opset: int) -> None:
    """ReduceSum took its axes as an input five opsets before ReduceL1 did."""
    axes = "<keepdims = 0, axes = [2, 3]> (x)" if opset < 13 else "<keepdims = 0> (x, ax)"
    extra = {} if opset < 13 else {"ax": np.array([2, 3])}
    model = net(f"y = ReduceSum {axes}", "float[n, 4] y", opset, **extra)
    (sums,) = measure_sums(model, open_calibration(model, [IMAGES])).values()
    assert sums == pytest.approx(np.abs(IMAGES).sum(axis=(2, 3)).max(), rel=1e-5)


def test_sums_of_whole_numbers_are_left_alone() -> None:
    model = net("s = Shape (x) t = ReduceSum <keepdims = 1> (s, ax) u = Cast <to = 1> (t) y = Div (x, u)",
                ax=np.array([0]))  # fmt: skip
    assert halved(model, [IMAGES]) < 5e-3


def test_sums_of_windows_and_of_negative_factors_count() -> None:
    model = net("y = AveragePool <kernel_shape = [8, 8]> (x)")
    (sums,) = measure_sums(model, open_calibration(model, [IMAGES])).values()
    assert sums == pytest.approx(np.abs(IMAGES).sum(axis=(2, 3)).max(), rel=1e-5)
    w, b = numbers(6, 5), numbers(5)
    model = of_rows("y = Gemm <alpha = -2.0, beta = 3.0> (x, w, b)", w=w, b=b)
    (sums,) = measure_sums(model, open_calibration(model, [ROWS])).values()
    assert sums == pytest.approx((2 * np.abs(ROWS) @ np.abs(w) + 3 * np.abs(b)).max(), rel=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "s = SplitToSequence <axis = 1> (x) k = ConcatFromSequence <axis = 1> (s) y = Conv (k, w)",
        "a = Conv (x, w) s = SequenceConstruct (a, x) k = SequenceAt (s, one) y = Conv (k, w)",
        "r = RandomNormal <shape = [4, 1, 1], seed = 1.0> () z = Mul (r, zero) y = Add (x, z)",
    ],
)
def test_sequences_and_drawn_numbers_become_valid_graphs(body: str) -> None:
    arrays = {"w": POINT["w"], "one": np.array(1), "zero": np.float32([0])}
    model = net(body, **{n: a for n, a in arrays.items() if f"{n})" in body})
    opened = open_calibration(model, [IMAGES])
    variant = to_float16(model, opened).model
    assert furthest(model, variant, opened) < 5e-3
    compare_layers(model, variant, opened)


def test_a_graph_without_floats_has_nothing_to_convert() -> None:
    model = graph(f"{head()} g (int64[n, 9] x) => (int64[n, 9] y) {{ y = Add (x, m) }}", {"m": np.array([5])})
    opened = open_calibration(model, [np.arange(18).reshape(2, 9)])
    variant = to_float16(model, opened).model
    assert operators(variant) == ["Add"]
    assert compare_layers(model, variant, opened).describe() == "no value could be compared"


# --- outputs that are something else, too ---


def test_weights_that_are_outputs_stay_what_they_are() -> None:
    model = net("a = Conv (x, w, b) r = Relu (a) y = Conv (r, w2)",
                "float[n, c, h, w] y, float[4, 4, 1, 1] w, float[4] b", b=numbers(4), **POINT)  # fmt: skip
    opened = open_calibration(model, [IMAGES])
    every = frozenset({"y", "w", "b"})
    for options in (Fp16Options(), Fp16Options(outputs=every)):
        assert furthest(model, to_float16(model, opened, options).model, opened) < 5e-3
    int8 = quantize(model, opened, MINMAX).model
    corrected, shifts = correct_bias(model, int8, find_layers(model)[0], opened)
    assert shifts["a"] > 0
    for variant in (int8, corrected):
        exact = {off.output: off.max_abs for off in measure_deviation(model, variant, opened)}
        assert exact["w"] == exact["b"] == 0


def test_an_input_that_is_an_output_keeps_its_name_and_type() -> None:
    model = net("y = Conv (x, w)", "float[n, 4, 8, 8] y, float[n, 4, 8, 8] x", w=POINT["w"])
    opened = open_calibration(model, [IMAGES])
    options = Int8Options(placement="onnxruntime", quantize_outputs=True, correct_bias=False)
    variant = quantize(model, opened, options).model
    assert [v.name for v in variant.graph.inputs] == ["x"] and furthest(model, variant, opened) < 0.05
    with pytest.raises(ConfigError, match="'x' is an input"):
        to_float16(model, opened, Fp16Options(outputs=frozenset({"x"})))


def test_places_of_maxima_are_no_bytes() -> None:
    model = net("a = Conv (x, w) p, i = MaxPool <kernel_shape = [2, 2]> (a) y = Conv (p, w2)",
                "float[n, c, h, w] y, int64[n, c, h2, w3] i", **POINT)  # fmt: skip
    opened = open_calibration(model, [IMAGES])
    options = Int8Options(placement="onnxruntime", quantize_outputs=True, correct_bias=False)
    variant = quantize(model, opened, options).model
    assert all("i" not in [v.name for v in n.inputs if v] for n in variant.graph)
    onnx.checker.check_model(ir.to_proto(variant), full_check=True)


# --- int8 ---


def test_a_weight_with_two_axes_of_outputs_is_stored_twice() -> None:
    model = net("a = Conv (x, w) y = ConvTranspose (a, w)", w=POINT["w"])
    opened = open_calibration(model, [IMAGES])
    made = quantize(model, opened, Int8Options(int8_weights=True, method="minmax", correct_bias=False))
    assert "w" not in made.model.graph.initializers and furthest(model, made.model, opened) < 0.05


@pytest.mark.parametrize("placement", ["tensorrt", "onnxruntime"])
def test_products_alone_have_no_biases_to_correct(placement: str) -> None:
    model = of_rows("a = MatMul (x, w) r = Relu (a) y = MatMul (r, w2)", w=numbers(6, 5), w2=numbers(5, 5))
    opened = open_calibration(model, [ROWS])
    made = quantize(model, opened, Int8Options(placement=placement, method="minmax"))
    assert made.correction is not None and not made.correction.kept
    assert furthest(model, made.model, opened) < 0.05


def test_biases_of_one_number_and_of_a_factor() -> None:
    model = of_rows("a = Gemm (x, w, b) r = Relu (a) y = Gemm <beta = 0.5> (r, w2)",
                    w=numbers(6, 5), b=numbers(1), w2=numbers(5, 5))  # fmt: skip
    opened = open_calibration(model, [ROWS])
    int8 = quantize(model, opened, MINMAX).model
    corrected, shifts = correct_bias(model, int8, find_layers(model)[0], opened)
    assert set(shifts) == {"a"}  # what is added to the second would be halved
    assert furthest(model, corrected, opened) < 0.05


def test_constants_in_nodes_and_values_without_types_are_no_hindrance() -> None:
    weight = onnx.numpy_helper.from_array(POINT["w"], "value")
    proto = onnx.parser.parse_model(f"{head()} g (float[n, 4, 8, 8] x) => (float[n, k] y) "
                                    "{ c = Conv (x, w) r = Relu (c) f = Flatten (r) y = Gemm (f, m) }")  # fmt: skip
    proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=weight))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(numbers(256, 5), "m"))
    model = ir.from_proto(proto)
    assert model.graph[1].outputs[0].type is None
    opened = open_calibration(model, [IMAGES])
    made = quantize(model, opened)
    assert made.layers == ("w", "m")
    assert [layer.value for layer in compare_layers(model, made.model, opened).layers] == ["c", "r", "f", "y"]


def test_weights_that_are_no_numbers_stay_in_float() -> None:
    spoilt = POINT["w2"].copy()
    spoilt[0, 0] = np.nan
    _, declined = find_layers(net("a = Conv (x, w) y = Conv (a, w2)", w=POINT["w"], w2=spoilt))
    assert [d.reason for d in declined] == ["its weight has values that are NaN or infinite"]


def test_activations_at_the_edge_of_float32_have_a_range() -> None:
    model = net("z = Mul (x, t) a = Conv (z, w) y = Conv (a, w2)", t=np.float32([1e-37]), **POINT)
    scales = quantize(model, open_calibration(model, [IMAGES]), MINMAX).scales
    assert all(np.float32(scale.scale) > 0 for scale in scales.values())


def test_a_weight_to_keep_that_is_none_is_told_with_those_there_are() -> None:
    model = net("y = Conv (x, w)", w=POINT["w"])
    with pytest.raises(UnsupportedGraphError, match="'gone'") as caught:
        quantize(model, open_calibration(model, [IMAGES]), Int8Options(keep_float=frozenset({"gone"})))
    assert "as w" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "names",
    [
        {"a": "mean/0", "r": "a/sum", "c": "mean/size/1", "w": "a b/ü:0", "w2": "x/scale"},
        {"a": "x/quantized", "r": "x/quantized/sum", "c": "x/quantized/absolute", "w": "x/dequantized"},
        {"a": "sums/0", "r": "elements/0", "c": "mean/axes/0", "w": "elements/1"},
    ],
)
def test_names_may_be_those_that_are_used_here(names: dict[str, str]) -> None:
    model = net("a = Conv (x, w) r = Relu (a) c = Conv (r, w2) y = Add (c, r)", **POINT)
    for value in (*model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs)):
        value.name = names.get(value.name or "", value.name)
    opened = open_calibration(model, [IMAGES])
    assert furthest(model, to_float16(model, opened).model, opened) < 5e-3
    assert furthest(model, quantize(model, opened, Int8Options(method="minmax")).model, opened) < 0.05


# --- equalisation: sizes that agree by chance ---


@pytest.mark.parametrize(
    "body, shapes",
    [
        ("a = Conv (x, w) r = Relu (a) y = MatMul (r, m)", {"w": (8, 4, 1, 1), "m": (8, 3)}),
        ("a = MatMul (x, m) y = Conv (a, w)", {"m": (8, 4), "w": (3, 4, 1, 1)}),
    ],
)
def test_factors_do_not_pass_to_a_layer_that_sums_over_another_axis(body: str, shapes: dict[str, tuple[int]]) -> None:
    spread = {"w": np.float32([1, 9, 0.1, 3]).reshape(4, 1, 1), "m": np.linspace(0.1, 9, 8, dtype=np.float32)[:, None]}
    model = net(body, **{n: numbers(*s) * spread[n] for n, s in shapes.items()})
    made = equalize(model)
    assert not made.pairs and "another axis" in " ".join(d.reason for d in made.declined)
    assert furthest(model, made.model, open_calibration(model, [IMAGES])) == 0


def test_factors_do_not_pass_to_a_layer_that_reads_it_transposed() -> None:
    model = graph(f"{head()} g (float[5, 5] x) => (float[5, 5] y) {{ a = Gemm (x, w) y = Gemm <transA = 1> (a, w2) }}",
                  {"w": numbers(5, 5), "w2": numbers(5, 5)})  # fmt: skip
    assert not equalize(model).pairs


# --- what is compared, and on what ---


def test_references_that_are_no_numbers_are_infinitely_far() -> None:
    for wrong in (np.nan, np.inf):
        off = Difference()
        off.add(np.float32([1, 2]), np.float32([1, wrong]))
        assert np.isinf(off.max_abs) and np.isinf(off.relative_rms)


def test_the_image_leads_whatever_comes_beside_it() -> None:
    text = f"""{head()} g (uint8[n, 8, 8, 4] frame, float[n, 1] gain, float bias) => (float[n, 8, 8, 4] y)
    {{ p = Cast <to = 1> (frame) k = Reshape (gain, sh) m = Mul (p, k) y = Add (m, bias) }}"""
    model = graph(text, {"sh": np.array([-1, 1, 1, 1])})
    frames = RNG.integers(0, 256, (6, 8, 8, 4), dtype=np.uint8)
    opened = open_calibration(
        model, [{"frame": frames, "gain": np.full((6, 1), 0.1, np.float32), "bias": np.array(1, np.float32)}]
    )
    assert opened.images == 6 and opened.feeds[0]["frame"].shape == (1, 8, 8, 4)


def test_ways_that_part_and_meet_again_are_gone_once() -> None:
    body = " ".join(f"v{i + 1} = Concat <axis = 1> (v{i}, v{i})" for i in range(40))
    model = ir.from_proto(onnx.parser.parse_model(f"{head()} g (float[1, 1] v0) => (float[1, k] v40) {{ {body} }}"))
    assert sources(model.graph.outputs[0]) == {"v0"}


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    placement=st.sampled_from(["tensorrt", "onnxruntime"]),
    method=st.sampled_from(["minmax", "mse", "entropy", "percentile"]),
    join=st.sampled_from(["Add (b, a)", "Add (b, s)", "Concat <axis = 1> (a, b)"]),
    kind=st.sampled_from(["Relu", "Sigmoid", "LeakyRelu"]),
)
def test_a_deviation_is_that_of_the_q_and_dq_in_numpy(
    seed: int, placement: str, method: str, join: str, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    shapes = {"w": (4, 4, 3, 3), "w2": (4, 4, 1, 1), "w3": (3, 8 if "Concat" in join else 4, 1, 1)}
    model = net(f"s = Conv <pads = [1, 1, 1, 1]> (x, w) a = {kind} (s) b = Conv (a, w2) j = {join} y = Conv (j, w3)",
                **{n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()})  # fmt: skip
    opened = open_calibration(model, [rng.standard_normal((2, 4, 8, 8)).astype(np.float32)])
    variant = quantize(model, opened, Int8Options(placement=placement, method=method, correct_bias=False)).model
    exact, low = (ReferenceEvaluator(ir.to_proto(each)) for each in (model, variant))
    wanted, seen = (np.stack([each.run(None, dict(f))[0] for f in opened.feeds]) for each in (exact, low))
    rms = float(np.linalg.norm(seen - wanted) / np.linalg.norm(wanted))
    assert furthest(model, variant, opened) == pytest.approx(rms, rel=0.02) and rms > 1e-4
