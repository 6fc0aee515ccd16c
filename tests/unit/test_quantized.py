"""Graphs quantised by ONNX Runtime's own tool, cut with their scales and zero points."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.graph_runner import runner_from_graph
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.plan import plan_from_cut
from edgeslim.exporter.weights import with_weights

NET = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[n, 3, 12, 12] x) => (float[n, 2, 12, 12] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, stem, stem_bias)
  b = Relu (a)
  c = Conv <pads = [1, 1, 1, 1], group = 8> (b, depthwise, depthwise_bias)
  d = Relu (c)
  e = Conv (d, middle, middle_bias)
  f = Relu (e)
  g = Conv (f, wide, wide_bias)
  h = Add (g, b)
  y = Conv <pads = [1, 1, 1, 1]> (h, head, head_bias)
}
"""
SHAPES = {
    "stem": (8, 3, 3, 3), "depthwise": (8, 1, 3, 3), "middle": (6, 8, 1, 1), "wide": (8, 6, 1, 1), "head": (2, 8, 3, 3),
}  # fmt: skip
IMAGES = np.random.default_rng(1).standard_normal((2, 3, 12, 12), np.float32)


class Calibration(CalibrationDataReader):
    """Two batches of noise."""

    def __init__(self) -> None:
        self.batches: Iterator[dict[str, NDArray[np.float32]]] = iter([{"x": IMAGES}, {"x": -IMAGES}])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self.batches, None)


def quantized(folder: Path, per_channel: bool, weights: QuantType) -> ir.Model:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(NET)
    for name, shape in SHAPES.items():
        kernel = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        bias = rng.standard_normal(shape[0]) / 4
        for label, array in ((name, kernel), (f"{name}_bias", bias)):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), label))
    onnx.save(onnx.shape_inference.infer_shapes(proto), folder / "float.onnx")
    logging.disable(logging.WARNING)  # it recommends steps that are of no use here
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Calibration(),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        weight_type=weights,
        activation_type=QuantType.QUInt8,
    )
    logging.disable(logging.NOTSET)
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(folder / "int8.onnx")))


def masked(model: ir.Model, channels: ChannelMap, cut: list[int]) -> ir.Model:
    plan = plan_from_cut(channels, cut)
    arrays = {n: v.const_value.numpy() for n, v in model.graph.initializers.items() if v.const_value is not None}
    return with_weights(model, {name: plan.mask(name, arrays[name]) for name in plan.initializers})


@pytest.mark.parametrize("per_channel", [True, False])
def test_quantised_weights_scales_and_zero_points_leave_together(tmp_path: Path, per_channel: bool) -> None:
    model = quantized(tmp_path, per_channel, QuantType.QInt8)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph}
    channels = analyze(model)
    widths = {family.name: family.width for family in channels.families}
    assert sorted(widths.values()) == [6, 8], widths  # the residual one with its depthwise layer, and the middle
    if per_channel:
        (wide,) = (f for f in channels.families if f.width == 8)
        names = {place.initializer for place in wide.places}
        assert {n for n in names if n.endswith("_scale")} >= {"stem_scale", "depthwise_scale", "wide_scale"}, names
    assert [layer.layer for layer in channels.layers] == [f"{name}_quantized" for name in SHAPES]
    rng = np.random.default_rng(0)
    for _ in range(4):
        cut = [int(i) for f in channels.families for i in rng.permutation(f.labels)[: f.width // 2]]
        compact = remove_channels(model, channels, cut)
        assert sum(v.const_value.nbytes for v in compact.graph.initializers.values() if v.const_value) < sum(
            v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value
        )
        (wanted,), (seen,) = (runner_from_graph(m)(IMAGES) for m in (masked(model, channels, cut), compact))
        assert np.ptp(wanted) > 0.1
        np.testing.assert_allclose(seen, wanted, rtol=0, atol=1e-6)


def test_a_quantised_weight_that_is_read_as_numbers_too_stays(tmp_path: Path) -> None:
    """Whoever reads it first takes its axes for fixed."""
    model = quantized(tmp_path, True, QuantType.QInt8)
    weight = model.graph.initializers["middle_quantized"]
    reader = ir.node("Shrink", [weight])
    reader.outputs[0].name, reader.outputs[0].type = "numbers", weight.type
    reader.outputs[0].shape = weight.shape
    model.graph.insert_before(next(iter(model.graph)), reader)
    model.graph.outputs.append(reader.outputs[0])
    channels = analyze(model)
    assert "middle_quantized" not in {p.initializer for f in channels.families for p in f.places}


def test_weights_whose_zero_is_not_zero_stay(tmp_path: Path) -> None:
    """Masked to 0 they would read as -zero_point * scale."""
    model = quantized(tmp_path, False, QuantType.QUInt8)
    channels = analyze(model)
    for family in channels.families:
        compact = remove_channels(model, channels, [int(family.labels[0])])
        (wanted,), (seen,) = (
            runner_from_graph(m)(IMAGES) for m in (masked(model, channels, [int(family.labels[0])]), compact)
        )
        np.testing.assert_allclose(seen, wanted, rtol=0, atol=1e-6)
    assert not {"stem_quantized", "middle_quantized"} & {f.name for f in channels.families}
