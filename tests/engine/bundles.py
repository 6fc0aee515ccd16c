"""Small bundles with what engines are about: a typed variant, islands, 2:4 weights, golden vectors of two sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeslim.exporter.bundle import golden_bytes, write_bundle
from edgeslim.runtime import Deviation, FrameRange, GoldenCase, GoldenSpec, Manifest, Variant, open_backend

from ..unit.conftest import build_manifest

FP16 = Variant(
    name="fp16",
    precision="fp16",
    file="model.fp16.onnx",
    weight_bytes=1,
    atol=5e-3,
    rtol=5e-3,
    deviation=Deviation(frames=1, max_abs=1e-3, relative_rms=1e-3),
)
SIZES = ((1, 16, 24), (2, 16, 24))


def write_tiny(
    path: Path,
    *,
    sizes: Sequence[tuple[int, int, int]] = SIZES,
    model: bytes | None = None,
    variant: Variant = FP16,
    variant_model: bytes | None = None,
    frame_range: FrameRange | None = None,
    batch: int | str = "N",
) -> Path:
    """The small net's bundle with golden vectors of these batches, and its float16 variant."""
    model = model or float_model(batch=batch)
    cases = []
    with open_backend("onnxruntime", model) as backend:
        for seed, (count, height, width) in enumerate(sizes):
            frames = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
            outputs = backend.run({"frame": frames})
            cases.append(GoldenCase(inputs={"frame": frames}, outputs={"logits": outputs[0]}))
    manifest: Manifest = dataclasses.replace(
        build_manifest(golden=GoldenSpec(atol=1e-4, rtol=1e-4)), variants=(variant,), frame_range=frame_range
    )
    entry = dataclasses.replace(manifest.inputs[0], shape=(batch, *manifest.inputs[0].shape[1:]))
    manifest = dataclasses.replace(manifest, inputs=(entry,))
    files = {"golden.npz": golden_bytes(cases), variant.file: variant_model or half_model()}
    return write_bundle(path, model=model, manifest=manifest, files=files)


def float_model(seed: int = 0, batch: int | str = "N") -> bytes:
    """uint8 frame (N, H, W, 3) -> 3x3 convolution -> float32 logits (N, 2, H, W); cast first, as TensorRT demands."""
    weights = np.random.default_rng(seed).normal(size=(2, 3, 3, 3)).astype(np.float32) / 1000
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], "to float", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["logits"], "conv", pads=[1, 1, 1, 1]),
    ]
    return serialised(_graph(nodes, {"weights": weights}, batch))


def _graph(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], batch: int | str = "N") -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [batch, "H", "W", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 2, "H", "W"])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )


def half_model(seed: int = 0) -> bytes:
    """The same net with its convolution in float16, and an activation in float32 between two casts."""
    weights = np.random.default_rng(seed).normal(size=(2, 3, 3, 3)).astype(np.float32) / 1000
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], "to half", to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["pixels"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["half"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["half"], ["float"], "to float", to=TensorProto.FLOAT),
        helper.make_node("Add", ["float", "nothing"], ["logits"], "island"),
    ]
    return serialised(_graph(nodes, {"weights": weights.astype(np.float16), "nothing": np.zeros((), np.float32)}))


def serialised(graph: onnx.GraphProto) -> bytes:
    """As the other small nets: opset 18."""
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
