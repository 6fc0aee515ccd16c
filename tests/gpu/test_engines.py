"""Engines on a real GPU: built, run on the golden vectors, loaded, equal to ONNX Runtime, measured.

By the full TensorRT where it is installed, and by TensorRT for RTX where that takes the GPU. Of GPUs that it is not
made for it is tried all the same: what it refuses is skipped as an unsupported target, in its own words.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeslim.errors import DeviceError, EngineError
from edgeslim.exporter.engine import BuildOptions, Built, build_engine, parse_frames
from edgeslim.progress import Silent
from edgeslim.runtime import load
from edgeslim.runtime.backends.tensorrt.backend import TensorRTBackend
from edgeslim.runtime.backends.tensorrt.module import import_tensorrt
from edgeslim.runtime.engines import EngineBackend
from edgeslim.runtime.engines.here import Here

from ..engine.bundles import write_tiny
from .checks import damaged_engines_are_named, engine_equals_onnxruntime, parts_are_timed

RANGE = parse_frames("1x8x8:1x16x24:2x16x24")
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}
MADE_FOR = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""The GPUs that TensorRT for RTX 1.7 names as its targets."""


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def backend(request: pytest.FixtureRequest) -> EngineBackend:
    try:
        import_tensorrt(request.param)
    except DeviceError as error:
        pytest.skip(error.message)
    name: EngineBackend = request.param
    return name


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("gpu") / "tiny.bundle")


def built(bundle: Path, backend: EngineBackend, gpu: Here, precision: str = "fp32") -> Built:
    """The engine, found again from the second test on. Never skipped but for a GPU that RTX is not made for."""
    try:
        options = BuildOptions(backend=backend, precision=precision, frames=RANGE)
        return build_engine(bundle, options, progress=Silent())
    except EngineError as error:
        if backend == "tensorrt-rtx" and gpu.compute_capability not in MADE_FOR:
            pytest.skip(f"unsupported target, {gpu.gpu} ({gpu.compute_capability}): {error.message}")
        raise


@pytest.mark.parametrize("precision", TOLERANCE)
def test_built_checked_loaded_equal(precision: str, backend: EngineBackend, bundle: Path, gpu: Here) -> None:
    made = built(bundle, backend, gpu, precision)
    record = made.stored.record
    assert record.golden is not None and record.golden.cases == 2 and record.unchecked is None
    assert record.spec.compute_capability == gpu.compute_capability and record.spec.gpu == gpu.gpu
    data = made.stored.read()
    engine_equals_onnxruntime(
        bundle,
        precision,
        lambda graphs: TensorRTBackend(data, backend=backend, cuda_graphs=graphs),
        TOLERANCE[precision],
    )
    assert built(bundle, backend, gpu, precision).reused
    assert json.loads(made.stored.layers or "")


def test_parts_of_a_run(backend: EngineBackend, bundle: Path, gpu: Here) -> None:
    data = built(bundle, backend, gpu).stored.read()
    parts_are_timed(lambda graphs: TensorRTBackend(data, backend=backend, cuda_graphs=graphs))


def test_frames_that_are_on_the_gpu(backend: EngineBackend, bundle: Path, gpu: Here) -> None:
    """The same answers as from the CPU's memory, before and after a run from there."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    with TensorRTBackend(built(bundle, backend, gpu).stored.read(), backend=backend) as opened:
        frames = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), np.uint8)
        for _ in range(3):
            (wanted,) = opened.run({"frame": frames})
            resident = torch.from_numpy(frames).cuda()
            torch.cuda.synchronize()
            seen = torch.as_tensor(opened.run_resident({"frame": resident})["logits"], device="cuda").cpu().numpy()
            np.testing.assert_allclose(seen, wanted, rtol=0, atol=1e-6)


def test_damaged_engines(backend: EngineBackend, bundle: Path, gpu: Here) -> None:
    data = built(bundle, backend, gpu).stored.read()
    damaged_engines_are_named(data, lambda broken: TensorRTBackend(broken, backend=backend))


def test_load_chooses_it(backend: EngineBackend, bundle: Path, gpu: Here) -> None:
    built(bundle, backend, gpu)
    with load(bundle, backend=backend) as session:
        assert session.verify_golden().cases == 2
    with load(bundle) as session:
        assert session.choice is not None and session.choice.backend in ("tensorrt", "tensorrt-rtx")


def test_bench(backend: EngineBackend, bundle: Path, gpu: Here) -> None:
    built(bundle, backend, gpu)
    words = ["bench", str(bundle), "--backend", backend, "--samples", "20", "--size", "16x24", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "edgeslim", *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    side = json.loads(done.stdout)["subject"]
    assert side["backend"] == backend and side["gpu"]["compute"]["n"] >= 10
    assert side["gpu"]["cuda_graphs"] == "used" and side["memory"]["engine_bytes"] > 1000
