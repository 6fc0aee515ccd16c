"""The analysis on graphs that no torch module gives: widths that travel as numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edgeslim.exporter.channels import analyze
from edgeslim.exporter.channels.coverage import coverage

SIZED_BY_A_WIDTH = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[1, 3, 16, 16] x) => (float[1, 2, h, w] y)
<int64[2] rest = {1, 3}, int64[1] one = {1}>
{
  a = Conv <pads = [1, 1, 1, 1]> (x, stem)
  b = Relu (a)
  shape = Shape (b)
  width = Gather (shape, one)
  sizes = Concat <axis = 0> (rest, width, width)
  r = Resize <mode = "nearest"> (x, , , sizes)
  c = Conv <pads = [1, 1, 1, 1]> (r, middle)
  d = Relu (c)
  e = GlobalAveragePool (b)
  f = Conv (e, gate)
  g = Mul (d, f)
  y = Conv (g, head)
}
"""


def test_a_width_that_sizes_an_image_stays() -> None:
    """Cutting the stem would change the height of an image that carries no channels of its own."""
    rng = np.random.default_rng(0)
    shapes = {"stem": (8, 3, 3, 3), "middle": (6, 3, 3, 3), "gate": (6, 8, 1, 1), "head": (2, 6, 1, 1)}
    proto = onnx.parser.parse_model(SIZED_BY_A_WIDTH)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name) for name, shape in shapes.items()
    )
    channels = analyze(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))
    assert [family.name for family in channels.families] == ["middle"]
    reasons = {layer.layer: {channels.pinned.get(i) for i in layer.ids.tolist()} for layer in channels.layers}
    (reason,) = reasons["stem"]
    assert reason is not None and "its width sizes another tensor in Resize r" in reason


def test_the_summary_counts_reasons_and_leaves_the_names_of_nodes_out() -> None:
    """Two convolutions that feed two layer norms stay for one reason, and each says for itself which norm it is."""
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    net (float[1, 3, 8, 8] x) => (float[1, 2, 8, 8] y, float[1, 4, 8, 8] z)
    {
      a = Conv (x, stem)
      b = Relu (a)
      c = Conv (b, one)
      d = Transpose <perm = [0, 2, 3, 1]> (c)
      e = LayerNormalization <axis = -1> (d, gamma)
      f = Conv (b, two)
      g = Transpose <perm = [0, 2, 3, 1]> (f)
      h = LayerNormalization <axis = -1> (g, gamma)
      i = Add (e, h)
      j = Transpose <perm = [0, 3, 1, 2]> (i)
      y = Conv (j, head)
      z = Conv (b, other)
    }
    """
    rng = np.random.default_rng(0)
    shapes = {"stem": (6, 3, 1, 1), "one": (5, 6, 1, 1), "two": (5, 6, 1, 1), "gamma": (5,), "head": (2, 5, 1, 1)}
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name)
        for name, shape in {**shapes, "other": (4, 6, 1, 1)}.items()
    )
    channels = analyze(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))
    report = coverage(channels, [int(channels.families[0].labels[0])])
    assert report.summary == (
        "pruned 1 of 5 layers; 4 kept: 2 normalised over channels by LayerNormalization; 2 graph output"
    )
    reasons = {layer.layer: layer.reason for layer in report}
    assert reasons["one"] == "normalised over channels by LayerNormalization e"
    assert reasons["other"] == "graph output z"
    kinds = {layer.layer: layer.kind for layer in report}
    assert kinds == {
        "stem": None,
        "one": "normalised over channels by LayerNormalization",
        "two": "normalised over channels by LayerNormalization",
        "head": "graph output",
        "other": "graph output",
    }


SIZED_BY_A_FIXED_AXIS = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[1, 3, 4, 4] x, float[1, 6] z) => (float[1, 2, 4, 4] y)
<int64[1] one = {1}, int64[2] image = {4, 4}>
{
  a = Conv (x, stem)
  batch = Shape <start = 0, end = 1> (x)
  shape = Shape (z)
  width = Gather (shape, one)
  sizes = Concat <axis = 0> (batch, width, image)
  b = Reshape (a, sizes)
  y = Conv (b, head)
}
"""


def test_channels_sized_by_an_axis_that_is_fixed_stay() -> None:
    """The other tensor would go on saying six when five are left."""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(SIZED_BY_A_FIXED_AXIS)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name)
        for name, shape in {"stem": (6, 3, 1, 1), "head": (2, 6, 1, 1)}.items()
    )
    channels = analyze(ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True)))
    assert not channels.families
    (reason,) = {channels.pinned.get(i) for i in channels.layers[0].ids.tolist()}
    assert reason == "Reshape b: sized by an axis that is fixed"
