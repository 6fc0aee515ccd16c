"""CUDA by NVIDIA's own Python bindings (`cuda-bindings`), the default."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeslim.errors import DeviceError, EngineError

from .protocol import HostBuffer

try:
    from cuda.bindings import runtime as cuda
except ImportError as error:
    raise DeviceError(
        f"cuda-bindings cannot be imported: {error}", "pip install 'edgeslim[tensorrt]', or use memory=\"pycuda\""
    ) from error


class CudaBindingsMemory:
    """See DeviceMemory. device: the GPU's number."""

    name = "cuda-bindings"

    def __init__(self, device: int = 0) -> None:
        count = _check(cuda.cudaGetDeviceCount(), "there is no usable GPU", DeviceError)
        if device >= count:
            raise DeviceError(f"GPU {device} was asked for, there are {count}", "GPUs count from 0")
        _check(cuda.cudaSetDevice(device), "the GPU cannot be used")
        integrated = cuda.cudaDeviceAttr.cudaDevAttrIntegrated
        self.unified = bool(_check(cuda.cudaDeviceGetAttribute(integrated, device), "the GPU does not answer"))
        made = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)
        self.stream = int(_check(made, "no stream can be made"))
        self._device: list[int] = []
        self._host: list[int] = []
        self._events: list[int] = []
        self._graphs: list[int] = []
        self._closed = False

    def allocate(self, size: int) -> int:
        """See DeviceMemory."""
        address = int(_check(cuda.cudaMalloc(size), f"{size} bytes of GPU memory cannot be had"))
        self._device.append(address)
        return address

    def allocate_host(self, size: int) -> HostBuffer:
        """See DeviceMemory."""
        flags = cuda.cudaHostAllocMapped if self.unified else cuda.cudaHostAllocDefault
        address = int(_check(cuda.cudaHostAlloc(size, flags), f"{size} bytes of page-locked memory cannot be had"))
        self._host.append(address)
        mapped = None
        if self.unified:
            mapped = int(_check(cuda.cudaHostGetDevicePointer(address, 0), "the GPU cannot see the CPU's memory"))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        return HostBuffer(array=array, address=address, device_address=mapped)

    def copy_in(self, device: int, host: HostBuffer, size: int) -> None:
        """See DeviceMemory."""
        kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _check(cuda.cudaMemcpyAsync(device, host.address, size, kind, self.stream), "the copy to the GPU failed")

    def copy_out(self, host: HostBuffer, device: int, size: int) -> None:
        """See DeviceMemory."""
        kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _check(cuda.cudaMemcpyAsync(host.address, device, size, kind, self.stream), "the copy from the GPU failed")

    def synchronize(self) -> None:
        """See DeviceMemory."""
        _check(cuda.cudaStreamSynchronize(self.stream), "the GPU failed")

    def make_event(self) -> int:
        """See DeviceMemory."""
        event = int(_check(cuda.cudaEventCreate(), "no event can be made"))
        self._events.append(event)
        return event

    def record(self, event: int) -> None:
        """See DeviceMemory."""
        _check(cuda.cudaEventRecord(event, self.stream), "the event cannot be queued")

    def elapsed_ms(self, start: int, end: int) -> float:
        """See DeviceMemory."""
        return float(_check(cuda.cudaEventElapsedTime(start, end), "the events tell no time"))

    def capture(self, work: Callable[[], None]) -> int | None:
        """See DeviceMemory."""
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _check(cuda.cudaStreamBeginCapture(self.stream, mode), "nothing can be captured")
        try:
            work()
        finally:  # the stream must leave capture mode even when the work failed
            ended = cuda.cudaStreamEndCapture(self.stream)
        graph = _check(ended, "the work cannot be captured as a CUDA graph")
        executable = int(_check(cuda.cudaGraphInstantiate(graph, 0), "the CUDA graph cannot be made"))
        _check(cuda.cudaGraphDestroy(graph), "the CUDA graph cannot be freed")
        self._graphs.append(executable)
        return executable

    def launch(self, graph: int) -> None:
        """See DeviceMemory."""
        _check(cuda.cudaGraphLaunch(graph, self.stream), "the CUDA graph failed")

    def free_graph(self, graph: int) -> None:
        """See DeviceMemory."""
        self._graphs.remove(graph)
        _check(cuda.cudaGraphExecDestroy(graph), "the CUDA graph cannot be freed")

    def close(self) -> None:
        """See DeviceMemory. What the driver says while all is being freed helps nobody any more."""
        if self._closed:
            return
        self._closed = True
        for free, handles in (
            (cuda.cudaGraphExecDestroy, self._graphs),
            (cuda.cudaEventDestroy, self._events),
            (cuda.cudaFree, self._device),
            (cuda.cudaFreeHost, self._host),
            (cuda.cudaStreamDestroy, [self.stream]),
        ):
            for handle in handles:
                free(handle)
            handles.clear()


def _check(answer: tuple[Any, ...], what: str, kind: type[EngineError | DeviceError] = EngineError) -> Any:
    """The value of a call of the bindings, which answer (error, value). Raises `kind` where the error is one."""
    error, *values = answer
    if error != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(error)
        raise kind(
            f"{what}: {text.decode(errors='replace')} (CUDA error {int(error)})",
            "`edgeslim doctor` tells what GPU, driver and CUDA there are",
        )
    return values[0] if values else None
