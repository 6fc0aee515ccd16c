"""The analysis on graphs that no torch module gives: widths that travel as numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edgeslim.exporter.channels import analyze

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
