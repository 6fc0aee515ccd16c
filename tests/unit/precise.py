"""Small nets of the shapes that precision has to do with, and frames for them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.exporter.precision import Calibration, open_calibration

FRAME = """
  p = Cast <to = 1> (frame)
  m = Mul (p, a)
  s = Add (m, b)
  x = Transpose <perm = [0, 3, 1, 2]> (s)
"""
NORMALISED = {"a": np.full(3, 1 / 58, np.float32), "b": np.full(3, -2.1, np.float32)}

RESIDUAL = f"""
<ir_version: 10, opset_import: ["" : 20]>
net (uint8[n, h, w, 3] frame) => (float[n, 4, h, w] y)
{{
  {FRAME}
  c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  r1 = Relu (c1)
  c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2, b2)
  t = Add (c2, r1)
  r2 = Relu (t)
  y = Conv (r2, w3, b3)
}}
"""
SHAPES = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (4, 8, 1, 1), "b3": (4,)}


def graph(text: str, arrays: Mapping[str, NDArray[np.generic]]) -> ir.Model:
    """A graph with these initializers, shapes inferred."""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    onnx.checker.check_model(proto)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights of about unit gain."""
    rng = np.random.default_rng(seed)
    return {n: (rng.standard_normal(s) / np.sqrt(max(1, np.prod(s[1:])))).astype(np.float32) for n, s in shapes.items()}


def residual(seed: int = 0) -> ir.Model:
    """Frame, convolution, residual block, head."""
    return graph(RESIDUAL, {**NORMALISED, **drawn(SHAPES, seed)})


def frames(count: int = 6, size: tuple[int, int] = (12, 16), seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def calibrated(model: ir.Model, count: int = 6) -> Calibration:
    return open_calibration(model, [frames(count)])


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def maker(model: ir.Model, name: str) -> ir.Node:
    """The node that makes a value."""
    (node,) = (n for n in model.graph if name in [v.name for v in n.outputs])
    return node
