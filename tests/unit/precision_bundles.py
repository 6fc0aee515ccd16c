"""Small nets as bundles, made without torch: what the tests of further precisions share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edgeslim.exporter.bundle import golden_bytes, write_bundle
from edgeslim.runtime import GoldenCase, GoldenSpec, ImageSpec, TensorSpec
from edgeslim.runtime.validation import ValidationSet, make_validation

from .conftest import build_manifest

LAYERS = ("first", "second", "third", "head")
SIZE = (16, 24)


def net(
    *, channels: int = 3, batch: int | str = "N", sides: tuple[int | str, int | str] = ("H", "W"), two: bool = False
) -> bytes:
    """Frames (N, H, W, channels) uint8 -> four convolutions -> logits (N, 2, H, W), and with `two` a mean (N, 8)."""
    rng = np.random.default_rng(0)
    widths = (channels, 8, 8, 8, 2)
    weights = [
        onnx.numpy_helper.from_array(
            (rng.normal(size=(b, a, 3, 3)) / np.sqrt(9 * a)).astype(np.float32), f"{name}.weight"
        )
        for name, a, b in zip(LAYERS, widths, widths[1:])
    ]
    scale = onnx.numpy_helper.from_array(np.array(1 / 64, np.float32), "scale")
    nodes = [
        onnx.helper.make_node("Transpose", ["frame"], ["planes"], perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Cast", ["planes"], ["pixels"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", ["pixels", "scale"], ["image"]),
    ]
    value = "image"
    for name in LAYERS[:-1]:
        nodes += [
            onnx.helper.make_node("Conv", [value, f"{name}.weight"], [name], pads=[1, 1, 1, 1]),
            onnx.helper.make_node("Relu", [name], [f"{name}.relu"]),
        ]
        value = f"{name}.relu"
    nodes.append(onnx.helper.make_node("Conv", [value, "head.weight"], ["logits"], pads=[1, 1, 1, 1]))
    single = onnx.TensorProto.FLOAT
    outputs = [onnx.helper.make_tensor_value_info("logits", single, [batch, 2, *sides])]
    if two:
        nodes.append(onnx.helper.make_node("GlobalAveragePool", [value], ["pooled"]))
        nodes.append(onnx.helper.make_node("Flatten", ["pooled"], ["mean"]))
        outputs.append(onnx.helper.make_tensor_value_info("mean", single, [batch, 8]))
    entry = onnx.helper.make_tensor_value_info("frame", onnx.TensorProto.UINT8, [batch, *sides, channels])
    graph = onnx.helper.make_graph(nodes, "precise", [entry], outputs, [*weights, scale])
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def quantized(graph: bytes | onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The layers of a typed graph that are int8, each with its weight: as int8, or as floats behind Q and DQ."""
    proto = graph if isinstance(graph, onnx.ModelProto) else onnx.load_model_from_string(graph)
    makers = {output: node for node in proto.graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    found = {}
    for node in proto.graph.node:
        name = node.input[1] if node.op_type == "Conv" else ""
        seen = []
        while name in makers:
            seen.append(makers[name].op_type)
            name = makers[name].input[0]
        if "DequantizeLinear" in seen:
            found[next(layer for layer in LAYERS if name.startswith(layer))] = stored[name]
    return found


def plant(graph: bytes, layer: str) -> bytes:
    """The same graph with a fault: the channels of a layer have changed places."""
    proto = onnx.load_model_from_string(graph)
    weight = quantized(proto)[layer]
    moved = np.ascontiguousarray(np.roll(onnx.numpy_helper.to_array(weight), 1, axis=0))
    weight.CopyFrom(onnx.numpy_helper.from_array(moved, weight.name))
    return proto.SerializeToString()


def frames(count: int, *, channels: int = 3, size: tuple[int, int] = SIZE, seed: int = 1) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, channels), dtype=np.uint8) for _ in range(count)]


def write_net(
    path: Path,
    *,
    model: bytes | None = None,
    channels: int = 3,
    batch: int | str = "N",
    sides: tuple[int | str, int | str] = ("H", "W"),
    two: bool = False,
    archive: bool = False,
) -> Path:
    """The bundle of `net`, or of `model` in its place."""
    data = model or net(channels=channels, batch=batch, sides=sides, two=two)
    shown = np.stack(frames(batch if isinstance(batch, int) else 2, channels=channels))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = dict(zip(names, session.run(names, {"frame": shown})))
    outputs = [TensorSpec(name="logits", dtype="float32", shape=(batch, 2, *sides), layout="NCHW")]
    if two:
        outputs.append(TensorSpec(name="mean", dtype="float32", shape=(batch, 8), layout="NC"))
    manifest = dataclasses.replace(
        build_manifest(golden=GoldenSpec(atol=1e-5, rtol=1e-4)),
        inputs=(TensorSpec(name="frame", dtype="uint8", shape=(batch, *sides, channels), layout="NHWC"),),
        outputs=tuple(outputs),
        image=ImageSpec(
            colour="RGB" if channels == 3 else "grey", mean=(0.5,) * channels, std=(0.5,) * channels, size_multiple=8
        ),
        task="segmentation",
    )
    golden = golden_bytes([GoldenCase(inputs={"frame": shown}, outputs=answers)])
    return write_bundle(path, model=data, manifest=manifest, files={"golden.npz": golden}, archive=archive)


def labelled(model: bytes, count: int = 4, *, channels: int = 3) -> ValidationSet:
    """Frames with what the net itself says of them: fp32 scores 1, and whatever rounding turns over is lost."""
    images = np.stack(frames(count, channels=channels, seed=2))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"frame": images})
    return make_validation(images, logits.argmax(axis=1), "made up")
