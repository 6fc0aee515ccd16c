"""Let the graph take the camera's own frame: uint8 (N, H, W, 3).

    x = (pixel / 255 - mean) / std = pixel * a + b      a = 1 / (255 std),  b = -mean / std

followed by the transpose to (N, 3, H, W). It is not folded into the first convolution: with zero padding the border
pixels would see b where the net was trained on 0.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeslim.errors import ExportError

FRAME = "frame"
"""Name of the new input."""


def embed_preprocess(model: ir.Model, mean: tuple[float, ...], std: tuple[float, ...]) -> ir.Model:
    """Return a copy of `model` that reads frames (N, H, W, C) uint8 instead of images (N, C, H, W) float32.

    mean, std: per colour, of pixels scaled to [0, 1]. Raises ExportError if the net's input is no image of
    len(mean) channels.
    """
    model = model.clone()
    image = model.graph.inputs[0]
    if len(model.graph.inputs) != 1 or image.shape is None or len(image.shape) != 4:
        raise ExportError(
            f"the net's inputs {[v.name for v in model.graph.inputs]} are not one image batch",
            "give a net with one input (N, C, H, W)",
        )
    batch, channels, height, width = image.shape
    if channels != len(mean):
        raise ExportError(
            f"the net reads images of {channels} channels, the preprocessing has {len(mean)}",
            "give one mean a channel",
        )
    scale = 1.0 / (255.0 * np.asarray(std, np.float64))
    shift = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
    frame = ir.Value(
        name=FRAME, type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape((batch, height, width, channels))
    )
    constants = [
        _constant(model.graph, f"{FRAME}/{name}", array.astype(np.float32))
        for name, array in (("scale", scale), ("shift", shift))
    ]
    pixels = ir.node("Cast", [frame], {"to": ir.DataType.FLOAT.value})
    scaled = ir.node("Mul", [pixels.outputs[0], constants[0]])
    shifted = ir.node("Add", [scaled.outputs[0], constants[1]])
    moved = ir.node("Transpose", [shifted.outputs[0]], {"perm": [0, 3, 1, 2]})
    moved.outputs[0].shape, moved.outputs[0].type = image.shape, image.type
    image.replace_all_uses_with(moved.outputs[0])
    model.graph.inputs[0] = frame
    nodes = [pixels, scaled, shifted, moved]
    for node, name in zip(nodes, ("pixels", "scaled", "shifted", "image")):
        node.outputs[0].name = f"{FRAME}/{name}"
    first = next(iter(model.graph), None)
    if first is None:
        model.graph.extend(nodes)
    else:
        model.graph.insert_before(first, nodes)
    return model


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value
