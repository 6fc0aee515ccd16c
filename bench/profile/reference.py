"""The reference work: one small convolution, always the same, by which the machine's speed of the moment is known."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeslim.runtime.backends import Array


def reference_net() -> tuple[bytes, dict[str, Array]]:
    """A 3x3 convolution of 32 to 32 channels on 48 x 48 pixels, 21 million multiply-accumulates, with its input."""
    return convolution(32, 32, (3, 3), (48, 48))


def convolution(
    inputs: int, outputs: int, kernel: tuple[int, int], size: tuple[int, int]
) -> tuple[bytes, dict[str, Array]]:
    """An ONNX graph of one padded convolution with random weights, and its input (1, inputs, *size) float32."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((outputs, inputs, *kernel)).astype(np.float32)
    bias = np.zeros(outputs, np.float32)
    pads = [side // 2 for side in kernel] * 2
    node = helper.make_node("Conv", ["image", "weight", "bias"], ["maps"], name="maps", kernel_shape=kernel, pads=pads)
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, inputs, *size])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, [1, outputs, *size])],
        [onnx.numpy_helper.from_array(weight, "weight"), onnx.numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString(), {"image": generator.standard_normal((1, inputs, *size)).astype(np.float32)}
