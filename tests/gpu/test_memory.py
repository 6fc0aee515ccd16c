"""The ways to a real GPU's memory, each as far as its library is here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edgeslim.errors import DeviceError
from edgeslim.runtime.backends.tensorrt.memory import MEMORIES, DeviceMemory, open_memory
from edgeslim.runtime.devices import describe_device
from edgeslim.runtime.engines.here import Here

from .checks import MEMORY_CHECKS


@pytest.fixture(params=MEMORIES)
def memory(request: pytest.FixtureRequest) -> Iterator[DeviceMemory]:
    try:
        opened = open_memory(request.param)
    except DeviceError as error:  # its library is not here, or knows no CUDA
        if request.param == "cuda-bindings":
            raise
        pytest.skip(error.message)
    yield opened
    opened.close()


@pytest.mark.parametrize("check", MEMORY_CHECKS, ids=lambda check: check.__name__)
def test_memory(check: Callable[[DeviceMemory], None], memory: DeviceMemory) -> None:
    check(memory)


def test_only_an_integrated_gpu_shares_its_memory(gpu: Here) -> None:
    with_board = gpu.board is not None
    memory = open_memory("cuda-bindings")
    try:
        assert memory.unified == with_board, "a Jetson's GPU is integrated, a PC's as a rule is not"
    finally:
        memory.close()


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="GPU 99 was asked for"):
        open_memory("cuda-bindings", device=99)


def test_the_driver_s_figures(gpu: Here) -> None:
    """What doctor, keys of engines and benchmarks say of this GPU is the same GPU."""
    device = describe_device()
    assert device.gpus
    first = device.gpus[0]
    major, minor = first.compute_capability or (0, 0)
    assert f"{major}.{minor}" == gpu.compute_capability and first.name == gpu.gpu
    assert gpu.driver is not None and first.memory_bytes is not None and first.memory_bytes > 2**28
    if gpu.board is None:
        pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
        pynvml.nvmlInit()
        try:
            assert gpu.driver == pynvml.nvmlSystemGetDriverVersion()
        finally:
            pynvml.nvmlShutdown()
