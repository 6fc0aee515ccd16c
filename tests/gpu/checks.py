"""What a way to GPU memory and an engine must do: on GPUs here, on stand-ins in tests/engine/test_gpu_checks.py.

Each check raises AssertionError where the thing does not do it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from edgeslim.errors import EngineError
from edgeslim.runtime import Session, open_backend, read_bundle
from edgeslim.runtime.backends.tensorrt.backend import TensorRTBackend
from edgeslim.runtime.backends.tensorrt.memory import DeviceMemory

SIZE = 3 * 2**20 + 5
MORE_THAN_ANY_GPU = 2**50
BATCHES = ((1, 16, 24), (1, 16, 24), (1, 16, 24), (2, 8, 16), (2, 8, 16), (2, 8, 16), (1, 16, 24), (1, 8, 8))
"""Three of a size: queued, captured, launched. The engine must take all of them."""

OpenEngine = Callable[[bool], TensorRTBackend]
"""The engine to check, with CUDA graphs or without."""


def copies_arrive(memory: DeviceMemory) -> None:
    """There and back, by way of two places on the GPU's side; the last byte too, and none beyond."""
    there, back = memory.allocate_host(SIZE), memory.allocate_host(SIZE)
    device = memory.allocate(SIZE)
    there.array[:] = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    back.array[:] = 0
    memory.copy_in(device, there, SIZE - 1)
    memory.copy_out(back, device, SIZE - 1)
    memory.synchronize()
    np.testing.assert_array_equal(back.array[:-1], there.array[:-1])
    assert back.array[-1] == 0, "a byte was copied that was not asked for"


def mapped_where_shared(memory: DeviceMemory) -> None:
    """An integrated GPU sees page-locked memory in place; another is given copies."""
    buffer = memory.allocate_host(64)
    assert (buffer.device_address is not None) == memory.unified
    assert buffer.address == buffer.array.ctypes.data


def events_tell_times(memory: DeviceMemory) -> None:
    """A copy takes time, in ms, and less than all of it together."""
    first, second, third = (memory.make_event() for _ in range(3))
    host, device = memory.allocate_host(SIZE), memory.allocate(SIZE)
    memory.record(first)
    memory.copy_in(device, host, SIZE)
    memory.record(second)
    memory.copy_out(host, device, SIZE)
    memory.record(third)
    memory.synchronize()
    one, both = memory.elapsed_ms(first, second), memory.elapsed_ms(first, third)
    assert 0 < one < both < 10_000, (one, both)


def a_graph_runs_when_launched(memory: DeviceMemory) -> None:
    """Captured copies do nothing until they are launched, then each time; None from an adapter that captures none."""
    there, back = memory.allocate_host(SIZE), memory.allocate_host(SIZE)
    device = memory.allocate(SIZE)

    def work() -> None:
        memory.copy_in(device, there, SIZE)
        memory.copy_out(back, device, SIZE)

    there.array[:], back.array[:] = 1, 0
    graph = memory.capture(work)
    if graph is None:
        return
    memory.synchronize()
    assert not back.array.any(), "capturing has run the work"
    for value in (1, 2):
        there.array[:] = value
        memory.launch(graph)
        memory.synchronize()
        assert (back.array == value).all()
    memory.free_graph(graph)
    work()  # and the stream is as it was
    memory.synchronize()


def a_failure_while_capturing_leaves_the_stream_usable(memory: DeviceMemory) -> None:
    """The net that cannot be captured runs on, layer by layer."""

    def fails() -> None:
        raise EngineError("TensorRT did not run the engine", "planted")

    with suppress(EngineError):  # a stand-in only keeps the work
        memory.capture(fails)
    copies_arrive(memory)


def too_much_is_an_error(memory: DeviceMemory) -> None:
    """Out of memory names the bytes, and what is smaller can still be had."""
    with pytest.raises(EngineError, match=f"{MORE_THAN_ANY_GPU} bytes"):
        memory.allocate(MORE_THAN_ANY_GPU)
    copies_arrive(memory)


def closes_twice(memory: DeviceMemory) -> None:
    """Everything is freed once."""
    memory.allocate(SIZE)
    memory.allocate_host(SIZE)
    memory.make_event()
    memory.close()
    memory.close()


MEMORY_CHECKS = (
    copies_arrive, mapped_where_shared, events_tell_times, a_graph_runs_when_launched,
    a_failure_while_capturing_leaves_the_stream_usable, too_much_is_an_error, closes_twice,
)  # fmt: skip


def engine_equals_onnxruntime(bundle: Path, precision: str, open_engine: OpenEngine, atol: float) -> None:
    """Sizes that change, with CUDA graphs and without: every answer is ONNX Runtime's of the fp32 model."""
    whole = read_bundle(bundle)
    name = whole.manifest.outputs[0].name
    with open_backend("onnxruntime", whole.model) as reference:
        for graphs in (True, False):
            with Session(whole, open_engine(graphs), precision=precision) as session:
                for seed, size in enumerate(BATCHES):
                    frames = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
                    (wanted,) = reference.run({whole.manifest.inputs[0].name: frames})
                    np.testing.assert_allclose(session.run_batch(frames)[name], wanted, rtol=0, atol=atol)
                backend = session.backend
                assert isinstance(backend, TensorRTBackend)
                assert (backend.graphs == "off") != graphs


def parts_are_timed(open_engine: OpenEngine) -> None:
    """Every part of a run takes some time, and none more than the whole."""
    with open_engine(True) as backend:
        shape = (1, 16, 24, 3)
        for _ in range(3):
            _, times = backend.run_timed({backend.inputs[0].name: np.zeros(shape, np.uint8)})
        parts = (times.copy_in_ms, times.compute_ms, times.copy_out_ms, times.enqueue_ms)
        assert all(part is None or 0 < part <= times.host_ms for part in parts), times
        assert (times.copy_in_ms is None) == backend.unified
        use = backend.memory_use()
        assert use.io_bytes > 0 and (use.activation_bytes is None or use.activation_bytes >= 0)


def damaged_engines_are_named(engine: bytes, open_bytes: Callable[[bytes], TensorRTBackend]) -> None:
    """Cut, empty, overwritten: an EngineError that says to build again; never an answer, never a crash."""
    for broken in (engine[: len(engine) // 2], engine[:64], b"", bytes(len(engine))):
        with pytest.raises(EngineError, match="cannot be loaded") as raised:
            open_bytes(broken)
        assert "edgeslim build" in raised.value.hint
