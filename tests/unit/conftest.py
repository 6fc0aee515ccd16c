"""A small net, its manifest and its bundle, for the tests of runtime, bench and the bundle writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import pytest
from hypothesis import settings

from edgeslim.exporter.bundle import golden_bytes, write_bundle
from edgeslim.runtime import (
    Certificate,
    GoldenCase,
    GoldenSpec,
    ImageSpec,
    LayerCoverage,
    Manifest,
    Sizes,
    Stage,
    TensorSpec,
)

# How long an example takes says something about the machine, not about the code.
settings.register_profile("edgeslim", deadline=None)
settings.load_profile("edgeslim")


class WriteBundle(Protocol):
    """Writes the small net's bundle: see `write_tiny`."""

    def __call__(self, path: Path, *, archive: bool = False, width: int = 2, seed: int = 0) -> Path: ...


def build_model(width: int = 2, seed: int = 0, batch: int | str = "N") -> bytes:
    """uint8 frame (N, H, W, 3) -> 3x3 convolution -> float32 logits (N, width, H, W)."""
    weights = np.random.default_rng(seed).normal(size=(width, 3, 3, 3)).astype(np.float32) / 1000
    float_type, byte_type = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    nodes = [
        onnx.helper.make_node("Transpose", ["frame"], ["planes"], perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Cast", ["planes"], ["pixels"], to=float_type),
        onnx.helper.make_node("Conv", ["pixels", "weights"], ["logits"], pads=[1, 1, 1, 1]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "tiny",
        [onnx.helper.make_tensor_value_info("frame", byte_type, [batch, "H", "W", 3])],
        [onnx.helper.make_tensor_value_info("logits", float_type, [batch, width, "H", "W"])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def build_manifest(width: int = 2, golden: GoldenSpec | None = None) -> Manifest:
    """The manifest of `build_model`, without what the writer fills in."""
    return Manifest(
        name="tiny",
        golden=golden,
        inputs=(TensorSpec(name="frame", dtype="uint8", shape=("N", "H", "W", 3), layout="NHWC"),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", width, "H", "W"), layout="NCHW"),),
        image=ImageSpec(mean=(0.5, 0.25, 0.125), std=(0.25, 0.25, 0.5), size_multiple=8),
        bench_size=(16, 24),
        classes=("background", "vessel"),
        metrics={"dice": 0.75},
        sizes=Sizes(parameters=54, weight_bytes=216, macs=20736, macs_shape=(1, 16, 24, 3)),
        provenance={"recipe": "0" * 64, "torch": "2.13.0"},
        certificate=Certificate(
            stages=(
                Stage(
                    name="compact torch",
                    reference="masked torch",
                    inputs="random 2x64x96",
                    max_abs=1e-6,
                    max_rel=2e-6,
                    atol=1e-5,
                    rtol=1e-4,
                    passed=True,
                ),
            )
        ),
        coverage=(
            LayerCoverage(layer="stem", operator="Conv", width_before=4, width_after=2, family="f0"),
            LayerCoverage(layer="head", operator="Conv", width_before=2, width_after=2, reason="graph output"),
        ),
    )


def write_tiny(path: Path, *, archive: bool = False, width: int = 2, seed: int = 0) -> Path:
    """The bundle of `build_model`, with golden vectors that ONNX Runtime answered."""
    import onnxruntime

    model = build_model(width, seed)
    frames = np.random.default_rng(1).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    (logits,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"frame": frames})
    golden = golden_bytes([GoldenCase(inputs={"frame": frames}, outputs={"logits": logits})])
    manifest = build_manifest(width, GoldenSpec(atol=1e-5, rtol=1e-4))
    files = {"golden.npz": golden, "docs/report.html": b"<p>fine</p>"}
    return write_bundle(path, model=model, manifest=manifest, files=files, archive=archive)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., bytes]:
    return build_model


@pytest.fixture(scope="session")
def tiny_manifest() -> Callable[..., Manifest]:
    return build_manifest


@pytest.fixture(scope="session")
def write_tiny_bundle() -> WriteBundle:
    return write_tiny


@pytest.fixture(scope="session")
def intact_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as a directory, shared: tests must not change it."""
    return write_tiny(tmp_path_factory.mktemp("intact") / "tiny.bundle")


@pytest.fixture(scope="session")
def intact_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as an archive, shared: tests must not change it."""
    return write_tiny(tmp_path_factory.mktemp("intact") / "tiny.zip", archive=True)


@pytest.fixture
def bundle_copy(tmp_path: Path) -> Path:
    """A bundle as a directory, for a test to damage."""
    return write_tiny(tmp_path / "tiny.bundle")
