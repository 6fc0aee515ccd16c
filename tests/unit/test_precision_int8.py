"""Scales, thresholds, where Q/DQ pairs go, and what becomes of a whole small net."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import HistogramCollector

from edgeslim.errors import ConfigError, UnsupportedGraphError
from edgeslim.exporter.precision import Int8Options, measure_deviation, open_calibration, quantize, simulate, to_float16
from edgeslim.exporter.precision.int8.histograms import Histogram, count_absolute, measure_histograms
from edgeslim.exporter.precision.int8.layers import find_layers
from edgeslim.exporter.precision.int8.opset import raise_opset
from edgeslim.exporter.precision.int8.scales import (
    dequantize_weight,
    quantize_weight,
    signed_scale,
    unsigned_scale,
    weight_scales,
)
from edgeslim.exporter.precision.int8.thresholds import BY_NAME, cut_range

from .precise import FRAME, NORMALISED, calibrated, drawn, frames, graph, maker, operators, residual

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
PLAIN = Int8Options(correct_bias=False)
FOR_ORT = Int8Options(placement="onnxruntime", correct_bias=False)


def histogram(values: NDArray[np.float32], bins: int = 2048) -> Histogram:
    low, high = float(values.min()), float(values.max())
    largest = max(abs(low), abs(high)) or 1.0
    return Histogram(low=low, high=high, counts=count_absolute(values, largest, bins))


# --- scales ---


@given(st.integers(0, 10**6), st.integers(0, 3), st.floats(1e-6, 1e6))
def test_weights_come_back_within_half_a_step(seed: int, axis: int, size: float) -> None:
    weight = (np.random.default_rng(seed).standard_normal((4, 3, 2, 5)) * size).astype(np.float32)
    scales = weight_scales(weight, axis)
    stored = quantize_weight(weight, scales, axis)
    assert stored.dtype == np.int8 and stored.min() >= -127
    steps = scales.reshape([-1 if i == axis else 1 for i in range(4)])
    assert np.all(np.abs(dequantize_weight(stored, scales, axis) - weight) <= 0.5001 * steps)


@given(st.integers(0, 10**6))
def test_what_was_quantised_once_does_not_change_again(seed: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((4, 6)).astype(np.float32)
    scales = weight_scales(weight, 0)
    once = dequantize_weight(quantize_weight(weight, scales, 0), scales, 0)
    np.testing.assert_array_equal(dequantize_weight(quantize_weight(once, scales, 0), scales, 0), once)


def test_channels_of_zeros_and_nearly_so_have_scales_that_float16_holds() -> None:
    weight = np.float32([[0, 0], [1, -1], [1e-9, 0]])
    scales = weight_scales(weight, 0)
    assert scales[0] == 1 and scales[1] == np.float32(1 / 127) and np.all(scales.astype(np.float16) > 0)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(0, 1))
def test_activations_within_the_range_come_back_within_half_a_step(one: float, other: float, at: float) -> None:
    low, high = sorted((one, other))
    x = low + at * (high - low)
    for scale in (signed_scale(low, high), unsigned_scale(low, high)):
        least, most = (-128, 127) if scale.signed else (0, 255)
        q = np.clip(round(x / scale.scale) + scale.zero_point, least, most)
        # A zero point is a whole number: the far end may lie half a step beyond the last one.
        assert abs((q - scale.zero_point) * scale.scale - x) <= (0.5001 if scale.signed else 1.0001) * scale.scale
        assert least <= scale.zero_point <= most and (scale.zero_point == 0 or not scale.signed)


# --- thresholds ---

NORMAL = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
TAILED = np.concatenate([NORMAL, np.float32([40, -35])])


def test_minmax_takes_all_and_the_others_cut_off_two_outliers() -> None:
    seen = histogram(TAILED)
    assert BY_NAME["minmax"](seen, 127, PLAIN) == 40
    for name, most in (("percentile", 5), ("entropy", 12), ("mse", 30)):  # to mse, 15 squared is a great loss
        assert 2.0 < BY_NAME[name](seen, 127, PLAIN) < most, name


def test_percentile_is_that_of_the_values() -> None:
    options = Int8Options(method="percentile", percentile=99.0)
    wanted = np.percentile(np.abs(NORMAL), 99)
    assert BY_NAME["percentile"](histogram(NORMAL), 127, options) == pytest.approx(wanted, rel=5e-3)


def test_mse_is_at_its_minimum() -> None:
    """Against the error of the values themselves, threshold by threshold."""

    def error(threshold: float) -> float:
        step = threshold / 127
        return float(np.square(TAILED - np.clip(np.rint(TAILED / step), -127, 127) * step).sum())

    found = BY_NAME["mse"](histogram(TAILED), 127, PLAIN)
    assert error(found) <= 1.02 * min(error(t) for t in np.linspace(1, 40, 200))
    assert error(found) < 0.7 * error(40.0)


def test_zeros_of_a_relu_do_not_move_thresholds() -> None:
    values = np.abs(TAILED)
    many = np.concatenate([values, np.zeros(10 * len(values), np.float32)])
    for name in ("mse", "entropy"):
        assert BY_NAME[name](histogram(many), 127, PLAIN) == pytest.approx(BY_NAME[name](histogram(values), 127, PLAIN))


def test_entropy_by_the_defaults_of_onnxruntime_cuts_nothing_off() -> None:
    """Why it is not used: as many bins as steps leave one candidate. Should this fail, look at it again."""
    collector = HistogramCollector("entropy", True, 128, 128, 99.99, "same")
    counts, edges = np.histogram(TAILED, 128, range=(-40, 40))
    low, high = collector.get_entropy_threshold(
        (counts, edges.astype(np.float32), np.float32(-35), np.float32(40), np.float32(40)), 128
    )
    assert (low, high) == (-35, 40)


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_constant_values_and_one_sided_ones_have_ranges(method: str) -> None:
    options = Int8Options(method=method)
    assert cut_range(histogram(np.zeros(10, np.float32)), 127, options) == (0.0, 0.0)
    low, high = cut_range(histogram(np.full(10, 3.0, np.float32)), 127, options)
    assert low >= 0 and high == pytest.approx(3.0, rel=0.02)


def test_histograms_do_not_depend_on_the_order_of_images() -> None:
    model = residual()
    batch = frames(5)
    forward, back = (
        measure_histograms(model, ["r1", "y"], open_calibration(model, [b]), 512) for b in (batch, batch[::-1])
    )
    for name in ("r1", "y"):
        np.testing.assert_array_equal(forward[name].counts, back[name].counts)
        assert (forward[name].low, forward[name].high) == (back[name].low, back[name].high)
        assert forward[name].counts.sum() == 5 * (8 if name == "r1" else 4) * 12 * 16


# --- options ---


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "best"}, {"placement": "tflite"}, {"percentile": 101.0}, {"bins": 16}, {"bias_images": 0},
        {"quantize_outputs": True},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="int8"):
        Int8Options(**wrong)  # type: ignore[arg-type]


# --- placement for TensorRT ---


def quantized_inputs(model: ir.Model, value: str) -> list[bool]:
    """Of the node that makes `value`: which inputs come out of DequantizeLinear."""
    return [
        v is not None and v.producer() is not None and v.producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]
        for v in maker(model, value).inputs
    ]


def test_a_residual_block_has_pairs_where_tensorrt_fuses() -> None:
    model = residual()
    made = quantize(model, calibrated(model), dataclasses.replace(PLAIN, int8_weights=True))
    found = made.model
    for layer in ("c1", "c2", "y"):
        assert quantized_inputs(found, layer) == [True, True, False]  # data, weight, and a float bias
    assert quantized_inputs(found, "t") == [False, True]  # the shortcut alone
    assert sorted(made.scales) == ["r1", "r2", "x"]  # r1 once, for the convolution and the shortcut
    assert operators(found).count("QuantizeLinear") == 3
    assert [v.name for v in found.graph.outputs] == ["y"] and maker(found, "y").op_type == "Conv"
    assert all(s.signed and s.zero_point == 0 for s in made.scales.values())
    assert found.graph.initializers["w1/int8"].dtype == ir.DataType.INT8 and "w1" not in found.graph.initializers
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    (off,) = measure_deviation(model, found, calibrated(model))
    assert 1e-3 < off.relative_rms < 0.05


@pytest.mark.parametrize("placement", ["tensorrt", "onnxruntime"])
def test_weights_are_stored_as_the_parser_takes_them(placement: str) -> None:
    """Those of TensorRT 8 take no int8 constants; what a graph computes is the same."""
    model = residual()
    usual = quantize(model, calibrated(model), Int8Options(placement=placement, correct_bias=False)).model
    stored = usual.graph.initializers
    assert ("w2/int8" in stored) == (placement == "onnxruntime")
    as_bytes = Int8Options(placement=placement, correct_bias=False, int8_weights=True)
    (off,) = measure_deviation(quantize(model, calibrated(model), as_bytes).model, usual, calibrated(model))
    assert off.relative_rms < 1e-6


PROJECTED = f"""{HEAD}
net (uint8[n, h, w, 3] frame) => (float[n, 4, h, w] y)
{{
  {FRAME}
  p1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
  p2 = Relu (p1)
  main = Conv <pads = [1, 1, 1, 1]> (p2, w2)
  short = Conv (x, ws)
  t = Add (main, short)
  r = Relu (t)
  y = Conv (r, w3)
}}
"""


def test_of_two_convolutions_that_are_added_the_shortcut_is_quantised() -> None:
    weights = {**drawn({n: s for n, s in {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (4, 8, 1, 1)}.items()})}
    model = graph(PROJECTED, {**NORMALISED, **weights, **drawn({"ws": (8, 3, 1, 1)})})
    made = quantize(model, calibrated(model), PLAIN)
    assert quantized_inputs(made.model, "t") == [False, True]


UNET = f"""{HEAD}
net (uint8[n, h, w, 3] frame) => (float[n, 2, h, w] y)
{{
  {FRAME}
  c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
  e1 = Relu (c1)
  mp = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (e1)
  c2 = Conv <pads = [1, 1, 1, 1]> (mp, w2)
  e2 = Relu (c2)
  u = ConvTranspose <strides = [2, 2]> (e2, wt, bt)
  j = Concat <axis = 1> (e1, u)
  c3 = Conv <pads = [1, 1, 1, 1]> (j, w3)
  e3 = Relu (c3)
  y = Conv (e3, w4)
}}
"""
UNET_SHAPES = {"w1": (8, 3, 3, 3), "w2": (12, 8, 3, 3), "wt": (12, 6, 2, 2), "bt": (6,), "w3": (8, 14, 3, 3),
               "w4": (2, 8, 1, 1)}  # fmt: skip


def unet() -> ir.Model:
    return graph(UNET, {**NORMALISED, **drawn(UNET_SHAPES)})


def test_what_only_moves_numbers_shares_a_scale() -> None:
    made = quantize(unet(), calibrated(unet()), PLAIN)
    assert made.scales["mp"] == made.scales["j"]  # both hold numbers of e1
    assert made.scales["e2"] != made.scales["mp"]
    assert len(made.model.graph.initializers["wt/scale"].const_value.numpy()) == 6  # outputs of a ConvTranspose: axis 1
    (off,) = measure_deviation(unet(), made.model, calibrated(unet()))
    assert off.relative_rms < 0.05


GROUPED = f"""{HEAD}
net (float[n, 4, h, w] x) => (float[n, 6, i, j] y)
{{
  d = Conv <group = 4, pads = [1, 1, 1, 1]> (x, wd)
  g = ConvTranspose <group = 2, strides = [2, 2]> (d, wg)
  y = ConvTranspose <group = 6, strides = [2, 2]> (g, wt)
}}
"""


def test_groups_have_a_scale_for_every_output_that_an_engine_knows_one_for() -> None:
    shapes = {"wd": (4, 1, 3, 3), "wg": (4, 3, 2, 2), "wt": (6, 1, 2, 2)}
    model = graph(GROUPED, drawn(shapes))
    images = np.random.default_rng(0).standard_normal((4, 4, 6, 6)).astype(np.float32)
    opened = open_calibration(model, [images])
    made = quantize(model, opened, Int8Options())
    counts = {n: len(made.model.graph.initializers[f"{n}/scale"].const_value.numpy()) for n in shapes}
    assert counts == {"wd": 4, "wg": 3, "wt": 1}
    (off,) = measure_deviation(model, made.model, opened)
    assert off.relative_rms < 0.05


LINEAR = f"""{HEAD}
net (float[n, 6] x) => (float[n, 3] y)
{{
  a = Gemm <transB = 1> (x, wa, ba)
  b = Relu (a)
  c = MatMul (b, wb)
  y = Gemm (c, wc, bc)
}}
"""


@pytest.mark.parametrize("options", [Int8Options(), Int8Options(placement="onnxruntime"), Int8Options(equalize=True)])
def test_products_have_their_scales_along_their_outputs(options: Int8Options) -> None:
    shapes = {"wa": (5, 6), "ba": (5,), "wb": (5, 4), "wc": (4, 3), "bc": (3,)}
    model = graph(LINEAR, drawn(shapes))
    opened = open_calibration(model, [np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)])
    made = quantize(model, opened, options)
    counts = {n: len(made.model.graph.initializers[f"{n}/scale"].const_value.numpy()) for n in ("wa", "wb", "wc")}
    assert counts == {"wa": 5, "wb": 4, "wc": 3}
    (off,) = measure_deviation(model, made.model, opened)
    assert off.relative_rms < 0.05


def test_layers_stay_in_float_by_request_and_others_with_their_reason() -> None:
    text = f"""{HEAD} g (float[n, 2, 4, 4] x, float[2, 2, 1, 1] k) => (float[n, 2, 4, 4] y)
    {{ a = Conv (x, k) b = Conv (a, w) y = Conv (b, v) }}"""
    model = graph(text, drawn({"w": (2, 2, 1, 1), "v": (2, 2, 1, 1)}))
    found, declined = find_layers(model, {"v"})
    assert [layer.name for layer in found] == ["w"]
    assert {d.where: d.reason for d in declined} == {
        "Conv a": "its second operand is computed, not a weight",
        "Conv y": "kept in float by request",
    }
    with pytest.raises(UnsupportedGraphError, match="no weight"):
        quantize(residual(), calibrated(residual()), Int8Options(keep_float=frozenset({"gone"})))


@pytest.mark.parametrize("options", [PLAIN, FOR_ORT])
def test_weights_stored_as_floats_say_the_same(options: Int8Options) -> None:
    model = residual()
    bytes_, floats = (
        quantize(model, calibrated(model), dataclasses.replace(options, int8_weights=form)).model
        for form in (True, False)
    )
    assert floats.graph.initializers["w2"].dtype == ir.DataType.FLOAT and "w2/int8" not in floats.graph.initializers
    assert measure_deviation(bytes_, floats, calibrated(model))[0].max_abs < 1e-6
    assert to_float16(floats, calibrated(model)).model is not None
    assert ("QLinearConv" in fused(floats)) == (options is FOR_ORT)


def test_a_net_without_anything_to_quantise_is_refused() -> None:
    model = graph(f"{HEAD} g (float[n, 4] x) => (float[n, 4] y) {{ y = Relu (x) }}", {})
    opened = open_calibration(model, [np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)])
    with pytest.raises(UnsupportedGraphError, match="nothing in this net can be int8"):
        quantize(model, opened)


# --- placement for ONNX Runtime ---


def fused(model: ir.Model) -> list[str]:
    """Operators of the graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


def test_onnxruntime_computes_the_block_with_integers() -> None:
    model = residual()
    made = quantize(model, calibrated(model), FOR_ORT)
    kernels = fused(made.model)
    assert kernels.count("QLinearConv") == 1 and kernels.count("QLinearAdd") == 1
    assert {d.where: d.reason for d in made.declined} == {
        "Conv c1": "an integer convolution that reads 3 channels is slower than a float one",
        "Conv y": "it is an output of the graph, and an integer convolution gives bytes",
    }
    whole = quantize(
        model, calibrated(model), Int8Options(placement="onnxruntime", correct_bias=False, quantize_outputs=True)
    )
    assert fused(whole.model).count("QLinearConv") == 2 and [d.where for d in whole.declined] == ["Conv c1"]
    for variant in (made.model, whole.model):
        run = simulate(variant, ["y"], integer_kernels=True)
        (off,) = measure_deviation(model, variant, calibrated(model), run)
        assert 1e-3 < off.relative_rms < 0.05


def test_the_graph_for_tensorrt_is_not_computed_with_integers_there() -> None:
    """Why there are two placements."""
    model = residual()
    assert "QLinearConv" not in fused(quantize(model, calibrated(model), PLAIN).model)


def test_onnxruntime_leaves_transposed_convolutions_in_float() -> None:
    made = quantize(unet(), calibrated(unet()), FOR_ORT)
    assert {d.where for d in made.declined} == {"Conv c1", "ConvTranspose u", "Conv y"}
    kernels = fused(made.model)
    assert kernels.count("QLinearConv") == 2 and kernels.count("QLinearConcat") == 1 and "ConvTranspose" in kernels
    assert made.scales["e1"] == made.scales["mp"]


# --- opset, and float16 on top ---


def test_an_old_opset_is_raised_and_compared() -> None:
    text = """<ir_version: 7, opset_import: ["" : 11]>
    g (float[n, 2, 4, 4] x) => (float[n, 2, 4, 4] y) { y = Conv (x, w) }"""
    model = graph(text, drawn({"w": (2, 2, 1, 1)}))
    opened = open_calibration(model, [np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)])
    made = quantize(model, opened)
    assert made.model.graph.opset_imports[""] == 13
    assert measure_deviation(model, made.model, opened)[0].relative_rms < 0.05


def test_a_converter_that_changes_the_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """<ir_version: 7, opset_import: ["" : 11]> g (float[n, 2] x) => (float[n, 2] y) { y = Relu (x) }"""
    model = graph(text, {})
    opened = open_calibration(model, [np.float32([[1, -2], [3, 4]])])

    def wrong(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
        planted = onnx.ModelProto()
        planted.CopyFrom(proto)
        planted.opset_import[0].version = version
        planted.graph.node[0].op_type = "Neg"
        return planted

    monkeypatch.setattr(onnx.version_converter, "convert_version", wrong)
    with pytest.raises(UnsupportedGraphError, match="answers otherwise at output y"):
        raise_opset(model, 13, opened)


def test_float16_around_int8_keeps_the_bytes_and_is_typed() -> None:
    model = residual()
    made = quantize(model, calibrated(model), dataclasses.replace(PLAIN, int8_weights=True))
    both = to_float16(made.model, calibrated(model)).model
    assert both.graph.initializers["w1/int8"].dtype == ir.DataType.INT8
    assert all(v.dtype == ir.DataType.FLOAT16 for n in both.graph if n.op_type == "DequantizeLinear" for v in n.outputs)
    (off,) = measure_deviation(model, both, calibrated(model))
    assert off.relative_rms < 0.05


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_int8_is_near_whatever_the_weights(seed: int) -> None:
    """25 dB after three layers; eight bits give some 40 once."""
    model = residual(seed)
    (off,) = measure_deviation(model, quantize(model, calibrated(model, 2), PLAIN).model, calibrated(model, 2))
    assert 20 * math.log10(1 / off.relative_rms) > 25


def test_values_that_a_sub_graph_reads_stay_float_there() -> None:
    text = f"""{HEAD} net (float[n, 6, 4, 4] x, bool c) => (float[n, 6, 4, 4] y)
    {{
      a = Conv (x, w)
      r = Relu (a)
      b = If (c) <then_branch = t () => (float[n, 6, 4, 4] u) {{ u = Neg (r) }},
                  else_branch = e () => (float[n, 6, 4, 4] v) {{ v = Abs (r) }}>
      d = Conv (r, z)
      y = Add (b, d)
    }}"""
    model = graph(text, drawn({"w": (6, 6, 1, 1), "z": (6, 6, 1, 1)}))
    x = np.random.default_rng(0).standard_normal((2, 6, 4, 4)).astype(np.float32)
    opened = open_calibration(model, [{"x": x, "c": np.array(flag)} for flag in (True, False)])
    for options in (PLAIN, FOR_ORT):
        (off,) = measure_deviation(model, quantize(model, opened, options).model, opened)
        assert off.relative_rms < 0.05
