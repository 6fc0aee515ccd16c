"""Running engines on stand-ins for TensorRT and a GPU: addresses, copies, graphs, shapes, and every way to fail."""

from __future__ import annotations

import ctypes
import dataclasses
import inspect
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeslim.errors import BundleError, ConfigError, DeviceError, EngineError
from edgeslim.exporter.engine import BuildOptions, parse_frames
from edgeslim.runtime import Session, load, open_backend, read_bundle
from edgeslim.runtime.backends.tensorrt.backend import TensorRTBackend
from edgeslim.runtime.backends.tensorrt.memory import MEMORIES, DeviceMemory, open_memory
from edgeslim.runtime.backends.tensorrt.module import import_tensorrt

from .conftest import BuildOnOrin, UseTensorRT
from .fake_memory import FakeMemory
from .fake_tensorrt import Plan

RANGE = BuildOptions(frames=parse_frames("1x8x8:1x16x24:2x16x24"))


@pytest.fixture
def engine(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> bytes:
    use_tensorrt("103")
    return build_on_orin(tiny, RANGE).stored.read()


def frames(count: int = 1, height: int = 16, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def expected(tiny: Path, batch: np.ndarray) -> np.ndarray:
    with load(tiny, backend="onnxruntime") as session:
        return session.run_batch(batch)["logits"]


@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize("graphs", [False, True])
def test_frames_of_changing_sizes_come_out_right(tiny: Path, engine: bytes, unified: bool, graphs: bool) -> None:
    memory = FakeMemory(unified=unified)
    with TensorRTBackend(engine, memory=memory, cuda_graphs=graphs) as backend:
        assert backend.unified == unified
        with Session(read_bundle(tiny), backend) as session:
            for seed, size in enumerate([(1, 16, 24), (1, 16, 24), (1, 16, 24), (2, 8, 16), (2, 8, 16), (1, 16, 24)]):
                batch = frames(*size, seed)
                np.testing.assert_allclose(session.run_batch(batch)["logits"], expected(tiny, batch), rtol=0, atol=1e-6)
            assert session.verify_golden().cases == 2
    assert memory.closed >= 1
    assert ("in" in memory.calls) == (not unified) and ("out" in memory.calls) == (not unified)
    assert ("launch" in memory.calls) == graphs and memory.calls.count("free") <= memory.calls.count("capture")


def test_one_run_is_copy_compute_copy_wait(tiny: Path, engine: bytes) -> None:
    memory = FakeMemory()
    with TensorRTBackend(engine, memory=memory) as backend:
        for _ in range(3):
            backend.run({"frame": frames()})
        assert backend.graphs == "used"
    assert memory.calls == [
        "in", "out", "synchronize",  # the first is queued layer by layer
        "in", "capture", "launch", "out", "synchronize",
        "in", "launch", "out", "synchronize",
    ]  # fmt: skip


def test_answers_are_not_overwritten_by_the_next_frame(engine: bytes) -> None:
    with TensorRTBackend(engine, memory=FakeMemory(unified=True)) as backend:
        (first,) = backend.run({"frame": frames(seed=1)})
        kept = first.copy()
        backend.run({"frame": frames(seed=2)})
        np.testing.assert_array_equal(first, kept)


def test_an_adapter_without_graphs_says_so(tiny: Path, engine: bytes) -> None:
    with TensorRTBackend(engine, memory=FakeMemory(graphs=False)) as backend:
        for _ in range(3):
            answer = backend.run({"frame": frames()})[0]
        assert backend.graphs == "fake captures none"
        np.testing.assert_allclose(answer, expected(tiny, frames()), rtol=0, atol=1e-6)


def test_a_net_that_cannot_be_captured_runs_as_before(tiny: Path, engine: bytes) -> None:
    class Refusing(FakeMemory):
        def capture(self, work: object) -> int | None:
            raise EngineError("operation not permitted when stream is capturing", "")

    with TensorRTBackend(engine, memory=Refusing()) as backend:
        for _ in range(3):
            answer = backend.run({"frame": frames()})[0]
        assert "cannot be captured: operation not permitted" in backend.graphs
        np.testing.assert_allclose(answer, expected(tiny, frames()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("unified", [False, True])
def test_the_parts_of_a_run_are_timed(tiny: Path, engine: bytes, unified: bool) -> None:
    with TensorRTBackend(engine, memory=FakeMemory(unified=unified)) as backend:
        for _ in range(3):
            answers, times = backend.run_timed({"frame": frames()})
        np.testing.assert_allclose(answers[0], expected(tiny, frames()), rtol=0, atol=1e-6)
        assert (times.copy_in_ms is None) == (times.copy_out_ms is None) == unified
        assert 0 < times.compute_ms <= times.host_ms and 0 < times.enqueue_ms <= times.host_ms


class OnGpu:
    """What torch or CuPy would hold, in the stand-in's memory."""

    def __init__(self, array: np.ndarray, **changes: object) -> None:
        self.array = array
        self._changes = changes

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        array = self.array
        strides = None if array.flags.c_contiguous else array.strides
        data = (array.ctypes.data, False)
        made = {"version": 3, "data": data, "shape": array.shape, "typestr": array.dtype.str, "strides": strides}
        return {**made, **self._changes}


def read(resident: object) -> np.ndarray:
    """The array behind a pointer of the stand-in's GPU."""
    interface = resident.__cuda_array_interface__  # type: ignore[attr-defined]
    dtype, shape = np.dtype(interface["typestr"]), interface["shape"]
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(interface["data"][0]))
    return raw.view(dtype).reshape(shape).copy()


@pytest.mark.parametrize("unified", [False, True])
def test_frames_on_the_gpu_are_read_where_they_are(tiny: Path, engine: bytes, unified: bool) -> None:
    memory = FakeMemory(unified=unified)
    with TensorRTBackend(engine, memory=memory) as backend:
        backend.run({"frame": frames()})
        copies = memory.calls.count("in")
        for seed, size in enumerate([(1, 16, 24), (2, 8, 16), (2, 8, 16)]):
            batch = frames(*size, seed)
            (answer,) = backend.run_resident({"frame": OnGpu(batch)}).values()
            assert answer.stream == backend.stream
            np.testing.assert_allclose(read(answer), expected(tiny, batch), rtol=0, atol=1e-6)
        assert memory.calls.count("in") == copies
        host = backend.run({"frame": frames(seed=9)})[0]  # and frames of the CPU as before
        np.testing.assert_allclose(host, expected(tiny, frames(seed=9)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (frames(), "ndarray, which does not tell where on the GPU it is"),
        (OnGpu(frames().astype(np.float32)), "frame is float32, the engine takes uint8"),
        (OnGpu(frames(1, 16, 48)[:, :, ::2]), "has gaps between its elements"),
        (OnGpu(frames(1, 32, 24)), "the engine was built for"),
    ],
)
def test_an_array_on_the_gpu_that_does_not_fit(engine: bytes, array: OnGpu, message: str) -> None:
    with TensorRTBackend(engine, memory=FakeMemory()) as backend:
        with pytest.raises(EngineError, match=message):
            backend.run_resident({"frame": array})
        assert backend.run({"frame": frames()})[0].shape == (1, 2, 16, 24)


def test_what_an_engine_occupies(engine: bytes) -> None:
    with TensorRTBackend(engine, memory=FakeMemory()) as backend:
        use = backend.memory_use()
    biggest = 2 * 16 * 24 * (3 + 2 * 4)
    assert use.io_bytes == 2 * biggest and use.activation_bytes == 1000 and use.weight_bytes is None


@pytest.mark.parametrize(
    ("size", "message"),
    [((1, 32, 24), r"\[1, 32, 24, 3\] was given, the engine was built for \[1, 8, 8, 3\] to \[2, 16, 24, 3\]"),
     ((3, 16, 24), r"\[3, 16, 24, 3\]")],
)  # fmt: skip
def test_a_size_outside_the_profile_is_refused(engine: bytes, size: tuple[int, int, int], message: str) -> None:
    with TensorRTBackend(engine, memory=FakeMemory()) as backend:
        backend.run({"frame": frames()})
        with pytest.raises(EngineError, match=message):
            backend.run({"frame": frames(*size)})
        assert backend.run({"frame": frames()})[0].shape == (1, 2, 16, 24)  # and it goes on
        with pytest.raises(EngineError, match="frame is float32, the engine takes uint8"):
            backend.run({"frame": frames().astype(np.float32)})


@pytest.mark.parametrize(
    ("engine_version", "version", "capability", "cut", "message"),
    [
        ("103", "103", "8.7", 5, "truncated or damaged"),
        ("103", "103", "8.7", 10**9, "truncated or damaged"),
        ("103", "107", "8.7", 0, "built by another version of TensorRT"),
        ("103", "103", "8.6", 0, "built for another GPU"),
    ],
)
def test_an_engine_that_does_not_load_says_why(
    engine_version: str,
    version: str,
    capability: str,
    cut: int,
    message: str,
    tiny: Path,
    use_tensorrt: UseTensorRT,
    build_on_orin: BuildOnOrin,
) -> None:
    use_tensorrt(engine_version)
    data = build_on_orin(tiny).stored.read()
    use_tensorrt(version, capability=capability)
    memory = FakeMemory()
    with pytest.raises(EngineError, match=message) as raised:
        TensorRTBackend(data[: max(0, len(data) - cut)] if cut else data, memory=memory)
    assert "edgeslim build" in raised.value.hint and memory.closed == 1


def test_a_version_compatible_engine_loads_elsewhere(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    use_tensorrt("103")
    data = build_on_orin(tiny, BuildOptions(version_compatible=True)).stored.read()
    use_tensorrt("107")
    with TensorRTBackend(data, memory=FakeMemory()) as backend:
        assert backend.version == "10.7.0"


def test_too_little_memory_for_the_context_or_the_buffers(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    use_tensorrt("103")
    data = build_on_orin(tiny).stored.read()
    memory = FakeMemory(total=100)
    with pytest.raises(EngineError, match="cannot be had"):
        TensorRTBackend(data, memory=memory)
    assert memory.closed == 1
    use_tensorrt("103", Plan(no_context=True))
    with pytest.raises(EngineError, match="loads but cannot be run: out of memory"):
        TensorRTBackend(data, memory=FakeMemory())


def test_an_engine_that_fails_while_it_runs(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> None:
    plan = Plan()
    use_tensorrt("103", plan)
    with TensorRTBackend(build_on_orin(tiny).stored.read(), memory=FakeMemory()) as backend:
        plan.fails_to_run = True
        with pytest.raises(EngineError, match="did not run the engine: an illegal memory access"):
            backend.run({"frame": frames()})
    with pytest.raises(EngineError, match="the session is closed"):
        backend.run({"frame": frames()})
    backend.close()


def test_a_driver_that_is_not_there_is_no_traceback(
    tiny: Path, engine: bytes, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    """The bindings raise TypeError where a constructor fails, and only the log knows why."""
    use_tensorrt("103", Plan(no_driver=True))
    with pytest.raises(DeviceError, match=r"TensorRT 10\.3\.0 does not start: CUDA initialization failure"):
        build_on_orin(tiny, BuildOptions(level=5))
    memory = FakeMemory()
    with pytest.raises(EngineError, match="there is no NVIDIA driver here, or it is older"):
        TensorRTBackend(engine, memory=memory)
    assert memory.closed == 1


def test_two_sessions_in_a_process_hear_their_own_reasons(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    """TensorRT keeps the first logger of a process and drops all others."""
    plan = Plan()
    use_tensorrt("103", plan)
    first, second = (build_on_orin(tiny, BuildOptions(level=level)) for level in (1, 2))
    assert not any("already registered" in note for note in second.stored.record.notes)
    with TensorRTBackend(first.stored.read(), memory=FakeMemory()) as a:
        with pytest.raises(EngineError, match="truncated or damaged"):
            TensorRTBackend(b"nothing", memory=FakeMemory())
        with TensorRTBackend(second.stored.read(), memory=FakeMemory()) as b:
            plan.fails_to_run = True
            for backend in (a, b):
                with pytest.raises(EngineError, match="an illegal memory access"):
                    backend.run({"frame": frames()})


def test_another_net_s_engine_does_not_pass_for_this_bundle(tiny: Path, engine: bytes) -> None:
    bundle = read_bundle(tiny)
    output = dataclasses.replace(bundle.manifest.outputs[0], name="other")
    bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, outputs=(output,)))
    with TensorRTBackend(engine, memory=FakeMemory()) as backend, pytest.raises(BundleError, match="the graph logits"):
        Session(bundle, backend)


# --- the ways to a real GPU, on a machine that has none ---------------------------------------------------------------


def test_without_a_driver_the_reason_is_cuda_s() -> None:
    if not without_gpu():
        pytest.skip("there is a GPU here: tests/gpu opens it")
    with pytest.raises(DeviceError, match="there is no usable GPU: "):
        open_memory("cuda-bindings")
    with pytest.raises(DeviceError, match="torch sees no GPU"):
        open_memory("torch")
    with pytest.raises(DeviceError, match=r"PyCUDA cannot be imported|there is no usable GPU"):
        open_memory("pycuda")
    with pytest.raises(ConfigError, match="there is no way to GPU memory named 'rocm'"):
        open_memory("rocm")


def without_gpu() -> bool:
    from edgeslim.runtime.engines.here import look_here

    return look_here().compute_capability is None


def test_the_stand_in_and_the_adapters_have_the_protocol_s_methods() -> None:
    """By their sources, for PyCUDA cannot be imported without a driver."""
    named = {name for name, _ in inspect.getmembers(DeviceMemory) if not name.startswith("_")}
    wanted = named - {"name", "unified", "stream"}
    assert wanted <= set(dir(FakeMemory)) and len(wanted) == 12
    folder = Path(inspect.getfile(DeviceMemory)).parent
    for name in MEMORIES:
        source = (folder / f"{name.replace('-', '_')}.py").read_text()
        for method in wanted:
            assert f"def {method}(self" in source, f"{name} lacks {method}"


def test_every_call_of_the_cuda_bindings_exists() -> None:
    from cuda.bindings import runtime as cuda

    source = (Path(inspect.getfile(DeviceMemory)).parent / "cuda_bindings.py").read_text()

    names = set(re.findall(r"cuda\.(cuda\w+)", source))
    assert len(names) > 20 and [name for name in names if not hasattr(cuda, name)] == []


def test_without_tensorrt_the_hint_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DeviceError, match="tensorrt cannot be imported") as raised:
        import_tensorrt("tensorrt")
    assert "JetPack" in raised.value.hint


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_is_not_there_is_no_silent_cpu(tiny: Path, name: str) -> None:
    provider = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-tensorrt": "TensorrtExecutionProvider"}[name]
    if provider in onnxruntime.get_available_providers():
        pytest.skip(f"this ONNX Runtime has {provider}")
    with pytest.raises(DeviceError, match=f"has no {provider}, only "):
        open_backend(name, read_bundle(tiny).model)
